"""What usage costs: the lines of a period, what they grew by in its segments, and series.

Each takes a fixed number of queries, however many prices, dimension values, buckets or events there are.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Final

from accounts.models import Customer
from billing.metering.models import Meter
from billing.metering.queries import MeterTotal, series_totals, totals
from billing.money import CONTEXT, ZERO
from billing.pricing.models import Price
from billing.pricing.queries import PriceTerms, terms, terms_by_version
from billing.pricing.schemes import Dimensions, Rated
from billing.rating.core import LineKey, Segment, Tally
from billing.subscriptions.models import BillingPeriod
from billing.subscriptions.queries import periods

type Group = tuple[str | None, ...]  # the values of `group_by`, in its order

_NAMES: Final = ("price", "meter")  # what may be grouped by and filtered on beside dimensions
_EVERYTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """Rated usage of one row of a price in a billing period: row 0 is the default, row n the nth match row."""

    period: BillingPeriod
    price: Price
    meter: Meter
    row: int
    unit: str
    quantity: Decimal
    events: int
    rated: Rated

    @property
    def amount(self) -> Decimal:
        """In `unit`, 12 places; rounded to the unit's own places only where it is invoiced."""
        return self.rated.amount

    @property
    def key(self) -> LineKey:
        return _line_key(self.period, self.price, self.row, self.meter)


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """What a group used and cost in [start, end). `quantity` is None where the row spans meters."""

    start: datetime
    end: datetime
    group: Mapping[str, str | None]
    quantity: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """Usage of one meter; `amount_unit` is None where it has no price, or prices in several units."""

    amount_unit: str | None
    rows: list[SeriesRow]


def lines(period: BillingPeriod, *, through: datetime | None = None) -> list[Line]:
    """The lines from the period's start through that quarter hour (default: its end). Three queries.

    Price by price in the order of the plan version, default row first. The default row of each price is there
    without usage too, because its first tier may cost something.
    """
    priced = terms(period.version)
    end = period.ends_at if through is None else through
    [usage] = _usage(period.customer, [period.starts_at, end], _meters(priced))
    found: list[Line] = []
    for item in priced:
        tally = Tally(item.terms, _whole)
        tally.add(usage[item.meter.pk])
        found += [
            Line(period, item.price, item.meter, row, item.terms.unit, used.quantity, used.events, tally.rated(row))
            for row, used in sorted(tally.rows.items())
        ]
    return found


def segments(period: BillingPeriod, cuts: Sequence[datetime]) -> list[Segment]:
    """What each line grew by between the cuts, which begin with the period's start. Three queries."""
    priced = terms(period.version)
    usage = _usage(period.customer, cuts, _meters(priced))
    found: list[dict[LineKey, Decimal]] = [{} for _ in usage]
    for item in priced:
        tally = Tally(item.terms, _whole)
        for amounts, counted in zip(found, usage, strict=True):
            for growth in tally.grow(counted[item.meter.pk]):
                amounts[_line_key(period, item.price, growth.row, item.meter)] = growth.amount
    return [Segment(start, end, amounts) for (start, end), amounts in zip(pairwise(cuts), found, strict=True)]


def _line_key(period: BillingPeriod, price: Price, row: int, meter: Meter) -> LineKey:
    return LineKey((period.pk, price.pk, row), price.unit, meter.key)


def _whole(dimensions: Dimensions) -> None:
    """Everything in one group."""


# --- series -------------------------------------------------------------------------------------------------


def rated_series(
    customer: Customer,
    *,
    edges: Sequence[datetime],
    unit: str,
    group_by: Sequence[str] = (),
    filters: Mapping[str, str] = _EVERYTHING,
) -> list[SeriesRow]:
    """Rated usage in `unit` in each [edges[i], edges[i + 1]), which rise and lie on quarter hours. Four queries.

    `group_by` and the keys of `filters` name dimensions, `price` or `meter`. Rows add up exactly to the lines of the
    periods they cover, group by group, whatever the edges. Without `group_by` every bucket has a row; with it only
    those where something happened. Usage outside every billing period is unpriced and not in it.
    """
    series = _Series(edges, group_by, filters)
    priced = [(period, item) for period, item in _priced(customer, edges, filters) if item.terms.unit == unit]
    series.add_rated(customer, priced)
    spans_meters = len(_meters(item for _, item in priced)) > 1 and set(_NAMES).isdisjoint(group_by)
    return series.rows(spans_meters=spans_meters)


def usage_series(
    customer: Customer,
    meter: Meter,
    *,
    edges: Sequence[datetime],
    group_by: Sequence[str] = (),
    filters: Mapping[str, str] = _EVERYTHING,
) -> UsageSeries:
    """Usage of a meter in each [edges[i], edges[i + 1]), priced or not, with what it cost. Five queries.

    `group_by` and `filters` name dimensions. Rows as in `rated_series`.
    """
    series = _Series(edges, group_by, filters)
    priced = _priced(customer, edges, {**filters, "meter": meter.key})
    units = {item.terms.unit for _, item in priced}
    unit = units.pop() if len(units) == 1 else None
    if unit is not None:
        series.add_rated(customer, priced, quantities=False)
    series.add_counted(series_totals(customer, edges=edges, meter_ids=[meter.pk]))
    return UsageSeries(unit, series.rows())


def _priced(
    customer: Customer, edges: Sequence[datetime], filters: Mapping[str, str]
) -> list[tuple[BillingPeriod, PriceTerms]]:
    """The prices that the question is about, in each billing period that it touches."""
    found = list(periods(customer, starts_at=edges[0], ends_at=edges[-1]))
    by_version = terms_by_version({period.version_id for period in found})
    return [
        (period, item)
        for period in found
        for item in by_version[period.version_id]
        if filters.get("price", item.price.key) == item.price.key
        and filters.get("meter", item.meter.key) == item.meter.key
    ]


@dataclass(slots=True)
class _Sum:
    quantity: Decimal = ZERO
    amount: Decimal = ZERO

    def add(self, quantity: Decimal, amount: Decimal) -> None:
        self.quantity = CONTEXT.add(self.quantity, quantity)
        self.amount = CONTEXT.add(self.amount, amount)


class _Series:
    """Sums by bucket and group while they are added up."""

    def __init__(self, edges: Sequence[datetime], group_by: Sequence[str], filters: Mapping[str, str]) -> None:
        self.edges, self.group_by, self.filters = edges, group_by, filters
        self.sums: dict[tuple[int, Group], _Sum] = {}
        if not group_by:
            self.sums = {(index, ()): _Sum() for index in range(len(edges) - 1)}

    def add_rated(
        self, customer: Customer, priced: Sequence[tuple[BillingPeriod, PriceTerms]], *, quantities: bool = True
    ) -> None:
        """Add what grew inside the range, price by price from the start of each period on."""
        last = self.edges[-1]
        bounds = {cut for period, _ in priced for cut in (period.starts_at, min(period.ends_at, last))}
        cuts = sorted({*self.edges, *bounds})
        usage = _usage(customer, cuts, _meters(item for _, item in priced))
        for period, item in priced:
            names = {"price": item.price.key, "meter": item.meter.key}
            tally = Tally(item.terms, partial(self._group, names))
            begin, end = bisect_left(cuts, period.starts_at), bisect_left(cuts, min(period.ends_at, last))
            for cut, counted in zip(cuts[begin:end], usage[begin:end], strict=True):
                # Before the range (-1) it only matters what has been used up: tiers, included quantity.
                index = bisect_right(self.edges, cut) - 1
                for growth in tally.grow(counted[item.meter.pk]):
                    self._add(index, growth.group, growth.quantity if quantities else ZERO, growth.amount)

    def add_counted(self, usage: Iterable[Iterable[MeterTotal]]) -> None:
        """Add the quantities of each bucket."""
        for index, counted in enumerate(usage):
            for item in counted:
                self._add(index, self._group({}, item.dimensions), item.quantity, ZERO)

    def rows(self, *, spans_meters: bool = False) -> list[SeriesRow]:
        return [
            SeriesRow(
                start=self.edges[index],
                end=self.edges[index + 1],
                group=dict(zip(self.group_by, group, strict=True)),
                quantity=None if spans_meters else item.quantity,
                amount=item.amount,
            )
            for (index, group), item in sorted(self.sums.items(), key=_by_time_then_group)
        ]

    def _add(self, index: int, group: Group | None, quantity: Decimal, amount: Decimal) -> None:
        if index >= 0 and group is not None:
            self.sums.setdefault((index, group), _Sum()).add(quantity, amount)

    def _group(self, names: Mapping[str, str], dimensions: Dimensions) -> Group | None:
        """The group of these dimension values; None for what the filters leave out."""
        if any(dimensions.get(name) != value for name, value in self.filters.items() if name not in _NAMES):
            return None
        return tuple(names[name] if name in names else dimensions.get(name) for name in self.group_by)


def _by_time_then_group(entry: tuple[tuple[int, Group], _Sum]) -> tuple[int, list[tuple[bool, str]]]:
    (index, group), _ = entry
    return index, [(value is None, value or "") for value in group]


# --- counters -----------------------------------------------------------------------------------------------


def _meters(priced: Iterable[PriceTerms]) -> set[int]:
    return {item.meter.pk for item in priced}


def _usage(
    customer: Customer, cuts: Sequence[datetime], meter_ids: Collection[int]
) -> list[Mapping[int, list[MeterTotal]]]:
    """Usage between the cuts, by meter. One stretch that is a tracked period is read from its kept totals."""
    if len(cuts) == 2:  # noqa: PLR2004 -- a start and an end
        counted = [totals(customer, starts_at=cuts[0], ends_at=cuts[1], meter_ids=meter_ids)]
    else:
        counted = series_totals(customer, edges=cuts, meter_ids=meter_ids)
    return [_by_meter(items) for items in counted]


def _by_meter(counted: Iterable[MeterTotal]) -> Mapping[int, list[MeterTotal]]:
    found: dict[int, list[MeterTotal]] = defaultdict(list)
    for item in counted:
        found[item.meter_id].append(item)
    return found
