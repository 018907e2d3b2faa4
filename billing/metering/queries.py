"""Questions about what was counted. Every range is half-open and lies on quarter hours.

Ask `counted_through` before the numbers that it is shown with: then they hold at least what it promises.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from django.contrib.postgres.expressions import ArraySubquery
from django.db import connection
from django.db.models import Max, Min, OuterRef, QuerySet, Subquery, Sum, TextField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce, JSONObject

from accounts.models import Customer
from billing.metering.counter_models import DimensionSet, DimensionUse, UsageBucket
from billing.metering.folding import DIRTY, MERGED
from billing.metering.models import (
    EventCorrection,
    Meter,
    RefusedItems,
    UnmatchedEvent,
    UsageDelta,
    UsageEvent,
    Watermark,
)
from billing.metering.ranges import RUNS, columns
from billing.periods import quarter_floor
from billing.reads import recall, remember


class MeterTotal(NamedTuple):
    """Usage of one meter with one set of dimension values, in the meter's unit. Absent dimensions are left out.

    Quantities of several sets add up unless they have a `rank`: then the greatest decides. That of a unique meter
    is 0: ask `uniques`, because sets may share members.
    """

    meter_id: int
    set_id: int
    dimensions: Mapping[str, str]
    quantity: Decimal
    events: int
    rank: str | None


def totals(
    customer: Customer, *, starts_at: datetime, ends_at: datetime, meter_ids: Collection[int]
) -> list[MeterTotal]:
    """Usage in the range, per meter and dimension set: kept totals where exactly this range is tracked, else sums of
    days and quarter hours."""
    ahead: list[MeterTotal] | None = recall(("totals", customer.pk, starts_at, ends_at))
    if ahead is not None:
        return [total for total in ahead if total.meter_id in meter_ids]
    parameters: dict[str, Any] = {
        "customer": customer.pk,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "meters": list(meter_ids),
    }
    with connection.cursor() as cursor:
        cursor.execute(_PERIOD, parameters)
        rows = cursor.fetchall()
    if rows:
        # A tracked period without usage answers one row of nulls.
        return [as_total(row) for row in rows if row[0] is not None]
    return series_totals(customer, edges=(starts_at, ends_at), meter_ids=meter_ids)[0]


def read_totals_ahead(ranges: Sequence[tuple[int, datetime, datetime]]) -> None:
    """Inside `reads.shared`: read the kept totals of these ranges, (customer id, start, end), in one query, so that
    `totals` need not ask for each. Those that are not tracked are left to it."""
    ranges = [one for one in ranges if recall(("totals", *one)) is None]
    if not ranges:
        return
    customers, starts, ends = zip(*ranges, strict=True)
    found: dict[int, list[MeterTotal]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_PERIODS, {"customers": list(customers), "starts": list(starts), "ends": list(ends)})
        for place, *row in cursor.fetchall():
            kept = found.setdefault(place, [])
            if row[0] is not None:
                kept.append(as_total(row))
    remember((("totals", *ranges[place - 1]), kept) for place, kept in found.items())


def as_total(row: Sequence[Any]) -> MeterTotal:
    """Of a row that has the columns of `MeterTotal`."""
    meter_id, set_id, dimensions, quantity, events, rank = row
    return MeterTotal(meter_id, set_id, _values(dimensions), quantity, events, rank)


@lru_cache(maxsize=20_000)
def _values(dimensions: str) -> Mapping[str, str]:
    """Many customers and meters have the same ones."""
    found: dict[str, str] = msgspec.json.decode(dimensions)
    return found


def series_totals(
    customer: Customer, *, edges: Sequence[datetime], meter_ids: Collection[int]
) -> list[list[MeterTotal]]:
    """Usage in each [edges[i], edges[i + 1]), which rise: one list per range. Whole UTC days come from the roll-up."""
    ahead: list[list[MeterTotal]] | None = recall(("series", customer.pk, *edges))
    if ahead is not None:
        return [[total for total in counted if total.meter_id in meter_ids] for counted in ahead]
    series: list[list[MeterTotal]] = [[] for _ in edges[1:]]
    with connection.cursor() as cursor:
        cursor.execute(_SERIES, columns(customer, edges) | {"meters": list(meter_ids)})
        for index, *row in cursor.fetchall():
            series[index - 1].append(as_total(row))
    return series


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current a customer's numbers are. `version` grows whenever something that a page shows has moved."""

    version: int
    counted_through: datetime
    asked_at: datetime


def freshness(customer: Customer) -> Freshness:
    """All that a page asks to learn whether it is current, in one query."""
    return _freshness([customer.pk])[customer.pk]


def _freshness(customer_ids: Collection[int]) -> dict[int, Freshness]:
    with connection.cursor() as cursor:
        cursor.execute(_FRESHNESS, [list(customer_ids)])
        return {customer_id: Freshness(*row) for customer_id, *row in cursor.fetchall()}


def counted_through(customer: Customer) -> datetime:
    """Everything acknowledged before this instant is in the counters. The present when nothing waits to be folded."""
    return freshness(customer).counted_through


def counted_through_all(customer_ids: Collection[int]) -> dict[int, datetime]:
    """`counted_through` of some customers. One query."""
    return {customer_id: found.counted_through for customer_id, found in _freshness(customer_ids).items()}


def counted_snapshots(customer_ids: Collection[int]) -> dict[int, str | None]:
    """By customer: what the last fold that left nothing behind saw of the database. See `arrivals`."""
    return dict(Watermark.objects.filter(pk__in=customer_ids).values_list("pk", "snapshot"))


def has_usage(customer: Customer) -> bool:
    """Whether anything of the customer was ever counted."""
    return UsageBucket.objects.filter(customer=customer).exists()


def is_counted(meter: Meter) -> bool:
    """Whether events were counted with it, which freezes what gives them their meaning."""
    return (
        UsageDelta.objects.filter(meters__contains=[meter.pk]).exists()
        or UsageBucket.objects.filter(meter=meter).exists()
    )


def capped(customer: Customer, meter: Meter, *, starts_at: datetime, ends_at: datetime) -> QuerySet[DimensionUse]:
    """Dimensions of the meter of which the customer used more values than count by themselves, in months (UTC) that
    the range touches: further ones count under `capping.OTHER`."""
    return DimensionUse.objects.filter(
        customer=customer,
        dimension__in=meter.dimensions,
        capped_at__isnull=False,
        month__gte=starts_at.astimezone(UTC).date().replace(day=1),
        month__lte=(ends_at.astimezone(UTC) - timedelta(microseconds=1)).date(),
    ).order_by("month", "dimension")


class Pending(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Usage of a quarter hour that is acknowledged but not counted yet. See `MeterTotal`; `members`: of a unique
    meter, how many different ones, whether or not they were counted before."""

    meter_id: int
    starts_at: datetime
    dimensions: dict[str, str]
    quantity: Decimal
    events: int
    rank: str | None
    members: int


# What the next fold will count of customer.id: rows of `Pending`.
PENDING: Final = f"""
SELECT meter_id, date_bin('15 minutes', starts_at, 'epoch') AS starts_at, dimensions, {MERGED} AS quantity,
       sum(change.events)::bigint AS events, max(rank) AS rank, count(DISTINCT member) AS members
FROM billing_usagedelta AS delta, unnest(meters, quantities, delta.events, ranks, members)
    AS change (meter_id, quantity, events, rank, member)
WHERE customer_id = customer.id GROUP BY 1, 2, 3
"""  # noqa: S608 -- the parts are ours


def pending_since(customer_id: int) -> datetime | None:
    """The earliest quarter hour of usage that is committed but not yet counted; None when nothing waits."""
    found: datetime | None = UsageDelta.objects.filter(customer=customer_id).aggregate(first=Min("starts_at"))["first"]
    return quarter_floor(found) if found else None


def waiting_customers() -> int:
    """How many customers have events that are not counted yet."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING)
        return int(cursor.fetchone()[0])


def used_values(meter: Meter, dimension: str, since: datetime) -> list[str]:
    """The values of a dimension that any customer's usage of the meter had from then on."""
    sets = UsageBucket.objects.filter(meter=meter, starts_at__gte=quarter_floor(since)).values("dimension_set")
    value = KeyTextTransform(dimension, "values")
    found = DimensionSet.objects.filter(pk__in=sets).annotate(value=value).filter(value__isnull=False)
    return sorted(found.values_list("value", flat=True).distinct())


def dimensions() -> list[str]:
    """The dimensions of every meter, by name."""
    return sorted({name for names in Meter.objects.values_list("dimensions", flat=True) for name in names})


# --- events -----------------------------------------------------------------------------------------------------


def events(
    customer: Customer, *, event_type: str | None = None, starts_at: datetime | None, ends_at: datetime | None
) -> QuerySet[UsageEvent]:
    """Accepted events of the customer that occurred in the range, each with its `corrections`: kind, properties (as
    JSON text), reason and recorded_at."""
    words = EventCorrection.objects.filter(identity=OuterRef("identity")).order_by("pk")
    said = JSONObject(
        kind="kind", properties=Cast("properties", TextField()), reason="reason", recorded_at="recorded_at"
    )
    found = UsageEvent.objects.filter(customer=customer).annotate(corrections=ArraySubquery(words.values(said=said)))
    if event_type is not None:
        found = found.filter(type=event_type)
    if starts_at is not None:
        found = found.filter(occurred_at__gte=starts_at)
    return found.filter(occurred_at__lt=ends_at) if ends_at is not None else found


def unmatched(
    *,
    customer: str | None = None,
    type: str | None = None,
    reason: str | None = None,
) -> QuerySet[UnmatchedEvent]:
    """Events that nothing counts, by the key of their customer, their type and what they lack."""
    asked = {"customer_key": customer, "type": type, "reason": reason}
    return UnmatchedEvent.objects.filter(**{name: value for name, value in asked.items() if value is not None})


def refused() -> QuerySet[RefusedItems]:
    """The latest refusal of each code, key and source, with the `total` of items of its group."""
    rows = RefusedItems.objects.order_by().annotate(key=Coalesce("api_key", 0))
    group = rows.filter(code=OuterRef("code"), source=OuterRef("source"), key=Coalesce(OuterRef("api_key"), 0))
    total = group.values("code", "source", "key").annotate(total=Sum("items")).values("total")
    latest = rows.values("code", "source", "key").annotate(latest=Max("pk")).values("latest")
    return RefusedItems.objects.filter(pk__in=latest).select_related("api_key").annotate(total=Subquery(total))


def refused_of_source(source: str) -> list[tuple[str, int, str, str]]:
    """Code, number of items, detail and sample of what was refused from this source, the most frequent first."""
    rows = RefusedItems.objects.filter(source=source).values("code", "detail")
    found = rows.annotate(total=Sum("items"), latest=Max("sample")).order_by("-total", "code")
    return [(row["code"], row["total"], row["detail"], row["latest"]) for row in found]


# --- statements -------------------------------------------------------------------------------------------------

_SERIES: Final = f"""{RUNS}, counted AS (
    SELECT width_bucket(day::timestamp AT TIME ZONE 'UTC', %(edges)s::timestamptz[]) AS range,
           meter_id, dimension_set_id, quantity, events, rank
    FROM day_runs JOIN billing_usageday ON customer_id = %(customer)s AND meter_id = ANY(%(meters)s::bigint[])
        AND day >= first_day AND day < end_day
    UNION ALL
    SELECT width_bucket(bucket.starts_at, %(edges)s::timestamptz[]),
           meter_id, dimension_set_id, quantity, events, rank
    FROM quarter_runs AS run
    JOIN billing_usagebucket AS bucket ON customer_id = %(customer)s AND meter_id = ANY(%(meters)s::bigint[])
        AND bucket.starts_at >= run.starts_at AND bucket.starts_at < run.ends_at
), summed AS (
    SELECT range, meter_id, dimension_set_id,
           {MERGED} AS quantity, sum(events)::bigint AS events, max(rank) AS rank
    FROM counted GROUP BY range, meter_id, dimension_set_id
)
SELECT range, meter_id, dimension_set_id, "values", quantity, events, rank
FROM summed JOIN billing_dimensionset ON id = dimension_set_id
WHERE quantity <> 0 OR events <> 0
ORDER BY range, meter_id, dimension_set_id
"""  # noqa: S608 -- the parts are ours

_PERIODS: Final = """
SELECT place, total.meter_id, total.dimension_set_id, dimension_set."values", total.quantity, total.events, total.rank
FROM unnest(%(customers)s::bigint[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    WITH ORDINALITY AS asked (customer_id, starts_at, ends_at, place)
JOIN billing_trackedperiod AS period USING (customer_id, starts_at, ends_at)
LEFT JOIN billing_periodtotal AS total ON total.period_id = period.id AND (total.quantity <> 0 OR total.events <> 0)
LEFT JOIN billing_dimensionset AS dimension_set ON dimension_set.id = total.dimension_set_id
ORDER BY period.id, total.meter_id, total.dimension_set_id
"""

_PERIOD: Final = """
SELECT total.meter_id, total.dimension_set_id, dimension_set."values", total.quantity, total.events, total.rank
FROM billing_trackedperiod AS period
LEFT JOIN billing_periodtotal AS total ON total.period_id = period.id AND total.meter_id = ANY(%(meters)s::bigint[])
    AND (total.quantity <> 0 OR total.events <> 0)
LEFT JOIN billing_dimensionset AS dimension_set ON dimension_set.id = total.dimension_set_id
WHERE period.customer_id = %(customer)s AND period.starts_at = %(starts_at)s AND period.ends_at = %(ends_at)s
ORDER BY total.meter_id, total.dimension_set_id
"""

_FRESHNESS: Final = """
SELECT customer.id, coalesce(watermark.version, 0),
       CASE WHEN EXISTS (SELECT FROM billing_usagedelta WHERE customer_id = customer.id)
            THEN coalesce(watermark.counted_through, customer.created_at)
            ELSE statement_timestamp() END,
       statement_timestamp()
FROM accounts_customer AS customer LEFT JOIN billing_watermark AS watermark ON watermark.customer_id = customer.id
WHERE customer.id = ANY(%s::bigint[])
"""

_WAITING: Final = f"WITH RECURSIVE {DIRTY} SELECT count(customer_id) FROM dirty"  # noqa: S608 -- the parts are ours
