"""What further usage costs, at the margin: on top of what its billing period holds.

Fast where amounts grow evenly, as most do: then nothing is read. Where tiers, included quantities or limits matter,
the usage of the period so far is read, of that price alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from accounts.models import Customer
from billing.metering.models import Meter
from billing.money import CONTEXT
from billing.pricing.queries import PriceTerms
from billing.pricing.schemes import Row, Terms, rate_row, select_row
from billing.rating.core import RowTally, Tally
from billing.rating.queries import priced_in, tallied
from billing.subscriptions.models import BillingPeriod, PeriodStatus, PlanSegment, SubscriptionStatus
from billing.subscriptions.queries import periods, segments_of


@dataclass(frozen=True, slots=True)
class Cost:
    """What usage adds to a line; less than nothing where it takes something back."""

    segment: PlanSegment
    unit: str
    meter: str
    amount: Decimal


class Margin:
    """The prices of a customer at an instant, and the usage that was added on top so far."""

    def __init__(self, customer: Customer, at: datetime) -> None:
        self.at = at
        self.periods = _running(customer)
        self._priced = priced_in(segment for period in self.periods for segment in segments_of(period))
        self._last = _last_segments(self.periods)
        self._tallies: dict[tuple[int, int], Tally[None]] = {}

    @property
    def current(self) -> PlanSegment | None:
        """Of the oldest active subscription: the plan segment of this instant. Between a period's end and the tick
        that opens the next one, it is still the last one."""
        begun = [
            period
            for period in self.periods
            if period.starts_at <= self.at and period.subscription.status == SubscriptionStatus.ACTIVE
        ]
        if not begun:
            return None
        order = [(one.subscription.starts_at, one.subscription_id, -one.starts_at.timestamp()) for one in begun]
        period = begun[order.index(min(order))]
        return next((one for one in reversed(segments_of(period)) if one.starts_at <= self.at), None)

    def priced(self, meter_id: int, at: datetime) -> tuple[PlanSegment, PriceTerms] | None:
        """The price of this meter for usage of that instant, where it holds; None where nothing prices it. After a
        period's end the last price holds until the tick that opens the next one."""
        for segment, item in reversed(self._priced):
            if item.meter.pk != meter_id or at < segment.starts_at:
                continue
            if at < segment.ends_at or segment.pk in self._last:
                return segment, item
        return None

    def add(
        self,
        meter_id: int,
        at: datetime,
        dimensions: Mapping[str, str],
        quantity: Decimal,
        *,
        events: int = 1,
        rank: str | None = None,
    ) -> Cost | None:
        """Add usage; what it costs on top of what was added before. None for usage that nothing prices."""
        found = self.priced(meter_id, at)
        if found is None:
            return None
        segment, item = found
        terms = _terms_at(item, at)
        index = select_row(terms, dimensions)
        if _grows_evenly(terms.rows[index], item.meter):
            amount = _evenly(terms.rows[index], quantity, events)
        else:
            amount = _on_top(self._tally(segment, item), index, quantity, events, rank)
        return Cost(segment, terms.unit, item.meter.key, amount)

    def _tally(self, segment: PlanSegment, item: PriceTerms) -> Tally[None]:
        key = segment.pk, item.price.pk
        if key not in self._tallies:
            self._tallies[key] = tallied(segment, item)
        return self._tallies[key]


def _running(customer: Customer) -> Sequence[BillingPeriod]:
    return list(periods(customer).exclude(status=PeriodStatus.CLOSED))


def _last_segments(running: Sequence[BillingPeriod]) -> set[int]:
    """The last plan segment of each active subscription."""
    last: dict[int, BillingPeriod] = {}
    for period in sorted(running, key=lambda one: one.starts_at):
        if period.subscription.status == SubscriptionStatus.ACTIVE:
            last[period.subscription_id] = period
    return {segments_of(period)[-1].pk for period in last.values()}


def _terms_at(item: PriceTerms, at: datetime) -> Terms:
    begun = [terms for starts_at, terms in item.changes if starts_at <= at]
    return begun[-1] if begun else item.terms


def _grows_evenly(row: Row, meter: Meter) -> bool:
    """Whether a quantity costs the same wherever it begins."""
    plain = row.scheme in ("per_unit", "percentage") and not row.included and row.maximum_amount is None
    return plain and meter.is_additive


def _evenly(row: Row, quantity: Decimal, events: int) -> Decimal:
    """What was voided makes less than nothing."""
    if quantity < 0:
        return -rate_row(row, -quantity, max(-events, 0)).amount
    return rate_row(row, quantity, max(events, 0)).amount


def _on_top(tally: Tally[None], index: int, quantity: Decimal, events: int, rank: str | None) -> Decimal:
    row = tally.rows.setdefault(index, RowTally())
    before = tally.rated(index).amount
    row.measure.add(quantity, rank)
    row.events += events
    return CONTEXT.subtract(tally.rated(index).amount, before)
