"""More than can be taken: what is accepted meanwhile, how refusals look, and how soon all is as before."""

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

from django.db import connection, connections

from tests.benchmarks import stage
from tests.benchmarks.load import Connection, events, requests
from tests.processes import running, web

SIZE = 100  # events a batch
SUSTAINED_SECONDS, BURST_SECONDS, AFTER_SECONDS = 10, 30, 15
CONNECTIONS, BURST_CONNECTIONS = 8, 64
BURST = 3  # times what is sustained
USUAL = 0.7  # of it is sent afterwards
AS_BEFORE = 2  # times the sustained p99


@dataclass
class Seen:
    """What senders saw: (when, how long it took) of each batch that was taken, and refusals."""

    taken: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    without_retry_after: int = 0


def run() -> None:
    """Batches of 100: what 8 connections sustain, then 3 times as much is offered over 64 for 30 s, then 0.7 times. A
    refused batch is sent again after its Retry-After."""
    secret = stage.fill()
    connections.close_all()
    fresh = _fresh(secret)
    server = web("bench-web")
    with running(server):
        _offer(server.url, fresh, CONNECTIONS, 3, None)  # warm
        before = _stored()
        sustained = _offer(server.url, fresh, CONNECTIONS, SUSTAINED_SECONDS, None)
        rate, p99 = len(sustained.taken) / SUSTAINED_SECONDS, _p99(sustained)
        burst = _offer(server.url, fresh, BURST_CONNECTIONS, BURST_SECONDS, BURST * rate)
        ended = time.perf_counter()
        after = _offer(server.url, fresh, BURST_CONNECTIONS, AFTER_SECONDS, USUAL * rate)
        taken = SIZE * sum(len(phase.taken) for phase in (sustained, burst, after))
        lost = taken - (_stored() - before)
    accepted = len([one for one in burst.taken if one[0] <= ended]) / BURST_SECONDS
    print(f"sustained {SIZE * rate:,.0f} events/s, p99 {1000 * p99:.0f} ms")
    print(f"burst: accepted {SIZE * accepted:,.0f} events/s, {accepted / rate:.2f} of sustained, ", end="")
    print(f"p99 {1000 * _p99(burst):.0f} ms, {burst.refused} refused, {burst.without_retry_after} without Retry-After")
    back = _seconds_until(after, ended, AS_BEFORE * p99)
    print(f"afterwards: p99 at most {AS_BEFORE} times the sustained one after {back} s; acknowledged - stored = {lost}")


def _offer(url: str, fresh: Callable[[], bytes], senders: int, seconds: float, rate: float | None) -> Seen:
    """Send for so long, at a rate of batches a second or as fast as answers come."""
    seen, turn, lock = Seen(), itertools.count(), threading.Lock()
    begun = time.perf_counter()

    def sender(_: int) -> None:
        one = Connection(url)
        while True:
            with lock:
                due = begun + next(turn) / rate if rate else time.perf_counter()
            if max(due, time.perf_counter()) > begun + seconds:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            _send(one, fresh(), seen, begun + seconds)

    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(sender, range(senders)))
    return seen


def _send(one: Connection, request: bytes, seen: Seen, until: float) -> None:
    """Until it is taken, or the time is over."""
    while True:
        begun = time.perf_counter()
        status, head, body = one.ask(request)
        if status == HTTPStatus.OK:
            assert json.loads(body)["accepted"] == SIZE, body[:500]
            seen.taken.append((time.perf_counter(), time.perf_counter() - begun))
            return
        assert status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE), body[:500]
        seen.refused += 1
        lines = head.lower().split(b"\r\n")
        wait = next((int(line[12:]) for line in lines if line.startswith(b"retry-after:")), None)
        seen.without_retry_after += wait is None
        if time.perf_counter() + (wait or 0) > until:
            return
        time.sleep(wait or 0)


def _fresh(secret: str) -> Callable[[], bytes]:
    """Makes requests whose events were never sent. The sender's name in the ids is replaced: that costs the machine
    less than new events."""
    templates: Iterator[bytes] = itertools.cycle(requests(events(), 50, SIZE, secret))

    def make() -> bytes:
        template = next(templates)
        sender = template.partition(b'"id":"')[2][:32]
        return template.replace(sender, uuid.uuid4().hex.encode())

    return make


def _stored() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_usageevent")
        [number] = cursor.fetchone()
    connections.close_all()
    return int(number)


def _p99(seen: Seen) -> float:
    return stage.centiles([latency for _, latency in seen.taken])[99]


def _seconds_until(seen: Seen, since: float, wanted: float) -> int:
    """Whole seconds after which the 99th percentile of no later second is above what is wanted."""
    late = [int(when - since) for when, latency in seen.taken if latency > wanted]
    crowded = [second for second in set(late) if late.count(second) > _in_second(seen, since, second) / 100]
    return max(crowded, default=-1) + 1


def _in_second(seen: Seen, since: float, second: int) -> int:
    return sum(int(when - since) == second for when, _ in seen.taken)
