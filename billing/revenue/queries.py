"""What usage earned, what it cost, and what is left of it: by customer, plan version, meter or dimension.

Revenue is by the time of use, net of tax and before coupons and true-ups:

- usage in a currency, at the rated amount; what grants paid of it counts at what they were sold for (cost basis);
- usage in credits, at the cost basis of the grants that paid, and at the plan's overage rate beyond them;
- base fees, evenly over the time they are for. They belong to no meter and no dimension.

Credits that were given (promotional, or with a plan) were sold for nothing: the plan's fee is what they earned.
Only counters are read, by chunks of customers: a fixed number of queries for each, and three more for each customer
with a unique meter. Sandboxes are left out.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import batched
from typing import Final, NamedTuple

from django.db.models import Sum

from accounts.models import Customer
from billing.credits.models import AllocationCell, GrantKind
from billing.credits.statements import Fee
from billing.metering.ahead import read_series_ahead
from billing.metering.models import Meter
from billing.metering.queries import MeterTotal, series_totals
from billing.money import ZERO, is_currency, mul_div
from billing.periods import Interval
from billing.pricing.costs import CostTerms, cost_terms
from billing.pricing.models import PlanVersion
from billing.pricing.queries import PriceTerms, overage_rates, read_overrides_ahead
from billing.pricing.schemes import Dimensions
from billing.rating.core import Growth
from billing.rating.queries import cuts_between, growths, priced_in
from billing.reads import snapshot
from billing.revenue.core import AtCost, Earned, Margin, Uncovered
from billing.subscriptions.models import PlanSegment
from billing.subscriptions.queries import read_periods_ahead, segments_between

CUSTOMER: Final = "customer"
PLAN: Final = "plan"
METER: Final = "meter"
DIMENSION: Final = "dimension:"  # and its name
MOST_GROUPS: Final = 10_000
_CHUNK: Final = 200
_ONE: Final = Decimal(1)


class Group(NamedTuple):
    """What a row is about: the key by which it is known, and its name."""

    key: str
    name: str


FEES: Final = Group("", "Base fees")
REST: Final = Group("", f"beyond the first {MOST_GROUPS:,}")


class Kind(NamedTuple):
    """Usage that lacks a unit cost: of a meter, with these values of the dimensions by which its costs differ."""

    meter_id: int
    values: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class MarginRow:
    """`is_mixed`: the group has amounts in several currencies, and there is no rate between them."""

    group: Group
    currency: str
    sums: Margin
    is_mixed: bool

    @property
    def percent(self) -> Decimal | None:
        return None if self.is_mixed else self.sums.percent


@dataclass(frozen=True, slots=True)
class MissingCost:
    """Usage of a meter, with these dimension values, whose cost nobody said."""

    meter: Meter
    where: Mapping[str, str | None]
    quantity: Decimal
    events: int


@dataclass(frozen=True, slots=True)
class MarginReport:
    """Rows with the lowest margin first; a total for each currency; what lacks a unit cost, the most frequent first."""

    interval: Interval
    rows: Sequence[MarginRow]
    totals: Sequence[MarginRow]
    missing: Sequence[MissingCost]


def margin_report(interval: Interval, *, group_by: str, customer: Customer | None = None) -> MarginReport:
    """What was used in the interval, which lies on quarter hours: of one customer, or of all.

    `group_by`: CUSTOMER, PLAN, METER, or DIMENSION and the name of one. More than `MOST_GROUPS` groups are one.
    """
    meters = Meter.objects.in_bulk()
    report = _Report(interval, group_by, meters, cost_terms(list(meters), interval))
    for some in batched(_customers(customer), _CHUNK):
        with snapshot():
            report.add(some)
    return report.answer()


def _customers(customer: Customer | None) -> Iterator[Customer]:
    found = Customer.objects.filter(test_clock=None) if customer is None else Customer.objects.filter(pk=customer.pk)
    return found.order_by("pk").iterator(_CHUNK)


@dataclass
class _Report:
    """Sums while they are added up, a chunk of customers at a time."""

    interval: Interval
    group_by: str
    meters: Mapping[int, Meter]
    costs: Mapping[int, Sequence[CostTerms]]
    sums: dict[tuple[Group, str], Margin] = field(default_factory=dict)
    uncovered: dict[Kind, Uncovered] = field(default_factory=lambda: defaultdict(Uncovered))

    def __post_init__(self) -> None:
        # By meter: the dimensions by which its costs differ, at some time.
        self.telling = {
            meter_id: sorted({name for one in phases for name in one.dimensions})
            for meter_id, phases in self.costs.items()
        }
        changes = {one.starts_at for terms in self.costs.values() for one in terms}
        self.edges = sorted({self.interval.start, self.interval.end, *changes})

    def add(self, customers: Sequence[Customer]) -> None:
        """Six queries, and one more where a plan version was not read before by this process."""
        ids = [customer.pk for customer in customers]
        read_periods_ahead([(pk, self.interval.start, self.interval.end) for pk in ids])
        read_overrides_ahead(ids)
        parts = [self._part(customer) for customer in customers]
        earned = _earned([segment for part in parts for segment in part.segments])
        for part in parts:
            own = {at for segment in part.segments for at in earned.starts[segment.period_id] if at in self.interval}
            part.edges = sorted({*self.edges, *own})
            part.cuts = cuts_between(part.edges, part.priced)
        read_series_ahead([(part.customer.pk, part.cuts) for part in parts])
        for part in parts:
            self._add_fees(part)
            self._add_costs(part)
            self._add_revenue(part, earned)

    def _part(self, customer: Customer) -> "_Part":
        segments = segments_between(customer, self.interval.start, self.interval.end)
        return _Part(customer, segments, priced_in(segments))

    def _add_fees(self, part: "_Part") -> None:
        for segment in part.segments:
            held = self.interval.clip(Interval(segment.starts_at, segment.ends_at))
            amount = Fee(segment).amount
            if held and amount:
                whole = segment.ends_at - segment.starts_at
                share = mul_div(amount, *(Decimal(int(one.total_seconds())) for one in (held.duration, whole)))
                group = {CUSTOMER: _customer_group(part.customer), PLAN: _plan_group(segment.version)}
                self._sums(group.get(self.group_by, FEES), segment.version.plan.currency).add(Margin(fees=share))

    def _add_costs(self, part: "_Part") -> None:
        at_cost = AtCost[Group, Kind](uncovered=self.uncovered)
        counted = series_totals(part.customer, edges=part.cuts, meter_ids=self.meters.keys())
        for cut, items in zip(part.cuts, counted, strict=False):
            for meter_id, usage in _by_meter(items).items():
                if cut >= self.interval.start and self.meters[meter_id].is_additive:
                    group_of = self._group_of(part.customer, part.version_of(meter_id, cut), meter_id)
                    at_cost.add(self._terms(meter_id, cut), usage, group_of, partial(self._kind, meter_id))
        for (group, currency), amount in at_cost.amounts().items():
            self._sums(group, currency).add(Margin(cost=amount))

    def _add_revenue(self, part: "_Part", earned: "_EarnedByLine") -> None:
        groups = [
            _both(self._group_of(part.customer, segment.version, item.meter.pk), partial(self._kind, item.meter.pk))
            for segment, item in part.priced
        ]
        for segment, item, cut, growth in growths(part.customer, part.priced, part.edges, groups):
            if cut >= self.interval.start and growth.amount:
                group, kind = growth.group
                amount = earned.of(segment, item, growth, cut)
                terms = self._terms(item.meter.pk, cut)
                known = terms is not None and terms.of(dict(kind.values)) is not None
                sums = Margin(usage=amount, without_cost=ZERO if known else amount)
                self._sums(group, segment.version.plan.currency).add(sums)

    def _terms(self, meter_id: int, at: datetime) -> CostTerms | None:
        phases = self.costs.get(meter_id, ())
        index = bisect_right(phases, at, key=lambda one: one.starts_at)
        return phases[index - 1] if index else None

    def _kind(self, meter_id: int, dimensions: Dimensions) -> Kind:
        return Kind(meter_id, tuple((name, dimensions.get(name)) for name in self.telling.get(meter_id, ())))

    def _group_of(
        self, customer: Customer, version: PlanVersion | None, meter_id: int
    ) -> Callable[[Dimensions], Group]:
        match self.group_by:
            case "customer":
                group = _customer_group(customer)
            case "plan":
                group = _plan_group(version)
            case "meter":
                group = Group(self.meters[meter_id].key, self.meters[meter_id].name)
            case _:
                return self._value_group
        return lambda dimensions: group

    def _value_group(self, dimensions: Dimensions) -> Group:
        name = self.group_by.removeprefix(DIMENSION)
        value = dimensions.get(name)
        return Group("", f"without {name}") if value is None else Group(value, value)

    def _sums(self, group: Group, currency: str) -> Margin:
        key = group, currency
        if key not in self.sums and len(self.sums) >= MOST_GROUPS:
            key = REST, currency
        return self.sums.setdefault(key, Margin())

    def answer(self) -> MarginReport:
        currencies: dict[Group, int] = defaultdict(int)
        for group, _ in self.sums:
            currencies[group] += 1
        rows = [
            MarginRow(group, currency, sums, currencies[group] > 1)
            for (group, currency), sums in sorted(self.sums.items(), key=_lowest_first)
        ]
        missing = sorted(self.uncovered.items(), key=lambda item: (-item[1].events, str(item[0])))
        return MarginReport(
            interval=self.interval,
            rows=rows,
            totals=_totals(rows),
            missing=[
                MissingCost(self.meters[kind.meter_id], dict(kind.values), one.quantity, one.events)
                for kind, one in missing
                if one.quantity or one.events
            ],
        )


def _lowest_first(entry: tuple[tuple[Group, str], Margin]) -> tuple[bool, Decimal, Decimal, Group, str]:
    """By share of revenue; what costs and earns nothing comes first of all, fees of no group come last."""
    (group, currency), sums = entry
    percent = sums.percent
    if percent is None:
        percent = Decimal("-Infinity" if sums.margin < 0 else "Infinity")
    return group == FEES, percent, sums.margin, group, currency


def _totals(rows: Sequence[MarginRow]) -> list[MarginRow]:
    by_currency: dict[str, Margin] = {}
    for row in rows:
        by_currency.setdefault(row.currency, Margin()).add(row.sums)
    mixed = {row.currency for row in rows if row.is_mixed}
    return [MarginRow(Group("", "Total"), one, sums, one in mixed) for one, sums in sorted(by_currency.items())]


# --- a customer -------------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """A customer, its plan segments in the interval and their prices. `edges`: of the interval, and where something
    changes in it that no price knows of; `cuts`: those of its usage, from the start of the first plan segment on."""

    customer: Customer
    segments: Sequence[PlanSegment]
    priced: Sequence[tuple[PlanSegment, PriceTerms]]
    edges: Sequence[datetime] = ()
    cuts: Sequence[datetime] = ()

    def version_of(self, meter_id: int, at: datetime) -> PlanVersion | None:
        """On whose account usage of the meter goes: the version that prices it, else that of the oldest plan."""
        for segment, item in self.priced:
            if item.meter.pk == meter_id and segment.starts_at <= at < segment.ends_at:
                return segment.version
        running = [one for one in self.segments if one.starts_at <= at < one.ends_at]
        return min(running, key=lambda one: one.period.subscription_id).version if running else None


def _customer_group(customer: Customer) -> Group:
    return Group(customer.key, customer.name)


def _plan_group(version: PlanVersion | None) -> Group:
    if version is None:
        return Group("", "without a plan")
    return Group(f"{version.plan.key} v{version.number}", str(version))


def _both(
    group_of: Callable[[Dimensions], Group], kind_of: Callable[[Dimensions], Kind]
) -> Callable[[Dimensions], tuple[Group, Kind]]:
    return lambda dimensions: (group_of(dimensions), kind_of(dimensions))


def _by_meter(items: Iterable[MeterTotal]) -> Mapping[int, list[MeterTotal]]:
    found: dict[int, list[MeterTotal]] = defaultdict(list)
    for item in items:
        found[item.meter_id].append(item)
    return found


# --- what lines earned ------------------------------------------------------------------------------------------


@dataclass
class _EarnedByLine:
    """`lines`: by billing period, price and row, and by segment, what was paid for it; `starts`: of the segments."""

    lines: dict[tuple[int, int, int], dict[datetime, Earned]] = field(default_factory=lambda: defaultdict(dict))
    starts: dict[int, list[datetime]] = field(default_factory=lambda: defaultdict(list))

    def of(self, segment: PlanSegment, item: PriceTerms, growth: Growth[tuple[Group, Kind]], at: datetime) -> Decimal:
        """What the growth of a line earned, from `at` on."""
        starts = self.starts[segment.period_id]
        index = bisect_right(starts, at)
        line = self.lines.get((segment.period_id, item.price.pk, growth.row), {})
        earned = line.get(starts[index - 1], Earned()) if index else Earned()
        return earned.of(growth.amount, _rate(segment, item.terms.unit))


def _earned(segments: Iterable[PlanSegment]) -> _EarnedByLine:
    """From the cells of settlement. One query."""
    found = _EarnedByLine()
    by_period: dict[int, list[PlanSegment]] = defaultdict(list)
    for segment in segments:
        by_period[segment.period_id].append(segment)
    places = "period", "segment_starts_at", "price", "row", "unit", "grant__cost_basis", "grant__kind"
    cells = AllocationCell.objects.filter(period__in=by_period.keys()).values_list(*places)
    for period, starts_at, price, row, unit, basis, kind, amount in cells.annotate(Sum("posted")).order_by(*places[:2]):
        own = next((one for one in by_period[period] if one.starts_at <= starts_at < one.ends_at), None)
        if own is not None:
            rate = _rate(own, unit) if kind is None else _sold_for(unit, basis, kind)
            found.lines[period, price, row].setdefault(starts_at, Earned()).add(amount, rate)
            if starts_at not in found.starts[period][-1:]:
                found.starts[period].append(starts_at)
    return found


def _rate(segment: PlanSegment, unit: str) -> Decimal:
    """What one of the unit earns that no grant pays: money itself, credits their overage."""
    return _ONE if is_currency(unit) else overage_rates(segment.version).get(unit, ZERO)


def _sold_for(unit: str, basis: Decimal | None, kind: str) -> Decimal:
    """Prepaid money without a cost basis was sold for what it says."""
    if basis is not None:
        return basis
    return _ONE if kind == GrantKind.PAID and is_currency(unit) else ZERO
