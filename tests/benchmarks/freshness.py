"""How old numbers are: from an accepted event to the counters and to an open page."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.conf import settings
from django.db import connections
from django.test import Client

from accounts.models import Customer, Membership, Role, User
from billing.metering.counter_models import UsageBucket
from billing.metering.queries import freshness as current_freshness
from dashboard.building import version_of
from tests.benchmarks import stage
from tests.benchmarks.load import CUSTOMERS, Connection, Event, events, request
from tests.processes import Web, beat, running, web, worker

EVENTS_A_SECOND = 2_000
BATCH = 50
SENDERS = 4
SAMPLES = 20  # of each probe
LOOK_SECONDS = 0.05
PAGE_SECONDS = 1.0  # how often an open page asks
PATIENCE_SECONDS = 30.0
PROBES = [f"c{CUSTOMERS - number}" for number in (1, 2, 3)]  # customers of whom nothing else is sent


def run() -> None:
    """seconds from the answer to an event until it is in the counters, and until an open page, which asks each second,
    has it; with 2,000 events/s, in batches of 50 on 4 connections, over 200 customers, each with a plan and a budget,
    and with web, worker and beat as in the demo. Baseline: the time of the request itself."""
    secret = stage.fill(subscribed=True)
    cookie = _sign_in()
    connections.close_all()
    server = web("bench-web")
    with running(server, worker("bench-worker"), beat("bench-beat")), _load(server, secret) as rate:
        time.sleep(3)
        with ThreadPoolExecutor(len(PROBES)) as pool:
            found = pool.map(lambda key: _Probe(server, secret, cookie, key).samples(), PROBES)
            samples = [sample for part in found for sample in part]
        reached = rate()
    print(f"load: {reached:,.0f} events/s; {len(samples)} samples\n")
    print(f"{'':<12} {'p50 s':>7} {'p95 s':>7} {'p99 s':>7} {'p50 / request':>14}")
    base = stage.centiles([sample[0] for sample in samples])[50]
    for name, values in zip(("request", "counted", "open page"), zip(*samples, strict=True), strict=True):
        at = stage.centiles(list(values))
        print(f"{name:<13}{at[50]:>7.3f} {at[95]:>7.3f} {at[99]:>7.3f} {at[50] / base:>14.1f}", flush=True)


class _Probe:
    """Sends one event at a time for a customer of its own, and looks for it."""

    def __init__(self, server: Web, secret: str, cookie: str, key: str) -> None:
        self.connection, self.secret, self.cookie, self.key = Connection(server.url), secret, cookie, key
        self.customer = Customer.objects.get(key=key)
        self.stream = ({**event, "customer": key} for event in events())

    def samples(self) -> list[tuple[float, float, float]]:
        self.measure()  # warm
        found = [self.measure() for _ in range(SAMPLES)]
        connections.close_all()
        return found

    def measure(self) -> tuple[float, float, float]:
        """Seconds of the request; from its answer to the counters; to an answer with content to an open page."""
        version, known = self._version(), self._counted()
        asks = time.perf_counter() + random.uniform(0, PAGE_SECONDS)
        begun = time.perf_counter()
        self.connection.send(request([next(self.stream)], self.secret), 1)
        accepted = time.perf_counter()
        counted = shown = 0.0
        while not (counted and shown):
            time.sleep(LOOK_SECONDS)
            if not counted and self._counted() > known:
                counted = time.perf_counter() - accepted
            if not shown and time.perf_counter() >= asks:
                asks += PAGE_SECONDS
                if self._live(version)[0] == 200:
                    shown = time.perf_counter() - accepted
            assert time.perf_counter() - accepted < PATIENCE_SECONDS, "never counted or never shown"
        time.sleep(known % 7 / 10)  # any moment between two ticks
        return accepted - begun, counted, shown

    def _counted(self) -> int:
        buckets = UsageBucket.objects.filter(customer=self.customer, meter__key="calls")
        return sum(buckets.values_list("events", flat=True))

    def _version(self) -> str:
        """What a page that was loaded now would ask with."""
        return version_of(current_freshness(self.customer))

    def _live(self, version: str) -> tuple[int, bytes, bytes]:
        asked = f"GET /c/{self.key}/live?v={version} HTTP/1.1\r\nHost: localhost\r\nCookie: {self.cookie}\r\n\r\n"
        return self.connection.ask(asked.encode())


def _sign_in() -> str:
    user = User.objects.create_user("owner@bench.test", "not asked for", name="Owner")
    for customer in Customer.objects.filter(key__in=PROBES):
        Membership.objects.create(user=user, customer=customer, role=Role.OWNER)
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@contextmanager
def _load(server: Web, secret: str) -> Iterator[Callable[[], float]]:
    """Traffic of the other customers meanwhile; what it gives tells how much there was."""
    stop, begun = threading.Event(), time.perf_counter()
    done: list[int] = []

    def sender() -> None:
        connection, due = Connection(server.url), time.perf_counter()
        stream = (event for event in events() if event["customer"] not in PROBES)
        while not stop.is_set():
            batch: list[Event] = list(itertools.islice(stream, BATCH))
            connection.send(request(batch, secret), BATCH)
            done.append(BATCH)
            due += SENDERS * BATCH / EVENTS_A_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))

    threads = [threading.Thread(target=sender) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(done) / (time.perf_counter() - begun)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
