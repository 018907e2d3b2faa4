"""What a customer's questions are judged by: pools and stops, made of what was read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from billing.authorizations.decision import ANY, Pool, Stop
from billing.authorizations.memory import Recalled
from billing.authorizations.reading import Facts, GrantLeft, Stopping
from billing.budgets.evaluation import level
from billing.credits.allocation import Grant
from billing.credits.booking import offered
from billing.credits.models import CreditGrant
from billing.metering.counting import lookup, size_rank, text_of
from billing.metering.models import Aggregation
from billing.metering.queries import Pending
from billing.money import CONTEXT, ZERO, is_currency, quantise, total
from billing.pricing.queries import overage_rates
from billing.rating.marginal import Added, Cost, Marginal
from billing.subscriptions.models import PlanSegment

type ByMeter = dict[str, Decimal]
type ByUnit = dict[str, ByMeter]
type Name = tuple[str, int | None]  # of an account: a unit, and the budget or none

_LATEST = "~"  # ranks after every instant


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call will use of a meter. For max and latest meters the value, for unique ones how many new members."""

    meter: str
    quantity: Decimal
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of a unit, whatever it is for."""

    unit: str
    amount: Decimal


type Wanted = Sequence[Usage] | Amount


class UnknownMeter(Exception):  # noqa: N818 -- an answer
    """There is no such meter; `index` is its place in what is wanted."""

    def __init__(self, index: int, meter: str) -> None:
        super().__init__(f"There is no meter {meter}.")
        self.index = index


class Unpriced(Exception):  # noqa: N818 -- an answer
    """No subscription prices what is wanted."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that decides one question."""

    asked: ByUnit
    pools: Mapping[str, Pool]
    stops: Sequence[Stop]


class Standing:
    """How a customer stands at a moment. What is held is counted on, so that each question sees those before it."""

    def __init__(self, key: str, facts: Facts) -> None:
        self.facts, self.recalled = facts, Recalled(key, facts)
        self.accounts: dict[Name, int] = {(one.unit, one.budget): one.id for one in facts.accounts}
        self.stopping = {one.id: one for one in facts.stopping}
        self._names = {pk: name for name, pk in self.accounts.items()}
        self._reserved: dict[tuple[Name, str], Decimal] = self._held_so_far()
        self._marginal = Marginal(self.recalled.prices, facts.at, self.recalled.used)
        self._pending = list(self._marginal.add(map(_added, facts.pending)))
        self._grants = _by_unit(facts.grants)

    def case(self, wanted: Wanted) -> Case:
        """Raises Unpriced, UnknownMeter."""
        if (current := self._marginal.current) is None:
            raise Unpriced
        terms = _Terms(current)
        pending = _sum(terms, self._pending)
        asked = {wanted.unit: {ANY: wanted.amount}} if isinstance(wanted, Amount) else _sum(terms, self._costs(wanted))
        pools = {unit: self._pool(unit, terms, pending.get(unit, {})) for unit in sorted(pending.keys() | asked.keys())}
        stops = [self._stop(one, current.period.starts_at, pools.values()) for one in self.facts.stopping]
        return Case(asked, {unit: self._held(pool) for unit, pool in pools.items()}, stops)

    def hold(self, name: Name, meter: str, amount: Decimal) -> None:
        place = name, meter
        self._reserved[place] = CONTEXT.add(self._reserved.get(place, ZERO), amount)

    def _held_so_far(self) -> dict[tuple[Name, str], Decimal]:
        if self.facts.held is None:
            return {((one.unit, one.budget), ANY): one.reserved for one in self.facts.accounts}
        return {(self._names[one.account], one.meter): one.amount for one in self.facts.held}

    def _reserved_of(self, name: Name) -> ByMeter:
        return {meter: amount for (of, meter), amount in self._reserved.items() if of == name}

    def _costs(self, wanted: Sequence[Usage]) -> Iterator[Cost]:
        return self._marginal.further().add([self._usage(index, usage) for index, usage in enumerate(wanted)])

    def _usage(self, index: int, usage: Usage) -> Added:
        meter = self.recalled.meter(usage.meter)
        if meter is None:
            raise UnknownMeter(index, usage.meter)
        found = self.recalled.prices.of(meter.pk, self.facts.at)
        if found is None:
            raise Unpriced
        names = {name for row in found[1].terms.rows for name in row.where}  # later terms have the same rows
        dimensions = {name: text for name in names if (text := text_of(lookup(usage.properties, name))) is not None}
        ranks = {Aggregation.MAX: size_rank(usage.quantity), Aggregation.LATEST: _LATEST}
        rank = ranks.get(Aggregation(meter.aggregation))
        return Added(meter.pk, self.facts.at, dimensions, usage.quantity, rank=rank)

    def _pool(self, unit: str, terms: "_Terms", pending: ByMeter) -> Pool:
        unsettled = {**pending, ANY: self.recalled.parked().get(unit, ZERO)}
        overage, currency = terms.overage(unit)
        return Pool(
            unit=unit,
            at=self.facts.at,
            grants=self._grants.get(unit, ()),
            unsettled=unsettled,
            overage=overage,
            currency=currency,
        )

    def _held(self, pool: Pool) -> Pool:
        """With what is reserved. Of what is unsettled, only what is not reserved as well: the holds of events that are
        not counted yet."""
        ended = self._ended((pool.unit, None))
        if pool.is_scoped:
            left = {meter: max(amount - ended.get(meter, ZERO), ZERO) for meter, amount in pool.unsettled.items()}
        else:
            left = {ANY: max(total(pool.unsettled.values()) - total(ended.values()), ZERO)}
        return replace(pool, unsettled=left, reserved=self._reserved_of((pool.unit, None)))

    def _ended(self, name: Name) -> ByMeter:
        account = self.accounts.get(name)
        return {one.meter: one.amount for one in self.facts.ended if one.account == account}

    def _stop(self, one: Stopping, period_starts_at: datetime, pools: Iterable[Pool]) -> Stop:
        name = one.unit, one.id
        counted = one.used if one.used_from == period_starts_at else ZERO
        pending = total(_spend(pool, one.unit) for pool in pools)
        used = counted + max(pending - total(self._ended(name).values()), ZERO)
        limit = level(one.amount, percent=one.stop_at_percent)
        return Stop(one.id, one.unit, limit, used, total(self._reserved_of(name).values()))


class _Terms:
    """Under which version a unit is used, which says what is beyond the grants: the current one unless another one
    prices it."""

    def __init__(self, current: PlanSegment) -> None:
        self.current = current
        self.segments: dict[str, PlanSegment] = {}

    def overage(self, unit: str) -> tuple[Decimal | None, str]:
        """What one of the unit costs beyond the grants, in which currency; None where nothing may run beyond them."""
        version = self.segments.get(unit, self.current).version
        if is_currency(unit):
            return (ZERO if version.postpaid else None), unit
        return overage_rates(version).get(unit), version.plan.currency


def _added(one: Pending) -> Added:
    quantity = one.quantity if one.rank is not None or not one.members else Decimal(one.members)
    return Added(one.meter_id, one.starts_at, one.dimensions, quantity, one.events, one.rank)


def _sum(terms: _Terms, costs: Iterable[Cost]) -> ByUnit:
    sums: ByUnit = defaultdict(lambda: defaultdict(Decimal))
    for cost in costs:
        sums[cost.unit][cost.meter] += cost.amount
        terms.segments[cost.unit] = cost.segment
    return sums


def _by_unit(grants: Iterable[GrantLeft]) -> dict[str, list[Grant]]:
    found: dict[str, list[Grant]] = defaultdict(list)
    for one in grants:
        values = {name: getattr(one, name) for name in one.__struct_fields__ if name != "left"}
        found[one.unit].append(offered(CreditGrant(**values), one.left))
    return found


def _spend(pool: Pool, unit: str) -> Decimal:
    """What the pool's unsettled usage adds to the spend in a unit: itself, and what is beyond the grants."""
    if pool.unit == unit:
        return total(pool.unsettled.values())
    if pool.currency == unit and pool.overage:
        return quantise(pool.beyond({}) * pool.overage)
    return ZERO
