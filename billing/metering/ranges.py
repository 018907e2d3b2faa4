"""Ranges of time as the counters hold them: days, and quarter hours."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from accounts.models import Customer
from billing.periods import starts_on_quarter

# Whole days, and as quarter hours what is no whole day, and what days do not hold yet. Of one customer.
RUNS: Final = """
WITH day_runs AS (
    SELECT * FROM unnest(%(first_days)s::date[], %(end_days)s::date[]) AS run (first_day, end_day)
), quarter_runs AS (
    SELECT * FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS run (starts_at, ends_at)
    UNION ALL
    SELECT greatest(first_day::timestamp AT TIME ZONE 'UTC', before), end_day::timestamp AT TIME ZONE 'UTC'
    FROM day_runs JOIN (
        SELECT coalesce((SELECT summed_before FROM billing_watermark WHERE customer_id = %(customer)s), '-infinity')
    ) AS summed (before) ON before < end_day::timestamp AT TIME ZONE 'UTC'
)"""

_DAY: Final = timedelta(days=1)


def columns(customer: Customer, edges: Sequence[datetime]) -> dict[str, Any]:
    """The parameters of `RUNS`, and the edges."""
    assert all(starts_on_quarter(edge) for edge in edges), "counters know quarter hours only"
    days, quarters = pieces(edges)
    return {
        "customer": customer.pk,
        "edges": list(edges),
        "first_days": [first for first, _ in days],
        "end_days": [end for _, end in days],
        "starts": [start for start, _ in quarters],
        "ends": [end for _, end in quarters],
    }


def pieces(edges: Sequence[datetime]) -> tuple[list[tuple[date, date]], list[tuple[datetime, datetime]]]:
    """Cut the ranges into runs of whole UTC days and runs of quarter hours. Neighbouring runs are joined."""
    days: list[tuple[date, date]] = []
    quarters: list[tuple[datetime, datetime]] = []
    for start, end in pairwise(edges):
        first, last = _midnight_from(start), _midnight_before(end)
        if first < last:
            _add(days, first.date(), last.date())
            _add(quarters, start, first)
            _add(quarters, last, end)
        else:
            _add(quarters, start, end)
    return days, quarters


def _midnight_before(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _midnight_from(instant: datetime) -> datetime:
    midnight = _midnight_before(instant)
    return midnight if midnight == instant else midnight + _DAY


def _add[T: (date, datetime)](runs: list[tuple[T, T]], start: T, end: T) -> None:
    if start >= end:
        return
    if runs and runs[-1][1] == start:
        runs[-1] = (runs[-1][0], end)
    else:
        runs.append((start, end))
