"""How fast events are taken over HTTP, beside a raw COPY of the same events in the same run."""

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from django.db import connections

from tests.benchmarks import stage
from tests.benchmarks.load import Event, events, requests, send
from tests.processes import Web, addresses, running, web

ROUNDS = 3
BATCH = 1_000  # rows a commit of the baseline
RAW_EVENTS = 30_000
SPREAD = 1_000  # customers, where they send alike
WAITING = """
SELECT wait_event FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query NOT LIKE 'COPY bench_raw%'
"""
RAW = """
DROP TABLE IF EXISTS bench_raw;
CREATE TABLE bench_raw (source text, id text, type text, customer text, occurred_at timestamptz, properties jsonb,
                        UNIQUE (source, id))
"""


@dataclass(frozen=True, slots=True)
class Load:
    """So many batches of so many events over so many connections."""

    batches: int
    size: int
    connections: int


ONE_CUSTOMER, MANY_CUSTOMERS = 10, 0  # tenths of the traffic that the first customer has
LOADS = [Load(60, 1_000, 8), Load(300, 100, 8), Load(4_000, 1, 16)]


def run() -> None:
    """events/s over HTTP: granian, 2 workers with 24 threads, answers per item, durable commits, authentication; CPU
    in microseconds an event. Baseline: COPY from a prepared buffer, one connection, unique (source, id)."""
    secret = stage.fill(SPREAD)
    connections.close_all()
    server = web("bench-web")
    with running(server):
        take(server, Load(30, 100, 8), secret)  # warm: connections, plans, caches
        print(f"{'batch':>6} {'clients':>7} {'raw COPY':>9} {'ingest':>7} {'ratio':>6} ", end="")
        print(f"{'p50 ms':>7} {'p99 ms':>7} {'client':>7} {'web':>7} {'database':>8}", flush=True)
        with lock_waits() as waits:
            for load in LOADS:
                _compare(server, load, secret)
            _compare_customers(server, secret)
    print(f"waits for locks in {waits.samples:,} samples of pg_stat_activity: {dict(waits.found) or 'none'}")


def _compare(server: Web, load: Load, secret: str) -> None:
    """In turns, so that what else the machine does falls on both."""
    raw, taken, latencies = 0.0, 0.0, list[float]()
    cost = stage.Used(0, 0, 0)
    for _ in range(ROUNDS):
        raw += copy_rate() / ROUNDS
        rate, waited, spent = take(server, load, secret)
        taken += rate / ROUNDS
        latencies += waited
        cost = stage.Used(cost.ours + spent.ours, cost.web + spent.web, cost.database + spent.database)
    each = 1e6 / (ROUNDS * load.batches * load.size)
    waited_ms = {percent: 1000 * seconds for percent, seconds in stage.centiles(latencies).items()}
    print(f"{load.size:>6} {load.connections:>7} {raw:>9,.0f} {taken:>7,.0f} {taken / raw:>6.2f} ", end="")
    print(f"{waited_ms[50]:>7.1f} {waited_ms[99]:>7.1f} ", end="")
    print(f"{cost.ours * each:>7.0f} {cost.web * each:>7.0f} {cost.database * each:>8.0f}", flush=True)


def _compare_customers(server: Web, secret: str) -> None:
    """One customer who sends everything, and a thousand who send alike, in turns."""
    one, many = 0.0, 0.0
    for _ in range(ROUNDS):
        one += take(server, LOADS[0], secret, events(hot=ONE_CUSTOMER))[0] / ROUNDS
        many += take(server, LOADS[0], secret, events(SPREAD, hot=MANY_CUSTOMERS))[0] / ROUNDS
    print(f"one customer {one:,.0f} events/s, {SPREAD:,} customers {many:,.0f}: ratio {one / many:.2f}", flush=True)


def take(
    server: Web, load: Load, secret: str, stream: Iterator[Event] | None = None
) -> tuple[float, list[float], stage.Used]:
    prepared = requests(stream or events(), load.batches, load.size, secret)
    before = stage.used(server)
    sent = send(server.url, prepared, load.size, load.connections)
    return load.batches * load.size / sent.seconds, sent.latencies, stage.used(server) - before


@dataclass
class Waits:
    """How often was looked, and how often a session waited for a lock that another one held, by what was locked."""

    samples: int = 0
    found: Counter[str] = field(default_factory=Counter)


@contextmanager
def lock_waits() -> Iterator[Waits]:
    """Looks every 20 ms at what the sessions of this database wait for."""
    waits, ended = Waits(), threading.Event()

    def watch() -> None:
        with psycopg.connect(addresses()["DATABASE_OWNER_URL"], autocommit=True) as watcher:
            while not ended.wait(0.02):
                waits.samples += 1
                waits.found.update(kind for (kind,) in watcher.execute(WAITING))

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        yield waits
        ended.set()
        watching.result()


def copy_rate() -> float:
    """Events per second of the baseline."""
    stream = events()
    buffers = ["".join(map(_raw_row, itertools.islice(stream, BATCH))).encode() for _ in range(RAW_EVENTS // BATCH)]
    with psycopg.connect(addresses()["DATABASE_OWNER_URL"]) as raw:
        raw.execute(RAW)
        raw.commit()
        begun = time.perf_counter()
        for buffer in buffers:
            with raw.cursor().copy("COPY bench_raw FROM STDIN") as rows:
                rows.write(buffer)
            raw.commit()
        return RAW_EVENTS / (time.perf_counter() - begun)


def _raw_row(event: Event) -> str:
    columns = [event[name] for name in ("source", "id", "type", "customer", "timestamp")]
    return "\t".join([*map(str, columns), json.dumps(event["properties"])]) + "\n"
