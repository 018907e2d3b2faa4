"""How fast deltas become counters, beside the rate at which events come in at best."""

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from django.db import connections

from billing.cycle.services import tick
from billing.metering import services
from billing.metering.models import UsageDelta
from tests.benchmarks import stage
from tests.benchmarks.ingest import copy_rate
from tests.benchmarks.load import CUSTOMERS, Event, events

ROUNDS = 2
BATCHES = 10
BATCH = 1_000


def run() -> None:
    """events and deltas a second that one worker counts (fold, settle, publish; every customer has a plan), beside
    one process that takes them through the service, and the raw COPY."""
    stage.fill(subscribed=True)
    tick(at=datetime.now(UTC))
    print(f"{'round':>6} {'raw COPY':>9} {'taken':>7} {'counted':>8} {'deltas/s':>9} {'counted/taken':>14}", end="")
    print(f" {'ms a dirty customer':>20}", flush=True)
    for number in range(1, ROUNDS + 1):
        raw, stream = copy_rate(), events()
        batches = [list(itertools.islice(stream, BATCH)) for _ in range(BATCHES)]
        taken = BATCHES * BATCH / _take(batches)
        deltas = UsageDelta.objects.count()
        seconds, _ = _count()
        counted = BATCHES * BATCH / seconds
        _take([_one_each(stream)])
        idle, customers = _count()
        print(f"{number:>6} {raw:>9,.0f} {taken:>7,.0f} {counted:>8,.0f} {deltas / seconds:>9,.0f} ", end="")
        print(f"{counted / taken:>13.2f} {1000 * idle / customers:>20.1f}", flush=True)
    connections.close_all()


def _take(batches: list[list[Event]]) -> float:
    """Seconds that it takes."""
    bodies = [json.dumps(batch).encode() for batch in batches]
    begun = time.perf_counter()
    for body in bodies:
        services.ingest(body=body, content_type="application/json", api_key=None, at=datetime.now(UTC))
    return time.perf_counter() - begun


def _count() -> tuple[float, int]:
    """Seconds that it takes, and how many customers had something to count."""
    begun = time.perf_counter()
    advanced = tick(at=datetime.now(UTC))
    seconds = time.perf_counter() - begun
    assert not UsageDelta.objects.exists()
    return seconds, advanced


def _one_each(stream: Iterator[Event]) -> list[Event]:
    return [{**next(stream), "customer": f"c{number}"} for number in range(CUSTOMERS)]
