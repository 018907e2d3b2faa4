"""Usage of many customers, read in one query ahead of the questions about each. Only inside `reads.shared`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connection

from billing.metering.folding import MERGED
from billing.metering.queries import MeterTotal, as_total
from billing.metering.ranges import pieces
from billing.reads import remember


def read_series_ahead(asked: Sequence[tuple[int, Sequence[datetime]]]) -> None:
    """Read the usage of all meters between these edges, (customer id, edges), in one query, so that neither
    `queries.series_totals` nor `queries.totals` need ask for each."""
    series: list[list[list[MeterTotal]]] = [[[] for _ in edges[1:]] for _, edges in asked]
    with connection.cursor() as cursor:
        cursor.execute(_SERIES, _runs(asked))
        for place, index, *row in cursor.fetchall():
            series[place][index].append(as_total(row))
    for (customer_id, edges), found in zip(asked, series, strict=True):
        remember([(("series", customer_id, *edges), found)])
        if len(found) == 1:
            remember([(("totals", customer_id, *edges), found[0])])


def _runs(asked: Sequence[tuple[int, Sequence[datetime]]]) -> dict[str, list[Any]]:
    """Whole days and quarter hours of each range, as columns; a range is named by its place and its number."""
    days: list[tuple[Any, ...]] = []
    quarters: list[tuple[Any, ...]] = []
    for place, (customer_id, edges) in enumerate(asked):
        for index in range(len(edges) - 1):
            of_days, of_quarters = pieces(edges[index : index + 2])
            days += [(customer_id, place, index, *run) for run in of_days]
            quarters += [(customer_id, place, index, *run) for run in of_quarters]
    return {
        f"{kind}_{name}": [run[column] for run in runs]
        for kind, runs in (("day", days), ("quarter", quarters))
        for column, name in enumerate(("customers", "places", "indexes", "starts", "ends"))
    }


# As `ranges.RUNS`, of many customers.
_SERIES: Final = f"""
WITH day_run AS (
    SELECT *
    FROM unnest(%(day_customers)s::bigint[], %(day_places)s::integer[], %(day_indexes)s::integer[],
                %(day_starts)s::date[], %(day_ends)s::date[]) AS run (customer, place, index, starts, ends)
), quarter_run AS (
    SELECT *
    FROM unnest(%(quarter_customers)s::bigint[], %(quarter_places)s::integer[], %(quarter_indexes)s::integer[],
                %(quarter_starts)s::timestamptz[], %(quarter_ends)s::timestamptz[])
        AS run (customer, place, index, starts, ends)
    UNION ALL
    SELECT customer, place, index,
           greatest(starts::timestamp AT TIME ZONE 'UTC', summed_before), ends::timestamp AT TIME ZONE 'UTC'
    FROM day_run LEFT JOIN billing_watermark ON customer_id = customer
    WHERE coalesce(summed_before, '-infinity') < ends::timestamp AT TIME ZONE 'UTC'
), counted AS (
    SELECT place, index, meter_id, dimension_set_id, quantity, events, rank
    FROM day_run CROSS JOIN billing_meter AS meter
    JOIN billing_usageday ON customer_id = customer AND meter_id = meter.id AND day >= starts AND day < ends
    UNION ALL
    SELECT place, index, meter_id, dimension_set_id, quantity, events, rank
    FROM quarter_run CROSS JOIN billing_meter AS meter
    JOIN billing_usagebucket ON customer_id = customer AND meter_id = meter.id
        AND starts_at >= starts AND starts_at < ends
), summed AS (
    SELECT place, index, meter_id, dimension_set_id,
           {MERGED} AS quantity, sum(events)::bigint AS events, max(rank) AS rank
    FROM counted GROUP BY place, index, meter_id, dimension_set_id
)
SELECT place, index, meter_id, dimension_set_id, "values", quantity, events, rank
FROM summed JOIN billing_dimensionset ON id = dimension_set_id
WHERE quantity <> 0 OR events <> 0
ORDER BY place, index, meter_id, dimension_set_id
"""  # noqa: S608 -- the parts are ours
