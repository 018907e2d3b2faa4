"""How fast events are taken, beside a raw COPY of the same rows in the same run.

    python -m tests.benchmarks.ingest [--processes 2] [--seconds 3]

Each process takes batches through the service (decode, judge, count, append, commit) or copies rows that were encoded
beforehand into one table with the same two indexes, commits each batch, and never sends an event twice. The machine
is shared, so read the ratio rather than the rates.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection, connections, transaction

from accounts.models import Customer
from billing.metering import services
from config import embedded
from tests.factories import make_meter

ROUNDS = 2
CUSTOMERS = 200
MODELS = ["large-2", "mini", "nano"]
RAW = """
CREATE TABLE bench_raw (identity uuid PRIMARY KEY, source text, event_id text, type text, customer_id bigint,
                        occurred_at timestamptz, recorded_at timestamptz, properties jsonb);
CREATE INDEX ON bench_raw (customer_id, occurred_at, identity);
"""
COPY_RAW = "COPY bench_raw FROM STDIN"


def main() -> None:
    options = _options()
    with embedded.running(settings.VAR, [name for name in embedded.wanted(os.environ) if name == "postgres"]):
        database = _make_database()
        print(f"{options.processes} processes, {ROUNDS} rounds of {options.seconds} s, events/s\n")
        print(f"{'batch':>6} {'raw COPY':>10} {'ingest':>10} {'ratio':>6}")
        for size in options.sizes:
            # In turns, so that what else the machine does falls on both.
            rounds = [[_rate(act, size, database, options) for act in (_copy, _take)] for _ in range(ROUNDS)]
            raw, taken = (sum(rates) / ROUNDS for rates in zip(*rounds, strict=True))
            print(f"{size:>6} {raw:>10,.0f} {taken:>10,.0f} {taken / raw:>6.2f}", flush=True)
        connections["owner"].creation.destroy_test_db("headroom", verbosity=0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 20, 100, 1000])
    return parser.parse_args()


def _make_database() -> str:
    name = connections["owner"].creation.create_test_db(verbosity=0, autoclobber=True)
    with connections["owner"].cursor() as cursor:
        cursor.execute(RAW)
    _use(name)
    Customer.objects.bulk_create(Customer(key=f"c{n}", name=f"Customer {n}") for n in range(CUSTOMERS))
    make_meter("input_tokens", dimensions=["model", "api_key"])
    make_meter("output_tokens", dimensions=["model", "api_key"])
    connections.close_all()
    return str(name)


def _use(name: str) -> None:
    connections["default"].settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = name


def _rate(run: Callable[[int, str, float], int], size: int, database: str, options: argparse.Namespace) -> float:
    """Events per second of all processes together."""
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        pool.starmap(run, [(size, database, 0.3)] * options.processes)  # warm: connections, plans, caches
        done = pool.starmap(run, [(size, database, options.seconds)] * options.processes)
    return sum(done) / options.seconds


def _batches(size: int) -> Iterator[list[dict[str, object]]]:
    """Batches of about 200 bytes an event, of customers of whom a few send most."""
    sender = uuid.uuid4().hex
    numbers = itertools.count()
    while True:
        stamp = datetime.now(UTC).isoformat()
        yield [
            {
                "id": f"{sender}-{number}",
                "source": "gateway-1",
                "type": "llm.completion",
                "customer": f"c{number * number % CUSTOMERS}",
                "timestamp": stamp,
                "properties": {
                    "model": MODELS[number % 3],
                    "api_key": f"key-{number % 5}",
                    "input_tokens": number % 5000,
                    "output_tokens": number % 700,
                },
            }
            for number in itertools.islice(numbers, size)
        ]


def _timed(seconds: float, size: int, prepared: Iterator[bytes], act: Callable[[bytes], object]) -> int:
    """Events done in so many seconds of `act`; preparing is not counted."""
    spent, events = 0.0, 0
    while spent < seconds:
        body = next(prepared)
        start = time.perf_counter()
        act(body)
        spent += time.perf_counter() - start
        events += size
    return events


def _take(size: int, database: str, seconds: float) -> int:
    _use(database)
    bodies = (json.dumps(batch).encode() for batch in _batches(size))

    def take(body: bytes) -> None:
        answer = services.ingest(body=body, content_type="application/json", api_key=None, at=datetime.now(UTC))
        assert answer.accepted == size, answer

    return _timed(seconds, size, bodies, take)


def _copy(size: int, database: str, seconds: float) -> int:
    _use(database)
    bodies = ("".join(map(_raw_row, batch)).encode() for batch in _batches(size))

    def copy(body: bytes) -> None:
        with transaction.atomic(), connection.cursor() as cursor, cursor.copy(COPY_RAW) as rows:
            rows.write(body)

    return _timed(seconds, size, bodies, copy)


def _raw_row(event: dict[str, object]) -> str:
    names = f"{uuid.uuid4()}\t{event['source']}\t{event['id']}\t{event['type']}\t{str(event['customer'])[1:]}"
    return f"{names}\t{event['timestamp']}\t{event['timestamp']}\t{json.dumps(event['properties'])}\n"


if __name__ == "__main__":
    main()
