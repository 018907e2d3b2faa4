"""Whether it matters how much is stored already."""

import os
from collections.abc import Iterator

from django.db import connections

from tests.benchmarks import stage
from tests.benchmarks.ingest import ROUNDS, Load, take
from tests.processes import Web, running, web

STORED = int(os.environ.get("STORED", "10000000"))
PAGE = 500_000
LOAD = Load(60, 1_000, 8)

# As ingest stores them: identities are random, events lie in this month's partition, spread over 30 days.
FILL = """
WITH numbered AS (
    SELECT n, md5(n::text)::uuid AS digest, now() - n %% 2592000 * interval '1 second' AS occurred_at
    FROM generate_series(%(first)s, %(last)s) AS n
), known AS (
    INSERT INTO billing_eventidentity (digest, payload, recorded_at, permanent)
    SELECT digest, digest, now(), false FROM numbered
)
INSERT INTO billing_usageevent
    (identity, source, event_id, type, occurred_at, recorded_at, properties, customer_id, revision)
SELECT digest, 'gateway-1', 'stored-' || n, 'llm.completion', occurred_at, now(),
       jsonb_build_object('model', 'large-2', 'api_key', 'key-' || n %% 5, 'region', 'eu', 'input_tokens', n %% 20000,
                          'output_tokens', n %% 2000, 'cached_tokens', n %% 5000, 'trace', repeat('x', 170)),
       customers.ids[1 + n %% cardinality(customers.ids)], 0
FROM numbered, (SELECT array_agg(id) AS ids FROM accounts_customer) AS customers
"""


def run() -> None:
    """Batches of 1,000 into an empty store, and into one that holds 10 million events (STORED=2000000: fewer)."""
    secret = stage.fill()
    connections.close_all()
    server = web("bench-web")
    with running(server):
        take(server, Load(30, 100, 8), secret)  # warm
        empty = _rates(server, secret)
        for held in _filled():
            print(f"\r{held:,} events are stored", end="", flush=True)
        print()
        full = _rates(server, secret)
    print(f"empty {empty[0]:,.0f} events/s, with {STORED:,} stored {full[0]:,.0f}: ratio {full[0] / empty[0]:.2f}")
    print(f"processor time an event, web and database: {empty[1]:.0f} us, {full[1]:.0f} us")


def _rates(server: Web, secret: str) -> tuple[float, float]:
    """Events a second, and microseconds of processor time an event."""
    rate, spent = 0.0, 0.0
    for _ in range(ROUNDS):
        once, _, cost = take(server, LOAD, secret)
        rate += once / ROUNDS
        spent += 1e6 * (cost.web + cost.database) / (ROUNDS * LOAD.batches * LOAD.size)
    return rate, spent


def _filled() -> Iterator[int]:
    with connections["owner"].cursor() as cursor:
        for first in range(1, STORED + 1, PAGE):
            last = min(first + PAGE - 1, STORED)
            cursor.execute(FILL, {"first": first, "last": last})
            yield last
        cursor.execute("VACUUM ANALYZE billing_eventidentity, billing_usageevent")
    connections.close_all()
