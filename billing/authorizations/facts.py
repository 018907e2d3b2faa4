"""What a decision rests on, except for what is reserved: read without a lock, and true as long as its version is."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from django.db.models import F, Q

from accounts.models import Customer
from billing.authorizations import store
from billing.authorizations.decision import ANY, Pool, Stop
from billing.authorizations.store import Sum
from billing.budgets import queries as budgets
from billing.budgets.models import Budget
from billing.credits import queries as credits
from billing.credits.allocation import Grant
from billing.credits.booking import offered
from billing.credits.models import CreditGrant
from billing.metering import queries as metering
from billing.metering.counting import lookup, size_rank, text_of
from billing.metering.models import Aggregation, Meter
from billing.money import ZERO, exact, is_currency, quantise, total
from billing.pricing.queries import overage_rates
from billing.rating.margin import Cost, Margin
from billing.subscriptions.models import BillingPeriod, PlanSegment

type ByMeter = dict[str, Decimal]
type ByUnit = dict[str, ByMeter]

_LATEST = "~"  # ranks after every instant


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call will use of a meter. For max and latest meters the value, for unique ones how many new members."""

    meter: Meter
    quantity: Decimal
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of a unit, whatever it is for."""

    unit: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Facts:
    """`pools` and `stops` lack only what is reserved. `budgets` are those of the stops, by id."""

    version: int
    asked: ByUnit
    pools: Mapping[str, Pool]
    stops: Sequence[Stop]
    budgets: Mapping[int, Budget]


@exact()
def read(customer: Customer, wanted: Sequence[Usage] | Amount, at: datetime) -> Facts | None:
    """None when no subscription prices what is wanted."""
    version = store.version(customer.pk)
    margin = Margin(customer, at)
    segment = margin.current
    if segment is None:
        return None
    # Ended holds first: usage that is pending by then is never taken for covered by them twice.
    ended = store.reserved_sums(customer.pk, only_ended=True)
    terms = _Terms(segment)
    pending = _sum(terms, (_pending(margin, one) for one in metering.pending(customer)))
    asked = _asked(margin, wanted, terms, at)
    if asked is None:
        return None
    pools = _pools(customer, at, terms, pending, asked)
    stopping = budgets.stops(customer)
    return Facts(
        version=version,
        asked=asked,
        pools={unit: _less(pool, ended) for unit, pool in pools.items()},
        stops=[_stop(budget, segment.period, pools, ended) for budget in stopping],
        budgets={budget.pk: budget for budget in stopping},
    )


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


def _pending(margin: Margin, one: metering.Pending) -> Cost | None:
    quantity = one.quantity if one.rank is not None or not one.members else Decimal(one.members)
    return margin.add(one.meter_id, one.starts_at, one.dimensions, quantity, events=one.events, rank=one.rank)


def _asked(margin: Margin, wanted: Sequence[Usage] | Amount, terms: _Terms, at: datetime) -> ByUnit | None:
    if isinstance(wanted, Amount):
        return {wanted.unit: {ANY: wanted.amount}}
    costs = [_cost(margin, usage, at) for usage in wanted]
    return None if None in costs else _sum(terms, costs)


def _cost(margin: Margin, usage: Usage, at: datetime) -> Cost | None:
    meter = usage.meter
    found = margin.priced(meter.pk, at)
    if found is None:
        return None
    names = {name for row in found[1].terms.rows for name in row.where}  # later terms have the same rows
    dimensions = {name: text for name in names if (text := text_of(lookup(usage.properties, name))) is not None}
    rank = {Aggregation.MAX: size_rank(usage.quantity), Aggregation.LATEST: _LATEST}.get(Aggregation(meter.aggregation))
    return margin.add(meter.pk, at, dimensions, usage.quantity, rank=rank)


def _sum(terms: _Terms, costs: Iterable[Cost | None]) -> ByUnit:
    sums: ByUnit = defaultdict(lambda: defaultdict(Decimal))
    for cost in costs:
        if cost is not None:
            sums[cost.unit][cost.meter] += cost.amount
            terms.segments[cost.unit] = cost.segment
    return sums


def _pools(customer: Customer, at: datetime, terms: _Terms, pending: ByUnit, asked: ByUnit) -> dict[str, Pool]:
    units = pending.keys() | asked.keys()
    grants = _grants(customer, units, at)
    parked = credits.parked_amounts(customer)
    pools = {}
    for unit in sorted(units):
        unsettled = {**pending.get(unit, {}), ANY: parked.get(unit, ZERO)}
        overage, currency = terms.overage(unit)
        pools[unit] = Pool(unit, at, grants.get(unit, ()), unsettled, overage=overage, currency=currency)
    return pools


def _grants(customer: Customer, units: Iterable[str], at: datetime) -> dict[str, list[Grant]]:
    """Grants that can be spent now, each with what the ledger says is left of it."""
    usable = Q(expires_at=None) | Q(expires_at__gt=at)
    grants = CreditGrant.objects.filter(
        usable,
        customer=customer,
        unit__in=units,
        effective_at__lte=at,
        account__credits__gt=F("account__debits"),
    )
    found: dict[str, list[Grant]] = defaultdict(list)
    for grant in grants.select_related("account"):
        found[grant.unit].append(offered(grant, grant.account.credits - grant.account.debits))
    return found


def _less(pool: Pool, ended: Iterable[Sum]) -> Pool:
    """Of what is unsettled, only what is not reserved as well: the holds of events that are not counted yet."""
    held: ByMeter = {one.meter: one.amount for one in ended if one.budget is None and one.unit == pool.unit}
    unsettled = pool.unsettled
    if pool.is_scoped:
        left = {meter: max(amount - held.get(meter, ZERO), ZERO) for meter, amount in unsettled.items()}
    else:
        left = {ANY: max(total(unsettled.values()) - total(held.values()), ZERO)}
    return replace(pool, unsettled=left)


def _stop(budget: Budget, period: BillingPeriod, pools: Mapping[str, Pool], ended: Iterable[Sum]) -> Stop:
    counted = budget.used if budget.used_from == period.starts_at else ZERO
    pending = total(_spend(pool, budget.unit) for pool in pools.values())
    held = total(one.amount for one in ended if one.budget == budget.pk)
    limit = budgets.stop_level(budget)
    assert limit is not None
    return Stop(budget.pk, budget.unit, limit, counted + max(pending - held, ZERO), ZERO)


def _spend(pool: Pool, unit: str) -> Decimal:
    """What the pool's unsettled usage adds to the spend in a unit: itself, and what is beyond the grants."""
    if pool.unit == unit:
        return total(pool.unsettled.values())
    if pool.currency == unit and pool.overage:
        return quantise(pool.beyond({}) * pool.overage)
    return ZERO
