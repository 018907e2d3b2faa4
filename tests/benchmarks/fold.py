"""How fast deltas become counters, beside the rate at which events come in at best."""

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from django.db import connections

from billing.cycle.services import tick
from billing.metering import ingesting
from billing.metering.models import UsageDelta
from tests.benchmarks import stage
from tests.benchmarks.ingest import copy_rate
from tests.benchmarks.load import CUSTOMERS, Event, events

ROUNDS = 2
BATCHES = 10
BATCH = 1_000


def run() -> None:
    """events and deltas a second that one worker counts (fold, settle, watch, publish; every customer has a plan and a
    budget), beside one process that takes them through the service, and the raw COPY; then customers with one event
    each. CPU: of this process and the database, in microseconds an event, in milliseconds a customer."""
    stage.fill(subscribed=True)
    tick(at=datetime.now(UTC))
    print(f"{'round':>6} {'raw COPY':>9} {'taken':>7} {'counted':>8} {'deltas/s':>9} {'counted/taken':>14}", end="")
    print(f" {'CPU us/event':>13} {'ms a dirty customer':>20} {'CPU ms':>7}", flush=True)
    for number in range(1, ROUNDS + 1):
        raw, stream = copy_rate(), events()
        batches = [list(itertools.islice(stream, BATCH)) for _ in range(BATCHES)]
        taken = BATCHES * BATCH / _take(batches)
        deltas = UsageDelta.objects.count()
        seconds, _, spent = _count()
        counted = BATCHES * BATCH / seconds
        _take([_one_each(stream)])
        idle, customers, spent_each = _count()
        print(f"{number:>6} {raw:>9,.0f} {taken:>7,.0f} {counted:>8,.0f} {deltas / seconds:>9,.0f} ", end="")
        print(f"{counted / taken:>13.2f} {1e6 * spent / (BATCHES * BATCH):>13.0f} ", end="")
        print(f"{1000 * idle / customers:>20.1f} {1000 * spent_each / customers:>7.2f}", flush=True)
    connections.close_all()


def _take(batches: list[list[Event]]) -> float:
    """Seconds that it takes."""
    bodies = [json.dumps(batch).encode() for batch in batches]
    begun = time.perf_counter()
    for body in bodies:
        ingesting.ingest(body=body, content_type="application/json", api_key=None, at=datetime.now(UTC))
    return time.perf_counter() - begun


def _count() -> tuple[float, int, float]:
    """Seconds that it takes, how many customers had something to count, and seconds of processor time."""
    begun, spent = time.perf_counter(), stage.spent()
    advanced = tick(at=datetime.now(UTC))
    seconds, spent = time.perf_counter() - begun, stage.spent() - spent
    assert not UsageDelta.objects.exists()
    return seconds, advanced, spent


def _one_each(stream: Iterator[Event]) -> list[Event]:
    return [{**next(stream), "customer": f"c{number}"} for number in range(CUSTOMERS)]
