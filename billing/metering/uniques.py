"""How many different members of unique meters were seen. Every range is half-open and lies on quarter hours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection

from accounts.models import Customer
from billing.metering.ranges import RUNS, columns


@dataclass(frozen=True, slots=True)
class Asked:
    """Which dimension sets of a unique meter count together (set id -> label), in ranges [first, end) of a series."""

    meter_id: int
    first: int
    end: int
    labels: Mapping[int, int]


def newcomers(customer: Customer, *, edges: Sequence[datetime], asked: Sequence[Asked]) -> list[list[dict[int, int]]]:
    """For each question, range by range: how many members each label has that it had in none of the question's
    earlier ranges. They add up to the number of different members. One query; two for one range."""
    answers: list[list[dict[int, int]]] = [[{} for _ in range(one.first, one.end)] for one in asked]
    parameters = columns(customer, edges) | _labels(asked)
    with connection.cursor() as cursor:
        if len(edges) == 2:  # noqa: PLR2004 -- a start and an end, perhaps of a tracked period
            of_period = (
                _LONE_SETS if _are_lone(asked) else _MEMBERS.format(seen=_PERIOD_MEMBERS, range="min(range)", by="")
            )
            cursor.execute(of_period, parameters)
        if len(edges) > 2 or not cursor.rowcount:  # noqa: PLR2004
            cursor.execute(_MEMBERS.format(seen=_SERIES_MEMBERS, range="min(range)", by=""), parameters)
        for question, label, range_, members in cursor.fetchall():
            answers[question][range_ - asked[question].first][label] = members
    return answers


def _are_lone(asked: Sequence[Asked]) -> bool:
    """Whether each label is one set, in which no member comes twice."""
    return all(len(set(one.labels.values())) == len(one.labels) for one in asked)


def distinct(
    customer: Customer, *, edges: Sequence[datetime], meter_id: int, labels: Mapping[int, int]
) -> list[dict[int, int]]:
    """How many different members each label has in each range."""
    asked = [Asked(meter_id, 0, len(edges) - 1, labels)]
    answer: list[dict[int, int]] = [{} for _ in edges[1:]]
    with connection.cursor() as cursor:
        query = _MEMBERS.format(seen=_SERIES_MEMBERS, range="range", by=", range")
        cursor.execute(query, columns(customer, edges) | _labels(asked))
        for _, label, range_, members in cursor.fetchall():
            answer[range_][label] = members
    return answer


def _labels(asked: Sequence[Asked]) -> dict[str, Any]:
    rows = [(n, one, set_id, label) for n, one in enumerate(asked) for set_id, label in one.labels.items()]
    return {
        "meters": sorted({one.meter_id for one in asked}),
        "asked": [number for number, *_ in rows],
        "firsts": [one.first for _, one, *_ in rows],
        "lasts": [one.end for _, one, *_ in rows],
        "of_meters": [one.meter_id for _, one, *_ in rows],
        "sets": [set_id for *_, set_id, _ in rows],
        "labels": [label for *_, label in rows],
    }


_MEMBERS: Final = """
WITH asked AS (
    SELECT * FROM unnest(%(asked)s::int[], %(firsts)s::int[], %(lasts)s::int[],
                         %(of_meters)s::bigint[], %(sets)s::bigint[], %(labels)s::int[])
        AS asked (number, first_range, end_range, meter_id, dimension_set_id, label)
), seen AS ({seen}), counted AS (
    SELECT number, label, member, {range} AS range
    FROM seen JOIN asked USING (meter_id, dimension_set_id)
    WHERE range >= first_range AND range < end_range
    GROUP BY number, label, member{by}
)
SELECT number, label, range, count(*) FROM counted GROUP BY number, label, range
"""
_LONE_SETS: Final = """
SELECT number, label, 0, members
FROM unnest(%(asked)s::int[], %(of_meters)s::bigint[], %(sets)s::bigint[], %(labels)s::int[])
    AS asked (number, meter_id, dimension_set_id, label)
JOIN billing_trackedperiod AS period ON period.customer_id = %(customer)s
    AND ARRAY[period.starts_at, period.ends_at] = %(edges)s::timestamptz[]
JOIN billing_periodtotal AS total ON total.period_id = period.id AND total.meter_id = asked.meter_id
    AND total.dimension_set_id = asked.dimension_set_id AND total.members > 0
"""
_SERIES_MEMBERS: Final = f"""{RUNS}
    SELECT width_bucket(day::timestamp AT TIME ZONE 'UTC', %(edges)s::timestamptz[]) - 1 AS range,
           meter_id, dimension_set_id, member
    FROM day_runs JOIN billing_daymember ON customer_id = %(customer)s AND meter_id = ANY(%(meters)s::bigint[])
        AND day >= first_day AND day < end_day AND events > 0
    UNION ALL
    SELECT width_bucket(bucket.starts_at, %(edges)s::timestamptz[]) - 1, meter_id, dimension_set_id, member
    FROM quarter_runs AS run
    JOIN billing_bucketmember AS bucket ON customer_id = %(customer)s AND meter_id = ANY(%(meters)s::bigint[])
        AND bucket.starts_at >= run.starts_at AND bucket.starts_at < run.ends_at AND events > 0
"""  # noqa: S608 -- the parts are ours
_PERIOD_MEMBERS: Final = """
    SELECT 0 AS range, meter_id, dimension_set_id, member
    FROM billing_trackedperiod AS period JOIN billing_periodmember ON period_id = period.id
    WHERE period.customer_id = %(customer)s
        AND ARRAY[period.starts_at, period.ends_at] = %(edges)s::timestamptz[]
        AND meter_id = ANY(%(meters)s::bigint[]) AND events > 0
"""
