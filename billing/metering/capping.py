"""At most so many values of a dimension count by themselves; more count under OTHER, and nothing is lost.

The limit is per customer, dimension and month (UTC, of the quarter hour). Whether a value counts by itself in a quarter
hour never changes once something was counted, so a correction, a late event or a re-count finds the set that its event
was counted in. The fold decides, in the statement that counts; see docs/decisions/0009.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from django.conf import settings
from django.db import connection

from billing.metering.counter_models import NamedValue

OTHER: Final = "(other)"

type Naming = tuple[int, str, str | None]  # meter, dimension, value (None: the absence of one)


def limit() -> int:
    """How many values of a dimension a customer may use in a month, each counted by itself."""
    return int(settings.DIMENSION_VALUES)


def name(named_by: str, namings: Iterable[Naming]) -> None:
    """Replace what prices, unit costs or a budget name: these values count by themselves whatever the limit."""
    NamedValue.objects.filter(named_by=named_by).delete()
    NamedValue.objects.bulk_create(
        NamedValue(named_by=named_by, meter_id=meter_id, dimension=dimension, value=value, digest=_digest(value))
        for meter_id, dimension, value in sorted(set(namings), key=str)
    )


def _digest(value: str | None) -> str | None:
    """As the database makes it of the values in a set."""
    return None if value is None else sha256(value.encode()).hexdigest()[:32]


def placed(customer_id: int, starts_at: datetime, dimensions: Collection[str]) -> Mapping[str, str]:
    """Where sets that were counted in a quarter hour are counted, as JSON; only those that are counted elsewhere."""
    parameters: dict[str, Any] = {"customer": customer_id, "starts_at": starts_at, "dimensions": list(dimensions)}
    with connection.cursor() as cursor:
        cursor.execute(_IS_CAPPED, parameters)
        if not cursor.fetchone()[0]:
            return {}
        cursor.execute(_PLACED, parameters)
        return dict(cursor.fetchall())


_MONTH: Final = "date_trunc('month', {} AT TIME ZONE 'UTC')::date"
_SENT: Final = f"""
    SELECT customer_id, starts_at, {_MONTH.format("starts_at")} AS month, dimensions, dimension, value,
           substr(encode(sha256(convert_to(value, 'UTF8')), 'hex'), 1, 32)::uuid AS digest
    FROM (SELECT DISTINCT customer_id, starts_at, dimensions FROM {{}}) AS one,
         jsonb_each_text(dimensions::jsonb) AS each (dimension, value)
"""  # noqa: S608 -- the parts are ours
_IS_NAMED: Final = "EXISTS (SELECT FROM billing_namedvalue AS named WHERE (named.dimension, named.digest) = ({0}, {1}))"
_SINCE: Final = """(SELECT since FROM billing_dimensionvalue AS kept
    WHERE (kept.customer_id, kept.month) = ({0}.customer_id, {0}.month)
        AND (kept.dimension, kept.digest) = ({0}.dimension, {0}.digest))"""
# As counting.dimension_set writes it.
_WITH_OTHER: Final = f"""
    SELECT customer_id, starts_at, dimensions, '{{' || string_agg(
        to_json(dimension)::text || ':' || to_json(CASE WHEN is_kept THEN value ELSE '{OTHER}' END)::text,
        ',' ORDER BY dimension COLLATE "C") || '}}' AS placed
    FROM judged JOIN (SELECT DISTINCT customer_id, starts_at, dimensions FROM judged WHERE NOT is_kept) AS exceeding
        USING (customer_id, starts_at, dimensions)
    GROUP BY customer_id, starts_at, dimensions
"""  # noqa: S608 -- the parts are ours

# Common table expressions between `taken`, the deltas as they were sent, and `gone`, the same as they are counted.
CAP: Final = f"""
sent AS ({_SENT.format("taken")}), used AS (
    SELECT *, {_SINCE.format("one")} AS since
    FROM (SELECT DISTINCT customer_id, month, dimension, digest FROM sent) AS one
), fresh AS (
    SELECT customer_id, month, dimension, digest, is_named, spilled_through, coalesce("values", 0)
           + row_number() OVER (PARTITION BY customer_id, month, dimension ORDER BY is_named DESC, digest) AS place
    FROM (SELECT customer_id, month, dimension, digest, {_IS_NAMED.format("used.dimension", "used.digest")} AS is_named
          FROM used WHERE since IS NULL) AS one
    LEFT JOIN billing_dimensionuse AS use USING (customer_id, month, dimension)
), entitled AS (
    SELECT customer_id, month, dimension, digest, spilled_through
    FROM fresh WHERE is_named OR spilled_through IS NULL AND place <= %(values)s
    UNION  -- where this fold is the first to exceed the limit: what is named by now has its place for good
    SELECT customer_id, month, dimension, named.digest, NULL
    FROM billing_namedvalue AS named JOIN fresh USING (dimension)
    WHERE spilled_through IS NULL AND NOT is_named AND place > %(values)s AND named.digest IS NOT NULL
), admitted AS (
    INSERT INTO billing_dimensionvalue (customer_id, month, dimension, digest, since)
    SELECT customer_id, month, dimension, digest,
           coalesce(spilled_through + interval '15 minutes', month::timestamp AT TIME ZONE 'UTC')
    FROM entitled ORDER BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING
    RETURNING customer_id, month, dimension, digest, since
), kept AS (
    SELECT * FROM used WHERE since IS NOT NULL UNION ALL SELECT * FROM admitted
), judged AS (
    SELECT sent.*, coalesce(since <= starts_at, false) AS is_kept
    FROM sent LEFT JOIN kept USING (customer_id, month, dimension, digest)
), spilled AS ({_WITH_OTHER}), uses AS (
    INSERT INTO billing_dimensionuse AS kept (customer_id, month, dimension, "values", capped_at, spilled_through)
    SELECT customer_id, month, dimension, sum(one)::integer, min(at), max(starts_at)
    FROM (SELECT customer_id, month, dimension, 1 AS one, NULL::timestamptz AS at, NULL::timestamptz AS starts_at
          FROM admitted
          UNION ALL
          SELECT customer_id, month, dimension, 0, %(at)s, starts_at FROM judged WHERE NOT is_kept) AS change
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (customer_id, month, dimension) DO UPDATE SET
        "values" = kept."values" + excluded."values", capped_at = coalesce(kept.capped_at, excluded.capped_at),
        spilled_through = greatest(kept.spilled_through, excluded.spilled_through)
), gone AS (
    SELECT customer_id, minute, starts_at, coalesce(placed, dimensions) AS dimensions, meters, quantities, events,
           ranks, members
    FROM taken LEFT JOIN spilled USING (customer_id, starts_at, dimensions)
)"""  # noqa: S608 -- the parts are ours

_IS_CAPPED: Final = f"""
SELECT EXISTS (SELECT FROM billing_dimensionuse WHERE customer_id = %(customer)s AND spilled_through IS NOT NULL
               AND month = {_MONTH.format("%(starts_at)s::timestamptz")})
"""  # noqa: S608 -- the parts are ours
# What nothing was counted of yet is where the next fold will count it.
_PLACED: Final = f"""
WITH asked AS (
    SELECT %(customer)s::bigint AS customer_id, %(starts_at)s::timestamptz AS starts_at, dimensions
    FROM unnest(%(dimensions)s::text[]) AS one (dimensions)
), sent AS ({_SENT.format("asked")}), judged AS (
    SELECT sent.*, coalesce({_SINCE.format("sent")} <= starts_at,
        spilled_through IS NULL OR starts_at > spilled_through AND {_IS_NAMED.format("sent.dimension", "sent.digest")}
    ) AS is_kept
    FROM sent LEFT JOIN billing_dimensionuse AS use USING (customer_id, month, dimension)
)
SELECT dimensions, placed FROM ({_WITH_OTHER}) AS spilled
"""  # noqa: S608 -- the parts are ours
