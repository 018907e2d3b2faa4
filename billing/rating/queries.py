"""What usage costs: the lines of a period, what they grew by in its segments, and series.

Each takes a fixed number of queries, however many prices, dimension values, buckets or events there are, and three more
where a plan version is a draft or was not read before by this process.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from accounts.models import Customer
from billing.metering import uniques
from billing.metering.models import Aggregation, Meter
from billing.metering.queries import MeterTotal, series_totals, totals
from billing.metering.uniques import Asked
from billing.money import CONTEXT, ZERO
from billing.periods import Interval
from billing.pricing.models import Price, PriceOverride
from billing.pricing.queries import PriceTerms, overrides, phases, placed, terms_by_version
from billing.pricing.schemes import Dimensions, Rated, Row
from billing.rating.core import Growth, LineKey, Measure, Newcomers, Segment, Tally
from billing.subscriptions.models import BillingPeriod, PlanSegment
from billing.subscriptions.proration import free, shared
from billing.subscriptions.queries import segments_between, segments_of

type Group = tuple[str | None, ...]  # the values of `group_by`, in its order

_NAMES: Final = ("price", "meter")  # what may be grouped by and filtered on beside dimensions
_EVERYTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """Rated usage of one row of a price in a plan segment: row 0 is the default, row n the nth match row. `terms` is
    what the row says at its end."""

    segment: PlanSegment
    price: Price
    meter: Meter
    row: int
    unit: str
    quantity: Decimal
    events: int
    terms: Row
    rated: Rated

    @property
    def period(self) -> BillingPeriod:
        return self.segment.period

    @property
    def amount(self) -> Decimal:
        """In `unit`, 12 places; rounded to the unit's own places only where it is invoiced."""
        return self.rated.amount

    @property
    def key(self) -> LineKey:
        return _line_key(self.segment, self.price, self.row, self.meter)


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """What a group used and cost in [start, end). `quantity` is None where the row spans meters, and in spend where
    its meter does not add up: see `usage_series`."""

    start: datetime
    end: datetime
    group: Mapping[str, str | None]
    quantity: Decimal | None
    amount: Decimal


@dataclass(frozen=True, slots=True)
class UsageSeries:
    """Usage of one meter; `amount_unit` is None where it has no price, or prices in several units. `total` is that of
    the whole range: only where the meter is additive it is the sum of the rows."""

    amount_unit: str | None
    total: Decimal
    rows: list[SeriesRow]


def lines(period: BillingPeriod, *, through: datetime | None = None) -> list[Line]:
    """The lines from the period's start through that quarter hour (default: its end). Three queries, and two more
    where a price has a unique meter.

    Plan segment by plan segment, and price by price in the order of the plan version, default row first. The default
    row of each price is there without usage too, because its first tier may cost something.
    """
    end = period.ends_at if through is None else through
    priced = priced_in(one for one in segments_of(period) if one.starts_at < end)
    return lines_of(period.customer, priced, starts_at=period.starts_at, ends_at=end)


def lines_of(
    customer: Customer,
    priced: Sequence[tuple[PlanSegment, PriceTerms]],
    *,
    starts_at: datetime,
    ends_at: datetime,
) -> list[Line]:
    """The lines of prices in plan segments within [starts_at, ends_at), also of such as the customer does not have."""
    cuts = cuts_between([starts_at, ends_at], priced)
    rated = [_rated(segment, item, _whole, cuts) for segment, item in priced]
    found: list[Line] = []
    for (segment, item, tally, _, _), stretches in _stretches(customer, cuts, rated):
        for stretch in stretches:
            tally.add(*stretch)
        found += [
            Line(
                segment=segment,
                price=item.price,
                meter=item.meter,
                row=row,
                unit=item.terms.unit,
                quantity=used.quantity,
                events=used.events,
                terms=tally.terms.rows[row],
                rated=tally.rated(row),
            )
            for row, used in sorted(tally.rows.items())
        ]
    return found


def tallied(segment: PlanSegment, item: PriceTerms) -> Tally[None]:
    """The usage of one price in a plan segment so far. One query, and two more for a unique meter."""
    cuts = cuts_between([segment.starts_at, segment.ends_at], [(segment, item)])
    [(rated, stretches)] = _stretches(segment.period.customer, cuts, [_rated(segment, item, _whole, cuts)])
    for stretch in stretches:
        rated.tally.add(*stretch)
    return rated.tally


def segments(period: BillingPeriod, cuts: Sequence[datetime]) -> list[Segment]:
    """What each line grew by between the cuts, which begin with the period's start, and between the changes of plan.
    Queries as in `lines`."""
    priced = priced_in(one for one in segments_of(period) if one.starts_at < cuts[-1])
    cuts = cuts_between(cuts, priced)
    found: list[dict[LineKey, Decimal]] = [{} for _ in cuts[1:]]
    rated = [_rated(segment, item, _whole, cuts) for segment, item in priced]
    for (segment, item, tally, begin, end), stretches in _stretches(period.customer, cuts, rated):
        for amounts, stretch in zip(found[begin:end], stretches, strict=True):
            for growth in tally.grow(*stretch):
                amounts[_line_key(segment, item.price, growth.row, item.meter)] = growth.amount
    return [Segment(start, end, amounts) for (start, end), amounts in zip(pairwise(cuts), found, strict=True)]


def _line_key(segment: PlanSegment, price: Price, row: int, meter: Meter) -> LineKey:
    return LineKey((price.pk, row, segment.pk, segment.period_id), price.unit, meter.key)


def _whole(dimensions: Dimensions) -> None:
    """Everything in one group."""


# --- series -------------------------------------------------------------------------------------------------


def growths[G: Hashable](
    customer: Customer,
    priced: Sequence[tuple[PlanSegment, PriceTerms]],
    edges: Sequence[datetime],
    groups: Iterable[Callable[[Dimensions], G]],
) -> Iterator[tuple[PlanSegment, PriceTerms, datetime, Growth[G]]]:
    """Price by price, what the groups of its rows grew by from each cut to the next: those of `cuts_between`.

    `groups` sort the dimension values of each price. What was used in a plan segment before the first edge is there
    too. One query, and two more where a price has a unique meter.
    """
    between = cuts_between(edges, priced)
    rated = [_rated(segment, item, group, between) for (segment, item), group in zip(priced, groups, strict=True)]
    for (segment, item, tally, begin, end), stretches in _stretches(customer, between, rated):
        for cut, stretch in zip(between[begin:end], stretches, strict=True):
            for growth in tally.grow(*stretch):
                yield segment, item, cut, growth


def rated_series(
    customer: Customer,
    *,
    edges: Sequence[datetime],
    unit: str,
    group_by: Sequence[str] = (),
    filters: Mapping[str, str] = _EVERYTHING,
    within: Collection[int] | None = None,
) -> list[SeriesRow]:
    """Rated usage in `unit` in each [edges[i], edges[i + 1]), which rise and lie on quarter hours. Five queries.

    `group_by` and the keys of `filters` name dimensions, `price` or `meter`; `within` are ids of the only billing
    periods that count. Rows add up exactly to the lines of the
    periods they cover, group by group, whatever the edges. Without `group_by` every bucket has a row; with it only
    those where something happened. Usage outside every billing period is unpriced and not in it.
    """
    series = _Series(edges, group_by, filters)
    priced = [
        (segment, item)
        for segment, item in _priced(customer, edges, filters)
        if item.terms.unit == unit and (within is None or segment.period_id in within)
    ]
    series.add_rated(customer, priced)
    meters = {item.meter.pk for _, item in priced}
    return series.rows(spans_meters=len(meters) > 1 and set(_NAMES).isdisjoint(group_by))


def rated_by_meter(customer: Customer, *, edges: Sequence[datetime]) -> list[SeriesRow]:
    """As `rated_series`, in every unit: rows by `unit` and `meter`."""
    series = _Series(edges, ("unit", "meter"), _EVERYTHING)
    priced = _priced(customer, edges, _EVERYTHING)
    series.add_rated(customer, priced, names=lambda item: {"unit": item.terms.unit, "meter": item.meter.key})
    return series.rows()


def usage_series(
    customer: Customer,
    meter: Meter,
    *,
    edges: Sequence[datetime],
    group_by: Sequence[str] = (),
    filters: Mapping[str, str] = _EVERYTHING,
) -> UsageSeries:
    """Usage of a meter in each [edges[i], edges[i + 1]), priced or not, with what it cost. Six queries, and four
    more for a unique meter.

    `group_by` and `filters` name dimensions. Rows as in `rated_series`; each quantity is that of its group in its
    bucket alone. Amounts are what each bucket adds to the billing period, so they add up whatever the meter.
    """
    series = _Series(edges, group_by, filters)
    priced = _priced(customer, edges, {**filters, "meter": meter.key})
    units = {item.terms.unit for _, item in priced}
    unit = units.pop() if len(units) == 1 else None
    if unit is not None:
        series.add_rated(customer, priced, quantities=False)
    total = series.add_counted(customer, meter)
    return UsageSeries(unit, total, series.rows())


def _priced(
    customer: Customer, edges: Sequence[datetime], filters: Mapping[str, str]
) -> list[tuple[PlanSegment, PriceTerms]]:
    """The prices that the question is about, in each plan segment that it touches."""
    return [
        (segment, item)
        for segment, item in priced_between(customer, starts_at=edges[0], ends_at=edges[-1])
        if filters.get("price", item.price.key) == item.price.key
        and filters.get("meter", item.meter.key) == item.meter.key
    ]


def priced_between(
    customer: Customer, *, starts_at: datetime, ends_at: datetime
) -> list[tuple[PlanSegment, PriceTerms]]:
    """The prices that hold at some time in [starts_at, ends_at), as they are in their plan segment. Four queries."""
    return priced_in(segments_between(customer, starts_at, ends_at))


def priced_in(found: Iterable[PlanSegment]) -> list[tuple[PlanSegment, PriceTerms]]:
    """The prices of a customer's plan segments, as they are there: with what was agreed with the customer, in
    proportion, and free in a trial."""
    found = list(found)
    by_version = terms_by_version({segment.version for segment in found})
    agreed = overrides(found[0].period.customer_id) if found else {}
    return [
        (segment, terms_in(segment, item, placed(item.price, agreed.get(item.price.pk, ()))))
        for segment in found
        for item in by_version[segment.version_id]
    ]


def terms_in(segment: PlanSegment, item: PriceTerms, agreed: Sequence[tuple[int, PriceOverride]]) -> PriceTerms:
    """A price as it is in a plan segment, with the amounts that were agreed for its rows."""
    (_, first), *later = [
        (starts_at, free(terms) if segment.is_trial else shared(terms, segment.share))
        for starts_at, terms in phases(item.terms, agreed, Interval(segment.starts_at, segment.ends_at))
    ]
    return PriceTerms(item.price, item.meter, first, tuple(later))


def _price_and_meter(item: PriceTerms) -> Mapping[str, str]:
    return {"price": item.price.key, "meter": item.meter.key}


@dataclass(slots=True)
class _Cell:
    """A bucket of a group. `is_measured` while every quantity in it could be joined with the others."""

    measure: Measure = field(default_factory=Measure)
    amount: Decimal = ZERO
    is_measured: bool = True


class _Series:
    """Sums by bucket and group while they are added up."""

    def __init__(self, edges: Sequence[datetime], group_by: Sequence[str], filters: Mapping[str, str]) -> None:
        self.edges, self.group_by = edges, group_by
        self._wanted = [(name, value) for name, value in filters.items() if name not in _NAMES]
        self.cells: dict[tuple[int, Group], _Cell] = {}
        if not group_by:
            self.cells = {(index, ()): _Cell() for index in range(len(edges) - 1)}

    def add_rated(
        self,
        customer: Customer,
        priced: Sequence[tuple[PlanSegment, PriceTerms]],
        *,
        quantities: bool = True,
        names: Callable[[PriceTerms], Mapping[str, str]] = _price_and_meter,
    ) -> None:
        """Add what grew inside the range, price by price from the start of each plan segment on."""
        groups = [partial(self._group, names(item)) for _, item in priced]
        for _, item, cut, growth in growths(customer, priced, self.edges, groups):
            # Before the range (-1) it only matters what has been used up: tiers, included quantity.
            cell = self._cell(bisect_right(self.edges, cut) - 1, growth.group)
            if cell is not None:
                cell.amount = CONTEXT.add(cell.amount, growth.amount)
                cell.is_measured &= item.meter.is_additive or not quantities
                cell.measure.add(growth.quantity if quantities else ZERO)

    def add_counted(self, customer: Customer, meter: Meter) -> Decimal:
        """Add what each group used in each bucket; answers what all of them used in the whole range."""
        whole, groups = Measure(), dict[int, Group]()
        for index, counted in enumerate(series_totals(customer, edges=self.edges, meter_ids=[meter.pk])):
            for item in counted:
                group = self._group({}, item.dimensions)
                cell = self._cell(index, group)
                if cell is not None and group is not None:
                    groups[item.set_id] = group
                    cell.measure.add(item.quantity, item.rank)
                    whole.add(item.quantity, item.rank)
        if meter.aggregation == Aggregation.UNIQUE:
            self._add_members(customer, meter, groups)
            asked = Asked(meter.pk, 0, 1, dict.fromkeys(groups, 0))
            [[members]] = uniques.newcomers(customer, edges=[self.edges[0], self.edges[-1]], asked=[asked])
            whole.add(Decimal(members.get(0, 0)))
        return whole.quantity

    def _add_members(self, customer: Customer, meter: Meter, groups: Mapping[int, Group]) -> None:
        labels = _Labels[Group]()
        numbers = {set_id: labels.number(group) for set_id, group in groups.items()}
        found = uniques.distinct(customer, edges=self.edges, meter_id=meter.pk, labels=numbers)
        for index, members in enumerate(found):
            for label, number in members.items():
                self.cells[index, labels.of[label]].measure.add(Decimal(number))

    def rows(self, *, spans_meters: bool = False) -> list[SeriesRow]:
        return [
            SeriesRow(
                start=self.edges[index],
                end=self.edges[index + 1],
                group=dict(zip(self.group_by, group, strict=True)),
                quantity=cell.measure.quantity if cell.is_measured and not spans_meters else None,
                amount=cell.amount,
            )
            for (index, group), cell in sorted(self.cells.items(), key=_by_time_then_group)
        ]

    def _cell(self, index: int, group: Group | None) -> _Cell | None:
        if index < 0 or group is None:
            return None
        return self.cells.get((index, group)) or self.cells.setdefault((index, group), _Cell())

    def _group(self, names: Mapping[str, str], dimensions: Dimensions) -> Group | None:
        """The group of these dimension values; None for what the filters leave out."""
        if self._wanted and any(dimensions.get(name) != value for name, value in self._wanted):
            return None
        return tuple(names[name] if name in names else dimensions.get(name) for name in self.group_by)


def _by_time_then_group(entry: tuple[tuple[int, Group], _Cell]) -> tuple[int, list[tuple[bool, str]]]:
    (index, group), _ = entry
    return index, [(value is None, value or "") for value in group]


# --- counters -----------------------------------------------------------------------------------------------


class _Rated[G: Hashable](NamedTuple):
    """A price of a plan segment that is tallied in the ranges [begin, end) of a series."""

    segment: PlanSegment
    item: PriceTerms
    tally: Tally[G]
    begin: int
    end: int


def cuts_between(edges: Sequence[datetime], priced: Iterable[tuple[PlanSegment, PriceTerms]]) -> list[datetime]:
    """The edges, and where plan segments begin and end, and amounts change within them, before the last edge."""
    last = edges[-1]
    bounds = {cut for one, _ in priced for cut in (one.starts_at, min(one.ends_at, last))}
    return sorted({*edges, *bounds, *(cut for _, item in priced for cut, _ in item.changes if cut < last)})


def _rated[G: Hashable](
    segment: PlanSegment, item: PriceTerms, group_of: Callable[[Dimensions], G], cuts: Sequence[datetime]
) -> _Rated[G]:
    begin, end = (bisect_left(cuts, at) for at in (segment.starts_at, min(segment.ends_at, cuts[-1])))
    changes = {bisect_left(cuts, at) - begin: terms for at, terms in item.changes if at < cuts[-1]}
    return _Rated(segment, item, Tally(item.terms, group_of, changes), begin, end)


type _Stretch[G: Hashable] = tuple[list[MeterTotal], Newcomers[G] | None]  # what a tally takes


def _stretches[G: Hashable](
    customer: Customer, cuts: Sequence[datetime], rated: Sequence[_Rated[G]]
) -> Iterator[tuple[_Rated[G], list[_Stretch[G]]]]:
    """Each price with its meter's usage in each of its ranges, all read at once."""
    usage = _usage(customer, cuts, {one.item.meter.pk for one in rated})
    unique = [one for one in rated if one.item.meter.aggregation == Aggregation.UNIQUE]
    newcomers = dict(zip(map(id, unique), _newcomers(customer, cuts, usage, unique), strict=True))
    for one in rated:
        counted = [stretch[one.item.meter.pk] for stretch in usage[one.begin : one.end]]
        found: Sequence[Newcomers[G] | None] = newcomers.get(id(one)) or [None] * len(counted)
        yield one, list(zip(counted, found, strict=True))


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


class _Labels[T: Hashable]:
    """Numbers things, for the database."""

    def __init__(self) -> None:
        self.of: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, thing: T) -> int:
        if thing not in self._numbers:
            self._numbers[thing] = len(self.of)
            self.of.append(thing)
        return self._numbers[thing]


def _newcomers[G: Hashable](
    customer: Customer,
    cuts: Sequence[datetime],
    usage: Sequence[Mapping[int, list[MeterTotal]]],
    unique: Sequence[_Rated[G]],
) -> list[list[Newcomers[G]]]:
    """Per price of a unique meter and per range: the members that its rows and groups had not before."""
    if not unique:
        return []
    rows, groups, asked = _Labels[int](), _Labels[tuple[int, G]](), list[Asked]()
    answers: list[tuple[int, int]] = []  # which question tells of the rows, and which of the groups
    for _, item, tally, begin, end in unique:
        sets = {one.set_id: one for stretch in usage[begin:end] for one in stretch[item.meter.pk]}
        places = {set_id: tally.place(one.dimensions) for set_id, one in sets.items()}
        by_row = {set_id: rows.number(row) for set_id, (row, _) in places.items()}
        by_group = {set_id: groups.number(place) for set_id, place in places.items()}
        asked.append(Asked(item.meter.pk, begin, end, by_group))
        if len(set(by_row.values())) < len(set(by_group.values())):
            asked.append(Asked(item.meter.pk, begin, end, by_row))
            answers.append((len(asked) - 1, len(asked) - 2))
        else:
            answers.append((len(asked) - 1, len(asked) - 1))
    found = uniques.newcomers(customer, edges=cuts, asked=asked)
    return [
        [
            Newcomers(
                {rows.of[label] if apart else groups.of[label][0]: n for label, n in in_rows.items()},
                {groups.of[label]: n for label, n in in_groups.items()},
            )
            for in_rows, in_groups in zip(found[of_rows], found[of_groups], strict=True)
        ]
        for of_rows, of_groups in answers
        for apart in [of_rows != of_groups]
    ]
