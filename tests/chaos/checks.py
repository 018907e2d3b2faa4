"""What must hold afterwards, computed a second time: from the raw rows, and from the events that were meant.

Each check answers what it found wrong, one sentence each.
"""

from collections.abc import Collection, Iterator
from decimal import Decimal
from typing import Any

from django.db import connection

from billing.cycle.verify import differences
from billing.metering.models import Meter
from tests.chaos import load

_COUNTERS = """
SELECT customer.key, meter.key, coalesce(dims."values"->>'model', ''), coalesce(dims."values"->>'api_key', ''),
       sum(bucket.quantity), sum(bucket.events)::bigint
FROM billing_usagebucket AS bucket
JOIN accounts_customer AS customer ON customer.id = bucket.customer_id
JOIN billing_meter AS meter ON meter.id = bucket.meter_id
JOIN billing_dimensionset AS dims ON dims.id = bucket.dimension_set_id
WHERE meter.aggregation IN ('sum', 'count')
GROUP BY 1, 2, 3, 4
"""


# What a meter's bucket must hold, from the raw rows; {value} is the property as text.
_QUANTITIES = {
    "sum": "sum({value}::numeric)",
    "count": "count(*)",
    "max": "max({value}::numeric)",
    "latest": """(array_agg({value}::numeric ORDER BY occurred_at DESC, recorded_at DESC,
                           source COLLATE "C" DESC, event_id COLLATE "C" DESC))[1]""",
    "unique": "count(DISTINCT {value})",
}
_MEMBERS = """(SELECT count(*) FROM billing_bucketmember AS member
    WHERE (member.customer_id, member.meter_id, member.starts_at, member.dimension_set_id)
        = (bucket.customer_id, bucket.meter_id, bucket.starts_at, bucket.dimension_set_id))"""


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def stored_numbers() -> list[int]:
    """The numbers of the events that are stored, as often as they are."""
    return [number for (number,) in query("SELECT event_id::bigint FROM billing_usageevent")]


def pending() -> int:
    """Deltas that are not folded yet."""
    return int(query("SELECT count(*) FROM billing_usagedelta")[0][0])


def identities(acknowledged: Collection[int], stored: Collection[int]) -> Iterator[str]:
    """Nothing acknowledged is lost, nothing is stored twice."""
    once = set(stored)
    if lost := set(acknowledged) - once:
        yield f"{len(lost)} acknowledged events are not stored, for instance {min(lost)}"
    if len(once) < len(stored):
        yield f"{len(stored) - len(once)} events are stored twice"
    [(known,)] = query("SELECT count(*) FROM billing_eventidentity")
    if known != len(stored):
        yield f"{known} identities are known, {len(stored)} events are stored"


def counters_are_sums_of_rows() -> Iterator[str]:
    """Every bucket of every meter and dimension set, counted again from the raw events."""
    for meter in Meter.objects.all():
        conditions, parameters = ["type = %s"], [meter.event_type]
        for one in meter.filters:
            assert one["op"] == "eq", "this recount knows no other filter"
            conditions.append("properties->>%s = %s")
            parameters += [one["property"], one["value"]]
        value = f"(properties->>'{meter.value}')"
        if meter.value:
            conditions.append(f"{value} IS NOT NULL")
        dimensions = ", ".join(f"'{name}', properties->>'{name}'" for name in meter.dimensions)
        sql = f"""
            WITH raw AS (
                SELECT customer_id, date_bin('15 minutes', occurred_at, 'epoch') AS starts_at,
                       jsonb_strip_nulls(jsonb_build_object({dimensions})) AS dims,
                       {_QUANTITIES[meter.aggregation].format(value=value)} AS quantity, count(*) AS events
                FROM billing_usageevent WHERE {" AND ".join(conditions)} GROUP BY 1, 2, 3
            ), counted AS (
                SELECT bucket.customer_id, starts_at, "values" AS dims, events,
                       {_MEMBERS if meter.aggregation == "unique" else "quantity"} AS quantity
                FROM billing_usagebucket AS bucket JOIN billing_dimensionset AS dims ON dims.id = dimension_set_id
                WHERE meter_id = %s
            )
            SELECT customer_id, starts_at, dims, raw.quantity, counted.quantity, raw.events, counted.events
            FROM raw FULL JOIN counted USING (customer_id, starts_at, dims)
            WHERE (raw.quantity, raw.events) IS DISTINCT FROM (counted.quantity, counted.events)
        """
        for row in query(sql, *parameters, meter.pk):
            yield f"{meter.key}: a bucket is not the sum of its rows: {row}"


def counters_are_what_was_meant(stored: Collection[int]) -> Iterator[str]:
    """The same from the events as they were made, without reading a row of them."""
    meant = load.totals(set(stored))
    counted: dict[Any, tuple[Decimal, int]] = {tuple(row[:4]): (row[4], row[5]) for row in query(_COUNTERS)}
    for cell in meant.keys() | counted.keys():
        if meant.get(cell) != counted.get(cell):
            yield f"{cell} is counted as {counted.get(cell)}, meant as {meant.get(cell)}"


def every_alert_has_its_message() -> Iterator[str]:
    """An alert and its message commit together. One that was being sent when its worker died is still leased."""
    told = query(
        "SELECT alert.public_id, count(message.id), count(*) FILTER (WHERE message.status = 'failed') "
        "FROM billing_alert AS alert LEFT JOIN billing_outboxmessage AS message ON message.cause = alert.announcement "
        "GROUP BY 1 HAVING count(message.id) <> 1 OR bool_or(message.status = 'failed')"
    )
    for alert, messages, failed in told:
        yield f"{alert} has {messages} messages, of which {failed} failed"


def all_of(acknowledged: Collection[int], stored: Collection[int]) -> list[str]:
    """Everything that is wrong."""
    return [
        *identities(acknowledged, stored),
        *counters_are_sums_of_rows(),
        *counters_are_what_was_meant(stored),
        *every_alert_has_its_message(),
        *differences(),
    ]
