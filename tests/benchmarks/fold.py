"""How fast deltas become counters, beside the rate at which events come in at best."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from django.db import connections, transaction

from billing.cycle.services import CUSTOMERS_AT_ONCE, tick
from billing.metering import ingesting, services
from billing.metering.models import UsageDelta
from tests.benchmarks import stage
from tests.benchmarks.ingest import copy_rate
from tests.benchmarks.load import CUSTOMERS, Event, events

ROUNDS = 2
EVENTS = (10_000, 100_000)  # what half a second brings; what came while the worker was down
BATCH = 1_000


def run() -> None:
    """Events a second that one process counts, beside one that takes them through the service and the raw COPY: what
    half a second brings, and what came while the worker was down; then customers with one event each. First the fold
    alone (deltas into counters), then the whole tick, which also settles, watches and publishes; every customer has a
    plan and a budget. CPU: of this process and the database, in microseconds an event, in milliseconds a customer."""
    stage.fill(subscribed=True)
    tick(at=datetime.now(UTC))
    print(f"{'what':>6} {'events':>8} {'raw COPY':>9} {'taken':>7} {'counted':>8} {'deltas/s':>9}", end="")
    print(f" {'counted/taken':>14} {'CPU us/event':>13} {'ms a dirty customer':>20} {'CPU ms':>7}", flush=True)
    for _, number in itertools.product(range(ROUNDS), EVENTS):
        for name, count in {"fold": _fold, "tick": _tick}.items():
            _compare(name, count, number, events())
    connections.close_all()


def _compare(name: str, count: Callable[[], int], number: int, stream: Iterator[Event]) -> None:
    raw = copy_rate()
    taken = number / _take([list(batch) for batch in itertools.batched(itertools.islice(stream, number), BATCH)])
    deltas = UsageDelta.objects.count()
    seconds, _, spent = _measured(count)
    counted = number / seconds
    _take([_one_each(stream)])
    idle, customers, spent_each = _measured(count)
    print(f"{name:>6} {number:>8,} {raw:>9,.0f} {taken:>7,.0f} {counted:>8,.0f} {deltas / seconds:>9,.0f} ", end="")
    print(f"{counted / taken:>14.2f} {1e6 * spent / number:>13.0f} ", end="")
    print(f"{1000 * idle / customers:>20.1f} {1000 * spent_each / customers:>7.2f}", flush=True)


def _take(batches: list[list[Event]]) -> float:
    """Seconds that it takes."""
    bodies = [json.dumps(batch).encode() for batch in batches]
    begun = time.perf_counter()
    for body in bodies:
        ingesting.ingest(body=body, content_type="application/json", api_key=None, at=datetime.now(UTC))
    return time.perf_counter() - begun


def _measured(count: Callable[[], int]) -> tuple[float, int, float]:
    """Seconds that it takes, how many customers had something to count, and seconds of processor time."""
    begun, spent = time.perf_counter(), stage.spent()
    customers = count()
    seconds, spent = time.perf_counter() - begun, stage.spent() - spent
    assert not UsageDelta.objects.exists()
    return seconds, customers, spent


def _fold() -> int:
    """Count for everybody, as the tick does, and no more; how many customers."""
    folded = 0
    while True:
        with transaction.atomic():
            claimed = services.claim_next(skip=(), most=CUSTOMERS_AT_ONCE)
            services.fold_all(customer_ids=claimed, at=datetime.now(UTC))
        if not claimed:
            return folded
        folded += len(claimed)


def _tick() -> int:
    """Until nothing is left: what one transaction takes is bounded."""
    advanced = 0
    while UsageDelta.objects.exists():
        advanced += tick(at=datetime.now(UTC))
    return advanced


def _one_each(stream: Iterator[Event]) -> list[Event]:
    return [{**next(stream), "customer": f"c{number}"} for number in range(CUSTOMERS)]
