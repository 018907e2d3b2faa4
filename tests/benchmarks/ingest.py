"""How fast events are taken over HTTP, beside a raw COPY of the same events in the same run."""

import itertools
import json
import time
from dataclasses import dataclass

import psycopg
from django.db import connections

from tests.benchmarks import stage
from tests.benchmarks.load import Event, events, requests, send
from tests.processes import Web, addresses, running, web

ROUNDS = 3
BATCH = 1_000  # rows a commit of the baseline
RAW_EVENTS = 30_000
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


LOADS = [Load(60, 1_000, 8), Load(300, 100, 8), Load(4_000, 1, 16)]


def run() -> None:
    """events/s over HTTP: granian, 2 workers with 4 threads, answers per item, durable commits, authentication; CPU
    in microseconds an event. Baseline: COPY from a prepared buffer, one connection, unique (source, id)."""
    secret = stage.fill()
    connections.close_all()
    server = web("bench-web", **stage.WEB)
    with running(server):
        _take(server, Load(30, 100, 8), secret)  # warm: connections, plans, caches
        print(f"{'batch':>6} {'clients':>7} {'raw COPY':>9} {'ingest':>7} {'ratio':>6} ", end="")
        print(f"{'p50 ms':>7} {'p99 ms':>7} {'client':>7} {'web':>7} {'database':>8}", flush=True)
        for load in LOADS:
            _compare(server, load, secret)


def _compare(server: Web, load: Load, secret: str) -> None:
    """In turns, so that what else the machine does falls on both."""
    raw, taken, latencies = 0.0, 0.0, list[float]()
    cost = stage.Used(0, 0, 0)
    for _ in range(ROUNDS):
        raw += copy_rate() / ROUNDS
        rate, waited, spent = _take(server, load, secret)
        taken += rate / ROUNDS
        latencies += waited
        cost = stage.Used(cost.ours + spent.ours, cost.web + spent.web, cost.database + spent.database)
    each = 1e6 / (ROUNDS * load.batches * load.size)
    waited_ms = {percent: 1000 * seconds for percent, seconds in stage.centiles(latencies).items()}
    print(f"{load.size:>6} {load.connections:>7} {raw:>9,.0f} {taken:>7,.0f} {taken / raw:>6.2f} ", end="")
    print(f"{waited_ms[50]:>7.1f} {waited_ms[99]:>7.1f} ", end="")
    print(f"{cost.ours * each:>7.0f} {cost.web * each:>7.0f} {cost.database * each:>8.0f}", flush=True)


def _take(server: Web, load: Load, secret: str) -> tuple[float, list[float], stage.Used]:
    prepared = requests(events(), load.batches, load.size, secret)
    before = stage.used(server)
    sent = send(server.url, prepared, load.size, load.connections)
    return load.batches * load.size / sent.seconds, sent.latencies, stage.used(server) - before


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
