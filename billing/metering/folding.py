"""From deltas to counters: buckets, days and the totals of tracked periods. Each function runs in a transaction that
has claimed the customer, so nobody else writes the customer's counters meanwhile."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection

from billing.metering import capping
from billing.metering.counting import Feed

# Of rows with a rank the greatest decides, by bytes; others add up. An aggregate, and how it enters a counter.
MERGED: Final = """coalesce(
    (max(ARRAY[rank, quantity::text] COLLATE "C") FILTER (WHERE rank IS NOT NULL))[2]::numeric, sum(quantity))"""
_MERGE: Final = """
    DO UPDATE SET
        quantity = CASE WHEN excluded.rank IS NULL THEN kept.quantity + excluded.quantity
                        WHEN kept.rank >= excluded.rank THEN kept.quantity ELSE excluded.quantity END,
        rank = greatest(kept.rank, excluded.rank), events = kept.events + excluded.events"""

# Minutes are answered for 48 hours; an hour more covers what lies between asking, counting and forgetting.
MINUTES_KEPT: Final = timedelta(hours=48)
MINUTES_STORED: Final = MINUTES_KEPT + timedelta(hours=1)

# Bounds the length of one transaction. What is left is folded by the next; each customer has an even share.
MOST_DELTAS: Final = 20_000


def claim_dirty(skip: Collection[int], most: int) -> list[int]:
    """Lock the watermarks of the dirty customers that were counted longest ago and that nobody else has claimed."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_DIRTY, {"skip": list(skip), "most": most})
        return [customer_id for (customer_id,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Moved:
    """The earliest quarter hour that moved; and the meters and quarter hours whose greatest rank may be gone."""

    since: datetime
    recounts: list[tuple[int, datetime]]


def move_deltas(customer_ids: Collection[int], at: datetime) -> dict[int, Moved]:
    """Take the customers' deltas away and add them to the counters, in one statement; the oldest first, so that what
    a correction takes back was added before. Answers for those of whom anything moved.

    Where none is left, `counted_through` becomes the statement's instant: whatever had been acknowledged by then was
    committed, so its snapshot saw it. That is kept too: `arrivals` tells by it which events came between two of them.
    """
    parameters: dict[str, Any] = {
        "customers": list(customer_ids),
        "most": MOST_DELTAS,
        "values": capping.limit(),
        "minutes_from": at - MINUTES_STORED,
        "at": at,
    }
    with connection.cursor() as cursor:
        cursor.execute(_SUM_UP, parameters)
        cursor.execute(_MOVE, parameters)
        return {
            customer_id: Moved(since, sorted(set(zip(meters or (), quarters or (), strict=True))))
            for customer_id, since, meters, quarters in cursor.fetchall()
        }


def set_decisive(
    customer_id: int,
    meter_id: int,
    starts_at: datetime,
    *,
    by_dimensions: Mapping[str, Feed],
    by_minute: Mapping[datetime, Feed],
) -> None:
    """Of a max or latest meter: put what decides in a quarter hour, and in its minutes, its day and its periods."""
    parameters: dict[str, Any] = {
        "customer": customer_id,
        "meter": meter_id,
        "starts_at": starts_at,
        "dimensions": list(by_dimensions),
        "quantities": [feed.quantity for feed in by_dimensions.values()],
        "ranks": [feed.rank for feed in by_dimensions.values()],
        "minutes": list(by_minute),
        "minute_quantities": [feed.quantity for feed in by_minute.values()],
        "minute_ranks": [feed.rank for feed in by_minute.values()],
    }
    with connection.cursor() as cursor:
        for statement in _SET_DECISIVE:
            cursor.execute(statement, parameters)


def track_period(customer_id: int, starts_at: datetime, ends_at: datetime) -> None:
    """Keep totals of the range from now on, beginning with what its buckets hold."""
    with connection.cursor() as cursor:
        cursor.execute(_TRACK, {"customer": customer_id, "starts_at": starts_at, "ends_at": ends_at})


# The customers of whom deltas wait, and a null at the end. Reads one index entry per customer, however many deltas.
DIRTY: Final = """dirty AS (
    (SELECT customer_id FROM billing_usagedelta ORDER BY customer_id LIMIT 1)
    UNION ALL
    SELECT (SELECT customer_id FROM billing_usagedelta WHERE customer_id > dirty.customer_id
            ORDER BY customer_id LIMIT 1)
    FROM dirty WHERE dirty.customer_id IS NOT NULL
)"""
_CLAIM_DIRTY: Final = f"""
WITH RECURSIVE {DIRTY}
SELECT customer_id FROM billing_watermark
WHERE customer_id IN (SELECT customer_id FROM dirty) AND customer_id <> ALL(%(skip)s::bigint[])
ORDER BY counted_through NULLS FIRST, customer_id LIMIT %(most)s
FOR UPDATE SKIP LOCKED
"""  # noqa: S608 -- the parts are ours

# Quarter hours that have ended since the last time. What comes late for them is added by _MOVE.
_SUM_UP: Final = f"""
WITH due AS (
    SELECT customer_id, coalesce(summed_before, '-infinity') AS starts_at,
           date_bin('15 minutes', %(at)s::timestamptz, 'epoch') AS ends_at
    FROM billing_watermark
    WHERE customer_id = ANY(%(customers)s::bigint[])
        AND coalesce(summed_before, '-infinity') < date_bin('15 minutes', %(at)s::timestamptz, 'epoch')
), days AS (
    INSERT INTO billing_usageday AS kept (customer_id, meter_id, day, dimension_set_id, quantity, events, rank)
    SELECT due.customer_id, meter.id, summed.*
    FROM due CROSS JOIN billing_meter AS meter CROSS JOIN LATERAL (
        SELECT (bucket.starts_at AT TIME ZONE 'UTC')::date, dimension_set_id, {MERGED}, sum(events), max(rank)
        FROM billing_usagebucket AS bucket
        WHERE customer_id = due.customer_id AND meter_id = meter.id
            AND bucket.starts_at >= due.starts_at AND bucket.starts_at < due.ends_at
        GROUP BY 1, 2
    ) AS summed ORDER BY 1, 2, 3, 4
    ON CONFLICT (customer_id, meter_id, day, dimension_set_id) {_MERGE}
), day_members AS (
    INSERT INTO billing_daymember AS kept (customer_id, meter_id, day, dimension_set_id, member, events)
    SELECT due.customer_id, meter.id, summed.*
    FROM due CROSS JOIN billing_meter AS meter CROSS JOIN LATERAL (
        SELECT (bucket.starts_at AT TIME ZONE 'UTC')::date, dimension_set_id, member, sum(events)
        FROM billing_bucketmember AS bucket
        WHERE customer_id = due.customer_id AND meter_id = meter.id
            AND bucket.starts_at >= due.starts_at AND bucket.starts_at < due.ends_at
        GROUP BY 1, 2, 3
    ) AS summed ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (customer_id, meter_id, day, dimension_set_id, member)
    DO UPDATE SET events = kept.events + excluded.events
)
UPDATE billing_watermark SET summed_before = due.ends_at
FROM due WHERE due.customer_id = billing_watermark.customer_id
"""  # noqa: S608 -- the parts are ours

_MOVE: Final = f"""
WITH waiting AS (
    SELECT customer_id, id, row_number() OVER (PARTITION BY customer_id ORDER BY id) AS place,
           count(*) OVER (PARTITION BY customer_id) AS deltas
    FROM unnest(%(customers)s::bigint[]) AS claimed (customer_id)
    CROSS JOIN LATERAL (
        SELECT id FROM billing_usagedelta WHERE customer_id = claimed.customer_id ORDER BY id LIMIT %(most)s
    ) AS own
), due AS (
    SELECT customer_id, id, place = deltas AND deltas < %(most)s AS is_last FROM waiting ORDER BY place LIMIT %(most)s
), taken AS (
    DELETE FROM billing_usagedelta AS delta USING due WHERE delta.id = due.id
    RETURNING delta.customer_id, starts_at AS minute, date_bin('15 minutes', starts_at, 'epoch') AS starts_at,
              dimensions, meters, quantities, events, ranks, members
), ended AS (
    UPDATE billing_eventending SET is_counted = true
    WHERE customer_id = ANY(%(customers)s::bigint[]) AND NOT is_counted
), {capping.CAP}, named AS (
    SELECT customer_id, dimensions, substr(encode(sha256(convert_to(dimensions, 'UTF8')), 'hex'), 1, 32)::uuid AS digest
    FROM (SELECT DISTINCT customer_id, dimensions FROM gone) AS used
), new_sets AS (
    INSERT INTO billing_dimensionset (customer_id, digest, "values")
    SELECT customer_id, digest, dimensions::jsonb FROM named
    WHERE NOT EXISTS (
        SELECT FROM billing_dimensionset AS known
        WHERE known.customer_id = named.customer_id AND known.digest = named.digest
    )
    ON CONFLICT DO NOTHING RETURNING id, customer_id, digest
), sets AS (
    SELECT named.customer_id, named.dimensions, id FROM named JOIN new_sets USING (customer_id, digest)
    UNION ALL
    SELECT named.customer_id, named.dimensions, id FROM named JOIN billing_dimensionset USING (customer_id, digest)
), changes AS (
    SELECT customer_id, minute, starts_at, sets.id AS set_id, change.*
    FROM gone JOIN sets USING (customer_id, dimensions), unnest(meters, quantities, gone.events, ranks, members)
        AS change (meter_id, quantity, events, rank, member)
), moved AS (
    SELECT customer_id, meter_id, starts_at, set_id, {MERGED} AS quantity, sum(events) AS events, max(rank) AS rank
    FROM changes GROUP BY customer_id, meter_id, starts_at, set_id
), buckets AS (
    INSERT INTO billing_usagebucket AS kept
        (customer_id, meter_id, starts_at, dimension_set_id, quantity, events, rank)
    SELECT customer_id, meter_id, starts_at, set_id, quantity, events, rank FROM moved ORDER BY 1, 2, 3, 4
    ON CONFLICT (customer_id, meter_id, starts_at, dimension_set_id) {_MERGE}
), summed AS (
    SELECT customer_id, summed_before FROM billing_watermark WHERE customer_id = ANY(%(customers)s::bigint[])
), days AS (
    INSERT INTO billing_usageday AS kept (customer_id, meter_id, day, dimension_set_id, quantity, events, rank)
    SELECT customer_id, meter_id, (starts_at AT TIME ZONE 'UTC')::date, set_id, {MERGED}, sum(events), max(rank)
    FROM moved JOIN summed USING (customer_id) WHERE starts_at < summed_before
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (customer_id, meter_id, day, dimension_set_id) {_MERGE}
), periods AS (
    SELECT id, customer_id, starts_at, ends_at FROM billing_trackedperiod
    WHERE customer_id = ANY(%(customers)s::bigint[])
), members AS (
    SELECT customer_id, meter_id, starts_at, set_id, member, sum(events) AS events
    FROM changes WHERE member IS NOT NULL GROUP BY 1, 2, 3, 4, 5
), bucket_members AS (
    INSERT INTO billing_bucketmember AS kept (customer_id, meter_id, starts_at, dimension_set_id, member, events)
    SELECT customer_id, meter_id, starts_at, set_id, member, events FROM members ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (customer_id, meter_id, starts_at, dimension_set_id, member)
    DO UPDATE SET events = kept.events + excluded.events
), day_members AS (
    INSERT INTO billing_daymember AS kept (customer_id, meter_id, day, dimension_set_id, member, events)
    SELECT customer_id, meter_id, (starts_at AT TIME ZONE 'UTC')::date, set_id, member, sum(events)
    FROM members JOIN summed USING (customer_id) WHERE starts_at < summed_before
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (customer_id, meter_id, day, dimension_set_id, member)
    DO UPDATE SET events = kept.events + excluded.events
), in_periods AS (
    SELECT periods.id AS period_id, meter_id, set_id, member, sum(events) AS events
    FROM members JOIN periods ON members.customer_id = periods.customer_id
        AND members.starts_at >= periods.starts_at AND members.starts_at < periods.ends_at
    GROUP BY 1, 2, 3, 4
), period_members AS (
    INSERT INTO billing_periodmember AS kept (period_id, meter_id, dimension_set_id, member, events)
    SELECT period_id, meter_id, set_id, member, events FROM in_periods ORDER BY 1, 2, 3, 4
    ON CONFLICT (period_id, meter_id, dimension_set_id, member)
    DO UPDATE SET events = kept.events + excluded.events
    RETURNING period_id, meter_id, dimension_set_id AS set_id, member, events
), members_added AS (
    SELECT period_id, meter_id, set_id,
           sum((now.events > 0)::int - (now.events - in_periods.events > 0)::int) AS members
    FROM period_members AS now JOIN in_periods USING (period_id, meter_id, set_id, member)
    GROUP BY period_id, meter_id, set_id
), totals AS (
    INSERT INTO billing_periodtotal AS kept
        (period_id, meter_id, dimension_set_id, quantity, events, rank, members)
    SELECT period_id, meter_id, set_id, quantity, events, rank, members
    FROM (
        SELECT periods.id AS period_id, meter_id, set_id,
               {MERGED} AS quantity, sum(events) AS events, max(rank) AS rank
        FROM moved JOIN periods ON moved.customer_id = periods.customer_id
            AND moved.starts_at >= periods.starts_at AND moved.starts_at < periods.ends_at
        GROUP BY 1, 2, 3
    ) AS added LEFT JOIN members_added USING (period_id, meter_id, set_id)
    ORDER BY 1, 2, 3
    ON CONFLICT (period_id, meter_id, dimension_set_id) {_MERGE}, members = kept.members + excluded.members
), minutes AS (
    INSERT INTO billing_usageminute AS kept (customer_id, meter_id, starts_at, quantity, events, rank)
    SELECT customer_id, meter_id, minute, {MERGED}, sum(events), max(rank)
    FROM changes WHERE minute >= %(minutes_from)s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (customer_id, meter_id, starts_at) {_MERGE}
), minute_members AS (
    INSERT INTO billing_minutemember AS kept (customer_id, meter_id, starts_at, member, events)
    SELECT customer_id, meter_id, minute, member, sum(events)
    FROM changes WHERE member IS NOT NULL AND minute >= %(minutes_from)s GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (customer_id, meter_id, starts_at, member) DO UPDATE SET events = kept.events + excluded.events
), counted AS (
    UPDATE billing_watermark
    SET counted_through = greatest(counted_through, least(%(at)s, statement_timestamp())),
        snapshot = pg_current_snapshot()
    WHERE customer_id = ANY(%(customers)s::bigint[])
        AND customer_id NOT IN (SELECT customer_id FROM due GROUP BY customer_id HAVING NOT bool_or(is_last))
)
SELECT customer_id, min(starts_at),
       array_agg(meter_id) FILTER (WHERE rank = ''), array_agg(starts_at) FILTER (WHERE rank = '')
FROM changes GROUP BY customer_id
"""  # noqa: S608 -- the parts are ours

_SET_DECISIVE: Final = (
    """
    UPDATE billing_usagebucket AS bucket SET quantity = coalesce(decisive.quantity, 0), rank = decisive.rank
    FROM billing_dimensionset AS dimension_set
    LEFT JOIN unnest(%(dimensions)s::text[], %(quantities)s::numeric[], %(ranks)s::text[])
        AS decisive (dimensions, quantity, rank)
        ON substr(encode(sha256(convert_to(decisive.dimensions, 'UTF8')), 'hex'), 1, 32)::uuid = dimension_set.digest
    WHERE bucket.customer_id = %(customer)s AND bucket.meter_id = %(meter)s AND bucket.starts_at = %(starts_at)s
        AND dimension_set.id = bucket.dimension_set_id
    """,
    f"""
    UPDATE billing_usageday AS kept SET quantity = merged.quantity, rank = merged.rank
    FROM (
        SELECT dimension_set_id, {MERGED} AS quantity, max(rank) AS rank FROM billing_usagebucket
        WHERE customer_id = %(customer)s AND meter_id = %(meter)s
            AND starts_at >= date_trunc('day', %(starts_at)s::timestamptz, 'UTC')
            AND starts_at < date_trunc('day', %(starts_at)s::timestamptz, 'UTC') + interval '24 hours'
            AND starts_at < (SELECT summed_before FROM billing_watermark WHERE customer_id = %(customer)s)
        GROUP BY dimension_set_id
    ) AS merged
    WHERE kept.customer_id = %(customer)s AND kept.meter_id = %(meter)s
        AND kept.day = (%(starts_at)s::timestamptz AT TIME ZONE 'UTC')::date
        AND kept.dimension_set_id = merged.dimension_set_id
    """,  # noqa: S608 -- the parts are ours
    f"""
    UPDATE billing_periodtotal AS kept SET quantity = merged.quantity, rank = merged.rank
    FROM (
        SELECT period.id, dimension_set_id, {MERGED} AS quantity, max(rank) AS rank
        FROM billing_trackedperiod AS period JOIN billing_usagebucket AS bucket
            ON bucket.customer_id = %(customer)s AND bucket.meter_id = %(meter)s
            AND bucket.starts_at >= period.starts_at AND bucket.starts_at < period.ends_at
        WHERE period.customer_id = %(customer)s
            AND period.starts_at <= %(starts_at)s AND period.ends_at > %(starts_at)s
        GROUP BY period.id, dimension_set_id
    ) AS merged
    WHERE kept.period_id = merged.id AND kept.meter_id = %(meter)s AND kept.dimension_set_id = merged.dimension_set_id
    """,  # noqa: S608 -- the parts are ours
    """
    UPDATE billing_usageminute AS kept SET (quantity, rank) = (
        SELECT coalesce(max(decisive.quantity), 0), max(decisive.rank)
        FROM unnest(%(minutes)s::timestamptz[], %(minute_quantities)s::numeric[], %(minute_ranks)s::text[])
            AS decisive (minute, quantity, rank)
        WHERE decisive.minute = kept.starts_at)
    WHERE customer_id = %(customer)s AND meter_id = %(meter)s
        AND starts_at >= %(starts_at)s AND starts_at < %(starts_at)s + interval '15 minutes'
    """,
)

_TRACK: Final = f"""
WITH period AS (
    INSERT INTO billing_trackedperiod (customer_id, starts_at, ends_at)
    VALUES (%(customer)s, %(starts_at)s, %(ends_at)s)
    ON CONFLICT DO NOTHING RETURNING id
), members AS (
    INSERT INTO billing_periodmember (period_id, meter_id, dimension_set_id, member, events)
    SELECT period.id, meter_id, dimension_set_id, member, sum(events)
    FROM period JOIN billing_bucketmember ON customer_id = %(customer)s
        AND billing_bucketmember.starts_at >= %(starts_at)s AND billing_bucketmember.starts_at < %(ends_at)s
    GROUP BY 1, 2, 3, 4
    RETURNING meter_id, dimension_set_id, events
), counted AS (
    SELECT meter_id, dimension_set_id, count(*) FILTER (WHERE events > 0) AS members FROM members GROUP BY 1, 2
)
INSERT INTO billing_periodtotal (period_id, meter_id, dimension_set_id, quantity, events, rank, members)
SELECT period.id, meter_id, dimension_set_id, {MERGED}, sum(events), max(rank), max(counted.members)
FROM period JOIN billing_usagebucket ON customer_id = %(customer)s
    AND billing_usagebucket.starts_at >= %(starts_at)s AND billing_usagebucket.starts_at < %(ends_at)s
LEFT JOIN counted USING (meter_id, dimension_set_id)
GROUP BY 1, 2, 3
"""  # noqa: S608 -- the parts are ours
