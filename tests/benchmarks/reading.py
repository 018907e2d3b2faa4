"""What questions cost where much is stored: usage, spend to date and the members of a unique meter.

Events and counters are made by SQL, as ingest and fold would leave them.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from typing import Final

from django.db import connection, connections
from django.test import Client

from accounts.models import Customer, Scope
from billing.credits.queries import spend
from billing.metering import partitions
from billing.metering.counter_models import DimensionSet, TrackedPeriod
from billing.metering.models import Meter
from billing.periods import Interval, quarter_floor
from billing.pricing.spec import MatchSpec, PriceSpec
from billing.rating.queries import lines
from billing.subscriptions.models import BillingPeriod
from tests.benchmarks import stage
from tests.benchmarks.stored import FILL, PAGE, STORED
from tests.factories import bearer, make_api_key, make_meter, make_plan, make_subscription, make_version

TIMES: Final = 60
EVENTS: Final = (STORED // 10, STORED)
PRICES, ROWS, SETS = 100, 10, 1_000
MEMBERS: Final = 1_000_000
MONTH: Final = datetime(2026, 10, 1, tzinfo=UTC)  # of 31 days
DAYS: Final = timedelta(days=31)


def usage() -> None:
    """milliseconds of GET /customers/{key}/usage, by day over 31 days, whole and by model, with 10 million events
    stored (STORED=2000000: fewer): the whole stack of one process. 200 customers, four meters, 30 dimension sets each.
    Baseline: a tenth of the events."""
    stage.fill()
    now = datetime.now(UTC)
    partitions.make_ahead()
    client = Client(SERVER_NAME="localhost", **bearer(make_api_key(Scope.BILLING_READ)[1]))
    since = (now - DAYS).replace(hour=0, minute=0, second=0, microsecond=0)
    _make_counters(since, now)
    stored = 0
    print(f"{'events':>12} {'question':<10} {'p50 ms':>7} {'p95 ms':>7}")
    asked = f"meter=calls&granularity=day&from={since:%Y-%m-%dT00:00:00Z}&to={now:%Y-%m-%dT00:00:00Z}"
    for number in EVENTS:
        _make_events(stored, number)
        stored = number
        for name, query in (("by day", asked), ("by model", f"{asked}&group_by=model")):
            _line(f"{stored:>12,} {name:<10}", _milliseconds(partial(_ask, client, query)))
    connections.close_all()


def _ask(client: Client, query: str) -> None:
    response = client.get(f"/api/v1/customers/c0/usage?{query}")
    assert response.status_code == HTTPStatus.OK, response.content


def _make_events(known: int, number: int) -> None:
    with connections["owner"].cursor() as cursor:
        for first in range(known + 1, number + 1, PAGE):
            cursor.execute(FILL, {"first": first, "last": min(first + PAGE - 1, number)})
        cursor.execute("ANALYZE billing_usageevent")
    connections["owner"].close()


def _make_counters(since: datetime, now: datetime) -> None:
    """The days of each customer, meter and dimension set."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(_SETS)
        cursor.execute(_DAYS, {"since": since, "now": now})
        cursor.execute("UPDATE billing_watermark SET summed_before = %s", [quarter_floor(now)])
        cursor.execute("ANALYZE billing_usageday, billing_dimensionset")
    connections["owner"].close()


_SETS: Final = """
INSERT INTO billing_dimensionset (customer_id, digest, "values")
SELECT id, md5(concat_ws('/', id, m, k, r))::uuid,
       jsonb_build_object('model', 'model-' || m, 'api_key', 'key-' || k, 'region', 'region-' || r)
FROM accounts_customer, generate_series(1, 3) AS m, generate_series(1, 5) AS k, generate_series(1, 2) AS r
"""
_DAYS: Final = """
INSERT INTO billing_usageday (customer_id, meter_id, day, dimension_set_id, quantity, events)
SELECT one.customer_id, meter.id, day::date, one.id, 1000, 10
FROM billing_dimensionset AS one, billing_meter AS meter,
     generate_series(%(since)s::timestamptz, %(now)s::timestamptz, interval '1 day') AS day
"""


def spend_to_date() -> None:
    """milliseconds of the spend to date, whole and by line, of a customer with 100 prices of 10 match rows, 1,000
    dimension sets and 31 filled days: three million buckets. Baseline: one price with one set of the same period."""
    big, small = (Customer.objects.create(key=key, name=key) for key in ("big", "small"))
    meters = [make_meter(f"m{n}", dimensions=["model"], value="n") for n in range(PRICES)]
    rows = tuple(MatchSpec({"model": f"model-{n}"}, unit_amount=Decimal(n + 1)) for n in range(ROWS))
    prices = [
        PriceSpec(key=one.key, meter=one.key, unit="USD", per=Decimal(1000), unit_amount=Decimal(1), match=rows)
        for one in meters
    ]
    many = make_version(make_plan("many"), prices=tuple(prices))
    few = make_version(make_plan("few"), prices=(PriceSpec("one", meter="m0", unit="USD", unit_amount=Decimal(1)),))
    for customer, version, sets, used in ((small, few, 1, meters[:1]), (big, many, SETS // PRICES, meters)):
        make_subscription(customer, version, MONTH)
        _fill_month(customer, used, sets)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_usagebucket WHERE customer_id = %s", [big.pk])
        print(f"{cursor.fetchone()[0]:,} buckets\n\n{'':<22} {'p50 ms':>7} {'p95 ms':>7}")
    month = Interval(MONTH, MONTH + DAYS)
    for customer in (small, big):
        _line(f"{customer.key + ', whole':<22}", _milliseconds(partial(spend, customer, unit="USD", interval=month)))
        period = BillingPeriod.objects.select_related("customer").get(customer=customer)
        _line(f"{customer.key + ', lines':<22}", _milliseconds(partial(lines, period)))
    connections.close_all()


def _fill_month(customer: Customer, meters: list[Meter], sets: int) -> None:
    """A bucket for each quarter hour, meter and set; days and the period's totals as the fold keeps them."""
    with connections["owner"].cursor() as cursor:
        parameters = {"customer": customer.pk, "sets": sets, "meters": [one.pk for one in meters], "month": MONTH}
        for statement in _MONTH:
            cursor.execute(statement, parameters)
    connections["owner"].close()


_MONTH: Final = (
    """
    INSERT INTO billing_dimensionset (customer_id, digest, "values")
    SELECT %(customer)s, md5(concat_ws('/', %(customer)s, n))::uuid, jsonb_build_object('model', 'model-' || n)
    FROM generate_series(0, %(sets)s - 1) AS n""",
    """
    INSERT INTO billing_usagebucket (customer_id, meter_id, starts_at, dimension_set_id, quantity, events)
    SELECT %(customer)s, meter, quarter, one.id, 100, 1
    FROM unnest(%(meters)s::bigint[]) AS meter, billing_dimensionset AS one,
         generate_series(%(month)s, %(month)s::timestamptz + interval '31 days' - interval '1 minute', '15 minutes')
         AS quarter
    WHERE one.customer_id = %(customer)s""",
    """
    INSERT INTO billing_usageday (customer_id, meter_id, day, dimension_set_id, quantity, events)
    SELECT customer_id, meter_id, (starts_at AT TIME ZONE 'UTC')::date, dimension_set_id, sum(quantity), sum(events)
    FROM billing_usagebucket WHERE customer_id = %(customer)s GROUP BY 1, 2, 3, 4""",
    """
    UPDATE billing_watermark SET summed_before = %(month)s::timestamptz + interval '31 days'
    WHERE customer_id = %(customer)s""",
    """
    INSERT INTO billing_periodtotal (period_id, meter_id, dimension_set_id, quantity, events)
    SELECT period.id, meter_id, dimension_set_id, sum(quantity), sum(events)
    FROM billing_usagebucket AS bucket JOIN billing_trackedperiod AS period USING (customer_id)
    WHERE customer_id = %(customer)s GROUP BY 1, 2, 3""",
    "ANALYZE billing_usagebucket, billing_usageday, billing_periodtotal, billing_dimensionset",
)


def unique() -> None:
    """milliseconds of the lines of a customer whose unique meter has one member, and one that has a million."""
    print(f"{'members':>12} {'p50 ms':>7} {'p95 ms':>7}")
    meter = make_meter("users", aggregation="unique", value="user")
    version = make_version(make_plan(), prices=(PriceSpec("users", meter="users", unit="USD", unit_amount=Decimal(1)),))
    for members in (1, MEMBERS):
        customer = Customer.objects.create(key=f"c{members}", name="Customer")
        make_subscription(customer, version, MONTH)
        _fill_members(customer, meter, members)
        period = BillingPeriod.objects.select_related("customer").get(customer=customer)
        assert lines(period)[0].quantity == members
        _line(f"{members:>12,}", _milliseconds(partial(lines, period)))
    connections.close_all()


def _fill_members(customer: Customer, meter: Meter, members: int) -> None:
    period = TrackedPeriod.objects.get(customer=customer)
    whole = DimensionSet.objects.create(customer=customer, digest="0" * 32, values={})
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            """INSERT INTO billing_periodmember (period_id, meter_id, dimension_set_id, member, events)
            SELECT %s, %s, %s, md5(n::text)::uuid, 1 FROM generate_series(1, %s::bigint) AS n""",
            [period.pk, meter.pk, whole.pk, members],
        )
        cursor.execute(
            """INSERT INTO billing_periodtotal
                (period_id, meter_id, dimension_set_id, quantity, events, members) VALUES (%s, %s, %s, 0, %s, %s)""",
            [period.pk, meter.pk, whole.pk, members, members],
        )
        cursor.execute("ANALYZE billing_periodmember, billing_periodtotal")
    connections["owner"].close()


def _milliseconds(ask: Callable[[], object]) -> list[float]:
    ask()  # warm
    found = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        ask()
        found.append(1000 * (time.perf_counter() - begun))
    return found


def _line(name: str, milliseconds: list[float]) -> None:
    at = stage.centiles(milliseconds)
    print(f"{name} {at[50]:>7.1f} {at[95]:>7.1f}", flush=True)
