"""How long it takes to ask whether a call may run, while events come in and are counted."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from threading import Event as Signal

from django.db import connections

from accounts.models import Customer
from billing.budgets.services import create_budget
from billing.credits.models import GrantKind
from billing.credits.services import grant
from tests.benchmarks import stage
from tests.benchmarks.load import Connection, events, requests
from tests.conftest import as_owner
from tests.factories import make_api_key
from tests.processes import Web, beat, running, web, worker

CUSTOMERS = 50
SECONDS = 15
CONNECTIONS = 16
BATCH = 100  # events a request
RATES = (200, 500)
BESIDE = 2_000  # events/s
USD = "USD"
ACCOUNTS = "CREATE TABLE bench_account (customer text PRIMARY KEY, reserved numeric NOT NULL)"


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of a load."""

    rate: float
    latencies: Sequence[float]


def run() -> None:
    """Milliseconds for POST /authorizations (usage of three meters, priced; credits and a budget that stops) at so
    many a second over 50 customers, beside events and a worker that counts them; and for a bare conditional UPDATE
    over the same HTTP stack, in turns. Then one customer alone, as fast as 16 connections can."""
    sending, asking = _house()
    connections.close_all()
    server = web("bench-web")
    server.arguments[-1] = "tests.benchmarks.bare:application"
    with running(server), running(worker("bench-worker")), running(beat("bench-beat")):
        _steady(server, 100, 3, asking, authorization)  # warm: connections, plans, caches
        print(f"{'events/s':>8} {'asked/s':>8} {'what':>14} {'p50 ms':>7} {'p99 ms':>7} {'ratio':>6}", flush=True)
        for beside in (0, BESIDE):
            for rate in RATES:
                _compare(server, beside, rate, sending, asking)
        found = _steady(server, None, SECONDS, asking, lambda number: authorization(0))
        _show(0, found, "one customer", None)


def _compare(server: Web, beside: int, rate: int, sending: str, asking: str) -> None:
    with _events(server, beside, sending) as sent:
        bare = _steady(server, rate, SECONDS, asking, bare_update)
        found = _steady(server, rate, SECONDS, asking, authorization)
    _show(sent(), bare, "bare UPDATE", None)
    _show(sent(), found, "authorization", stage.centiles(list(bare.latencies))[50])


def _show(beside: float, found: Asked, what: str, bare: float | None) -> None:
    centiles = stage.centiles(list(found.latencies))
    print(
        f"{beside:>8,.0f} {found.rate:>8,.0f} {what:>14} {1000 * centiles[50]:>7.1f} {1000 * centiles[99]:>7.1f} ",
        end="",
    )
    print(f"{centiles[50] / bare:>6.2f}" if bare else "", flush=True)


def _house() -> tuple[str, str]:
    """Customers with a plan, prepaid money and a budget that stops; a key that sends and one that asks."""
    sending = stage.fill(CUSTOMERS, subscribed=True)
    at = datetime.now(UTC)
    for customer in Customer.objects.all():
        grant(customer=customer, unit=USD, amount=Decimal(10**9), kind=GrantKind.PAID, at=at)
        create_budget(
            customer=customer,
            name="Production",
            unit=USD,
            amount=Decimal(10**9),
            thresholds=[],
            recipients=["owners"],
            stop_at_percent=Decimal(100),
            at=at,
        )
    as_owner(ACCOUNTS)
    as_owner("INSERT INTO bench_account SELECT key, 0 FROM accounts_customer")
    as_owner("GRANT SELECT, UPDATE ON bench_account TO PUBLIC")
    return sending, make_api_key()[1]


def authorization(number: int) -> tuple[str, object]:
    usage = [
        {"meter": meter, "quantity": 1000, "properties": {"model": "large-2", "region": "eu"}}
        for meter in ("input_tokens", "output_tokens", "cached_tokens")
    ]
    return "/api/v1/authorizations", {"customer": f"c{number % CUSTOMERS}", "ttl_seconds": 5, "usage": usage}


def bare_update(number: int) -> tuple[str, object]:
    return "/bare", {"customer": f"c{number % CUSTOMERS}", "amount": "0.006"}


def _steady(
    server: Web, rate: int | None, seconds: float, secret: str, ask: Callable[[int], tuple[str, object]]
) -> Asked:
    """Ask so often a second, each question due at its own instant, and waiting from then on; or as fast as possible.
    It ends after these seconds, also where the server is behind: the rate then tells."""
    numbers = count()
    latencies: list[float] = []
    begun = time.perf_counter()

    def sender(connection: Connection) -> None:
        while True:
            number = next(numbers)
            due = begun + number / rate if rate else time.perf_counter()
            if max(due, time.perf_counter()) > begun + seconds:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            status, _, body = connection.ask(_post(*ask(number), secret))
            if status != 201:
                raise AssertionError(f"{status}: {body[:500]!r}")
            latencies.append(time.perf_counter() - due)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(sender, [Connection(server.url) for _ in range(CONNECTIONS)]))
    return Asked(len(latencies) / (time.perf_counter() - begun), latencies)


def _post(path: str, body: object, secret: str) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {secret}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@contextmanager
def _events(server: Web, rate: int, secret: str) -> Iterator[Callable[[], float]]:
    """Meanwhile so many events a second arrive; answers how many did."""
    done, sent, begun = Signal(), [0], time.perf_counter()

    def sender() -> None:
        connection, stream = Connection(server.url), events(CUSTOMERS)
        for number in count():
            [request] = requests(stream, 1, BATCH, secret)
            if done.wait(max(0.0, begun + number * BATCH / rate - time.perf_counter())):
                return
            connection.send(request, BATCH)
            sent[0] += BATCH

    with ThreadPoolExecutor(1) as pool:
        if rate:
            sending = pool.submit(sender)
        try:
            yield lambda: sent[0] / (ended[0] - begun)
        finally:
            ended = [time.perf_counter()]
            done.set()
    if rate:
        sending.result()
