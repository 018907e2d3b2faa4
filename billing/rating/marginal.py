"""What further usage costs, at the margin: on top of what its billing period holds.

Fast where amounts grow evenly, as most do: then nothing is read. Where tiers, included quantities or limits matter,
the usage of the period so far is read, of that price alone.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property

from accounts.models import Customer
from billing.metering.models import Meter
from billing.money import CONTEXT, ZERO
from billing.pricing.queries import PriceTerms
from billing.pricing.schemes import Dimensions, Row, Terms, rate_row, select_row
from billing.rating.core import Tally
from billing.rating.queries import priced_in, tallied
from billing.subscriptions.models import BillingPeriod, PeriodStatus, PlanSegment, SubscriptionStatus
from billing.subscriptions.queries import periods, segments_of

type Tallied = Callable[[PlanSegment, PriceTerms], Tally[None]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What usage adds to a line; less than nothing where it takes something back."""

    segment: PlanSegment
    unit: str
    meter: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Added:
    """Usage of a meter at an instant. `rank` as of counters."""

    meter_id: int
    at: datetime
    dimensions: Dimensions
    quantity: Decimal
    events: int = 1
    rank: str | None = None


class Prices:
    """What a customer pays in the billing periods that are not closed, as it stood when it was read."""

    def __init__(self, customer: Customer) -> None:
        self.periods = list(periods(customer).exclude(status=PeriodStatus.CLOSED))
        self._priced: dict[int, list[tuple[PlanSegment, PriceTerms]]] = defaultdict(list)
        for segment, item in priced_in(segment for period in self.periods for segment in segments_of(period)):
            self._priced[item.meter.pk].append((segment, item))
        self._last = _last_segments(self.periods)

    def current(self, at: datetime) -> PlanSegment | None:
        """Of the oldest active subscription: the plan segment of that instant. Between a period's end and the tick
        that opens the next one, it is still the last one."""
        active = (one for one in self.periods if one.subscription.status == SubscriptionStatus.ACTIVE)
        begun = [period for period in active if period.starts_at <= at]
        if not begun:
            return None
        order = [(one.subscription.starts_at, one.subscription_id, -one.starts_at.timestamp()) for one in begun]
        period = begun[order.index(min(order))]
        return next((one for one in reversed(segments_of(period)) if one.starts_at <= at), None)

    def of(self, meter_id: int, at: datetime) -> tuple[PlanSegment, PriceTerms] | None:
        """The price of this meter for usage of that instant, where it holds; None where nothing prices it. After a
        period's end the last price holds until the tick that opens the next one."""
        for segment, item in reversed(self._priced.get(meter_id, [])):
            if segment.starts_at <= at and (at < segment.ends_at or segment.pk in self._last):
                return segment, item
        return None


def _last_segments(running: Sequence[BillingPeriod]) -> set[int]:
    """The last plan segment of each active subscription."""
    last: dict[int, BillingPeriod] = {}
    for period in sorted(running, key=lambda one: one.starts_at):
        if period.subscription.status == SubscriptionStatus.ACTIVE:
            last[period.subscription_id] = period
    return {segments_of(period)[-1].pk for period in last.values()}


class Marginal:
    """The prices of a customer at an instant, and the usage that was added on top so far."""

    def __init__(self, prices: Prices, at: datetime, used: Tallied = tallied) -> None:
        """`used` answers what a period holds of a price; it is not changed."""
        self.prices, self.at, self._used = prices, at, used
        self._tallies: dict[tuple[int, int], Tally[None]] = {}

    @cached_property
    def current(self) -> PlanSegment | None:
        """The plan segment of the instant, of the oldest active subscription."""
        return self.prices.current(self.at)

    def further(self) -> "Marginal":
        """One on top of this one, which stays as it is."""
        return Marginal(self.prices, self.at, self._tally)

    def add(self, usage: Iterable[Added]) -> Iterator[Cost]:
        """What usage costs on top of what was added before; nothing for what no price is for. What grows evenly is
        put together first."""
        even: dict[tuple[int, int, int], _Even] = {}
        for one in usage:
            if (found := self.prices.of(one.meter_id, one.at)) is None:
                continue
            segment, item = found
            terms = _terms_at(item, one.at)
            index = select_row(terms, one.dimensions)
            if _grows_evenly(terms.rows[index], item.meter):
                whole = even.setdefault((segment.pk, id(terms), index), _Even(segment, terms, index, item.meter.key))
                whole.quantity, whole.events = CONTEXT.add(whole.quantity, one.quantity), whole.events + one.events
            else:
                yield Cost(segment, terms.unit, item.meter.key, _on_top(self._tally(segment, item), index, one))
        for whole in even.values():
            yield Cost(whole.segment, whole.terms.unit, whole.meter, whole.amount)

    def _tally(self, segment: PlanSegment, item: PriceTerms) -> Tally[None]:
        key = segment.pk, item.price.pk
        if key not in self._tallies:
            self._tallies[key] = self._used(segment, item).continued()
        return self._tallies[key]


@dataclass(slots=True)
class _Even:
    """Usage of one row that costs the same wherever it begins."""

    segment: PlanSegment
    terms: Terms
    index: int
    meter: str
    quantity: Decimal = ZERO
    events: int = 0

    @property
    def amount(self) -> Decimal:
        """What was voided makes less than nothing."""
        row = self.terms.rows[self.index]
        if self.quantity < 0:
            return -rate_row(row, -self.quantity, max(-self.events, 0)).amount
        return rate_row(row, self.quantity, max(self.events, 0)).amount


def _terms_at(item: PriceTerms, at: datetime) -> Terms:
    begun = [terms for starts_at, terms in item.changes if starts_at <= at]
    return begun[-1] if begun else item.terms


def _grows_evenly(row: Row, meter: Meter) -> bool:
    """Whether a quantity costs the same wherever it begins."""
    plain = row.scheme in ("per_unit", "percentage") and not row.included and row.maximum_amount is None
    return plain and meter.is_additive


def _on_top(tally: Tally[None], index: int, usage: Added) -> Decimal:
    row = tally.row(index)
    before = tally.rated(index).amount
    row.measure.add(usage.quantity, usage.rank)
    row.events += usage.events
    return CONTEXT.subtract(tally.rated(index).amount, before)
