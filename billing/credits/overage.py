"""What credits beyond the grants cost, as a series: allocation says how much, the usage says when."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from accounts.models import Customer
from billing.credits.booking import book
from billing.money import ZERO, exact, quantise
from billing.pricing.queries import overage_rates
from billing.rating.core import LineKey
from billing.rating.queries import SeriesRow, segments
from billing.subscriptions.models import BillingPeriod
from billing.subscriptions.queries import periods_between, segments_of

type Rates = Mapping[int, Mapping[str, Decimal]]  # by plan segment and unit: what one of it costs beyond the grants
type Settled = Mapping[datetime, Mapping[LineKey, "_Settled"]]  # by segment and line


@exact()
def overage_rows(
    customer: Customer,
    edges: Sequence[datetime],
    unit: str,
    group_by: Sequence[str],
    filters: Mapping[str, str],
    *,
    within: Collection[int] | None = None,
) -> list[SeriesRow]:
    """Overage in each [edges[i], edges[i + 1]) at the rate of each plan segment's version, where there is any.

    A row's `price` is "overage:<unit>"; it has a meter and no dimensions, so no filter on those lets it pass. Rows
    add up to the overage at its rate, rounded once per line to 12 places, whatever the edges. It need not be posted
    yet, so that budgets also count for a customer that is parked. `within`: ids of the only billing periods that count.
    """
    found = periods_between(customer, edges[0], edges[-1])
    rates = _rates(found, unit)
    if not any(rates.values()):
        return []
    sums: dict[tuple[int, tuple[str | None, ...]], Decimal] = defaultdict(Decimal)
    settled = _settled(customer, found)
    for period in found if within is None else [period for period in found if period.pk in within]:
        for line, starts_at, amount in _costs(period, settled[period.pk], rates, edges):
            index = bisect_right(edges, starts_at) - 1
            names = {"price": f"overage:{line.unit}", "meter": line.meter}
            if 0 <= index < len(edges) - 1 and all(names.get(name) == value for name, value in filters.items()):
                sums[index, tuple(names.get(name) for name in group_by)] += amount
    return [
        SeriesRow(edges[index], edges[index + 1], dict(zip(group_by, group, strict=True)), None, amount)
        for (index, group), amount in sorted(sums.items(), key=lambda item: item[0][0])
        if amount
    ]


def _rates(found: Sequence[BillingPeriod], unit: str) -> Rates:
    """By plan segment: what one of each unit costs beyond the grants, where that is something in this currency."""
    return {
        segment.pk: {one: rate for one, rate in overage_rates(segment.version).items() if rate}
        if segment.version.plan.currency == unit
        else {}
        for period in found
        for segment in segments_of(period)
    }


@dataclass(slots=True)
class _Settled:
    """What grants pay of one line in one segment and what is beyond them, and the usage that was passed so far."""

    paid: Decimal = ZERO
    beyond: Decimal = ZERO
    used: Decimal = ZERO

    def reached(self) -> Decimal:
        """How much of the overage has been used by now: grants pay first, so it is the segment's last usage."""
        low, high = min(self.beyond, ZERO), max(self.beyond, ZERO)
        return min(max(self.used - self.paid, low), high)


def _costs(
    period: BillingPeriod, settled: Settled, rates: Rates, edges: Sequence[datetime]
) -> Iterator[tuple[LineKey, datetime, Decimal]]:
    """Line by line what its overage cost, in stretches that no edge cuts."""
    if not any(item.beyond for segment in settled.values() for line, item in segment.items() if _rate(rates, line)):
        return
    starts = sorted(settled)
    within = [edge for edge in edges if period.starts_at < edge < period.ends_at]
    cuts = sorted({period.starts_at, *starts, *within, period.ends_at})
    quantities: dict[LineKey, Decimal] = defaultdict(Decimal)
    for stretch in segments(period, cuts):
        segment = settled[starts[bisect_right(starts, stretch.starts_at) - 1]] if stretch.starts_at >= starts[0] else {}
        for line, amount in stretch.amounts.items():
            item = segment.get(line)
            if item is None or not (rate := _rate(rates, line)):
                continue
            before = item.reached()
            item.used += amount
            so_far = quantities[line]
            quantities[line] += item.reached() - before
            yield line, stretch.starts_at, quantise(quantities[line] * rate) - quantise(so_far * rate)


def _rate(rates: Rates, line: LineKey) -> Decimal:
    """Of the plan segment that the line is of; zero where there is none."""
    return rates[line.id[2]].get(line.unit, ZERO)


def _settled(customer: Customer, found: Sequence[BillingPeriod]) -> Mapping[int, Settled]:
    """By period, segment and line."""
    settled: dict[int, dict[datetime, dict[LineKey, _Settled]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(_Settled))
    )
    for (line, starts_at, grant), amount in book(customer, found).cells.items():
        item = settled[line.id[-1]][starts_at][line]
        if grant is None:
            item.beyond += amount
        else:
            item.paid += amount
    return settled
