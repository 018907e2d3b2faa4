"""The statement of a subscription's billing period, from its lines, fees and minimums, and what grants paid of them.

It lists the billing periods of the subscription's add-ons that begin in it as well.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Q

from billing.credits.billed import NONE, adjustments, as_billed, of_segments, unbilled
from billing.credits.models import BilledLine
from billing.credits.overage import Rates
from billing.credits.paid import Applied, Paid, line_id
from billing.money import CONTEXT, ZERO, quantise
from billing.pricing.coupons import Offer
from billing.pricing.models import CouponDuration, FeeTiming, PlanVersion
from billing.pricing.queries import overage_rates
from billing.pricing.schemes import figure
from billing.rating.queries import Line, lines_of, priced_in
from billing.rating.statement import Charge, Minimum, Row, Statement, statement
from billing.subscriptions.coupons import held, offers, record_uses, used_before
from billing.subscriptions.models import BillingPeriod, PlanSegment, Subscription, SubscriptionStatus
from billing.subscriptions.queries import periods, segments_of

type Source = Line | Overage | Fee | RowMinimum | SpendMinimum | Late


@dataclass(frozen=True, slots=True)
class Overage:
    """Credits that a line used beyond the grants, and what one of them costs in the plan's currency."""

    line: Line
    credits: Decimal
    rate: Decimal


@dataclass(frozen=True, slots=True)
class Fee:
    """A plan version's base fee for a plan segment."""

    segment: PlanSegment

    @property
    def version(self) -> PlanVersion:
        return self.segment.version

    @property
    def starts_at(self) -> datetime:
        return self.segment.starts_at

    @property
    def ends_at(self) -> datetime:
        return self.segment.ends_at

    @property
    def amount(self) -> Decimal:
        """Its part of a whole base fee; nothing in a trial."""
        version = self.segment.version
        return ZERO if self.segment.is_trial else self.segment.share.of_fee(version.base_fee, version.plan.currency)

    @property
    def due_at(self) -> datetime:
        return self.starts_at if self.version.base_fee_timing == FeeTiming.ADVANCE else self.ends_at


@dataclass(frozen=True, slots=True)
class RowMinimum:
    """What a row of a price costs at least, in the line's unit; `rate` is what one of it costs in the currency."""

    line: Line
    minimum: Decimal
    rate: Decimal

    @property
    def version(self) -> PlanVersion:
        return self.line.segment.version


@dataclass(frozen=True, slots=True)
class SpendMinimum:
    """What a plan version costs at least in [starts_at, ends_at)."""

    version: PlanVersion
    minimum: Decimal
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Late:
    """What a line of an earlier period, which was closed by then, changed by. `is_overage`: its credits beyond the
    grants, in the plan's currency."""

    billed: BilledLine
    is_overage: bool

    @property
    def version(self) -> PlanVersion:
        return self.billed.segment.version


@dataclass(frozen=True, slots=True)
class PeriodStatement:
    """One statement per unit, that of the plan's currency first. `covered`: the period, and those of add-ons that it
    lists. `runs`: it has not ended by `at`, so its true-ups are what would be missing if nothing more were used.
    `offers`: what coupons give, whether or not there is anything to discount."""

    at: datetime
    period: BillingPeriod
    covered: Sequence[BillingPeriod]
    runs: bool
    units: Sequence[Statement[Source]]
    applied: Sequence[Applied]
    offers: Sequence[Offer]

    @property
    def main(self) -> Statement[Source]:
        """In the plan's currency: what is invoiced."""
        return self.units[0]


def explanation(row: Row[Source]) -> str:
    """The arithmetic of a row's amount."""
    match row.source:
        case Line() as line:
            return line.rated.explanation
        case Overage(credits=credits, rate=rate):
            return f"{figure(credits)} beyond the grants x {figure(rate)}"
        case Fee(segment=segment):
            fee = figure(segment.version.base_fee)
            return f"{fee} for the billing period" if segment.share.is_whole else f"{fee} x {segment.share}"
        case RowMinimum(line=line, minimum=minimum, rate=rate):
            lack = f"{figure(minimum)} minimum - {figure(line.amount)}"
            return lack if line.unit == line.segment.version.plan.currency else f"({lack}) x {figure(rate)}"
        case SpendMinimum(minimum=minimum):
            return f"{figure(minimum)} minimum - {figure(CONTEXT.subtract(minimum, row.amount))} charged"
        case Late(billed=billed, is_overage=is_overage):
            more = (
                f"{figure(billed.beyond)} more beyond the grants" if is_overage else f"{figure(billed.quantity)} more"
            )
            return f"{more} than was billed when its period closed"


def period_statement(period: BillingPeriod, *, at: datetime) -> PeriodStatement:
    """The statement of the period as it is counted and settled. A fixed number of queries, also with add-ons; where
    a coupon lasts for a number of periods, as many again for each earlier period that is not frozen yet."""
    return _period_statement(period, _offers(period, at), at)


def _offers(period: BillingPeriod, at: datetime) -> list[Offer]:
    """What coupons give to the period, by how many earlier ones each has discounted."""
    redemptions = held(period)
    if all(one.coupon.duration == CouponDuration.FOREVER for one in redemptions):
        return offers(redemptions, {})
    used = used_before(period)
    first = min(one.starts_at for one in redemptions)
    earlier = periods(period.customer, starts_at=first, ends_at=period.starts_at)
    for one in earlier.filter(subscription=period.subscription_id, billed_at=None, starts_at__lt=period.starts_at):
        discounted = _period_statement(one, offers(held(one), used), at).main.discount_rows
        used.update(discount.offer.key for discount in discounted)
    return offers(redemptions, used)


def keep_discounts(frozen: Iterable[BillingPeriod], at: datetime) -> None:
    """Of periods that have just been frozen, in time order: what coupons took off them."""
    for period in frozen:
        if period.subscription.coupons.exists():
            record_uses(period, period_statement(period, at=at).main.discount_rows)


def _period_statement(period: BillingPeriod, given: Sequence[Offer], at: datetime) -> PeriodStatement:
    covered = _covered(period)
    paid = Paid(covered)
    rated = _as_billed(_lines(covered), covered, paid)
    late = adjustments(covered)
    currency = period.version.plan.currency
    units = [currency, *sorted({*(line.unit for line in rated), *(row.unit for row in late)} - {currency})]
    return PeriodStatement(
        at=at,
        period=period,
        covered=covered,
        runs=at < period.ends_at,
        units=[_statement(unit, covered, rated, paid, late, given=given) for unit in units],
        applied=paid.applied(),
        offers=given,
    )


def closing_statement(subscription: Subscription) -> list[Statement[Source]]:
    """Of a subscription that has ended: what came after the last period of it, or of an add-on, was billed, as long as
    no other one in the currency has taken it over. One statement per unit, that of the currency first."""
    if subscription.status != SubscriptionStatus.ENDED:
        return []
    whose = Q(segment__period__subscription=subscription) | Q(segment__period__subscription__beside=subscription)
    return closing_statements(unbilled(whose))


def closing_statements(rows: Sequence[BilledLine]) -> list[Statement[Source]]:
    """Of what nobody is billed for, in one currency; none where there is nothing."""
    if not rows:
        return []
    currency = rows[0].segment.version.plan.currency
    units = [currency, *sorted({row.unit for row in rows} - {currency})]
    return [statement(unit, usage=(), late=late_charges(rows, unit, currency)) for unit in units]


def _covered(period: BillingPeriod) -> list[BillingPeriod]:
    """The period, and those of add-ons that begin in it."""
    found = periods(period.customer, starts_at=period.starts_at, ends_at=period.ends_at)
    beside = found.filter(subscription__beside=period.subscription_id, starts_at__gte=period.starts_at)
    return [period, *beside.order_by("subscription_id", "starts_at")]


def _lines(covered: Sequence[BillingPeriod]) -> list[Line]:
    """The lines of the periods, read at once."""
    parts = [part for period in covered for part in segments_of(period)]
    starts_at, ends_at = min(one.starts_at for one in covered), max(one.ends_at for one in covered)
    return lines_of(covered[0].customer, priced_in(parts), starts_at=starts_at, ends_at=ends_at)


def _as_billed(rated: Sequence[Line], covered: Sequence[BillingPeriod], paid: Paid) -> list[Line]:
    """Lines of closed periods as they were frozen, and what was paid of them by then."""
    frozen = [period for period in covered if period.billed_at is not None]
    if not frozen:
        return list(rated)
    figures = of_segments(frozen, period__in=covered)
    found: list[Line] = []
    for line in rated:
        if line.period.billed_at is None:
            found.append(line)
            continue
        billed = figures.get(line_id(line), NONE)
        paid.settle(line, covered=billed.covered, beyond=billed.beyond)
        found.append(as_billed(line, billed))
    return found


def late_charges(rows: Iterable[BilledLine], unit: str, currency: str) -> list[Charge[Source]]:
    """What late adjustments come to in this unit: usage in it; for the currency also credits beyond the grants."""
    own = [Charge[Source](Late(row, False), row.amount, row.covered) for row in rows if row.unit == unit]
    beyond = [Charge[Source](Late(row, True), row.overage) for row in rows if row.overage and unit == currency]
    return [*own, *beyond]


def _statement(
    unit: str,
    covered: Sequence[BillingPeriod],
    rated: Sequence[Line],
    paid: Paid,
    adjusted: Sequence[BilledLine],
    *,
    given: Sequence[Offer],
) -> Statement[Source]:
    currency = covered[0].version.plan.currency
    late = late_charges(adjusted, unit, currency)
    usage: list[Charge[Source]] = [
        Charge(line, line.amount, paid.of(line), line.segment.pk) for line in rated if line.unit == unit
    ]
    if unit != currency:
        return statement(unit, usage=usage, late=late)
    parts = [segment for period in covered for segment in segments_of(period)]
    rates = {part.pk: overage_rates(part.version) for part in parts}
    usage += _overage(rated, rates, paid)
    return statement(
        unit,
        usage=usage,
        fees=_fees(parts),
        late=late,
        minimums=[*_row_minimums(rated, rates, unit), *_spend_minimums(parts)],
        offers=given,
    )


def _overage(rated: Sequence[Line], rates: Rates, paid: Paid) -> Iterator[Charge[Source]]:
    for line in rated:
        rate, credits = rates[line.segment.pk].get(line.unit, ZERO), paid.beyond(line)
        if rate and credits:
            yield Charge(Overage(line, credits, rate), quantise(CONTEXT.multiply(credits, rate)), part=line.segment.pk)


def _fees(parts: Sequence[PlanSegment]) -> Iterator[Charge[Source]]:
    for part in parts:
        fee = Fee(part)
        if fee.amount:
            yield Charge(fee, fee.amount, part=part.pk)


def _row_minimums(rated: Sequence[Line], rates: Rates, currency: str) -> Iterator[Minimum[Source]]:
    for line in rated:
        rate = Decimal(1) if line.unit == currency else rates[line.segment.pk].get(line.unit, ZERO)
        if line.terms.minimum_amount is not None and rate:
            minimum, reached = (CONTEXT.multiply(amount, rate) for amount in (line.terms.minimum_amount, line.amount))
            yield Minimum(RowMinimum(line, line.terms.minimum_amount, rate), minimum, line.segment.pk, reached)


def _spend_minimums(parts: Sequence[PlanSegment]) -> Iterator[Minimum[Source]]:
    for part in parts:
        if part.version.minimum_spend is not None and not part.is_trial:
            minimum = part.share.of(part.version.minimum_spend)
            yield Minimum(SpendMinimum(part.version, minimum, part.starts_at, part.ends_at), minimum, part.pk)
