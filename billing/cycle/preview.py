"""What a plan version would have charged for usage that really happened, beside what the present one asks for it.

Both sides are computed in the same way: the lines of the billing periods so far, the base fee, minimums, and of credits
only those that come with the plan. Other grants, coupons and tax are left out, because they do not depend on the plan.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from accounts.models import Customer
from billing.metering.queries import read_totals_ahead
from billing.money import CONTEXT, ZERO, exact, mul_div, quantise, total
from billing.periods import Interval, quarter_ceil, quarter_floor
from billing.pricing.carrying import carried
from billing.pricing.models import PlanVersion, PriceOverride
from billing.pricing.queries import PriceTerms, overrides, read_overrides_ahead, spec_of, terms_said
from billing.pricing.spec import VersionSpec
from billing.rating.queries import Line, lines_of, priced_in, terms_in
from billing.rating.statement import Charge, Minimum, Statement, statement
from billing.reads import once
from billing.reads import shared as shared_reads
from billing.subscriptions.models import BillingPeriod, PeriodStatus, PlanSegment, SubscriptionStatus
from billing.subscriptions.queries import current_period, periods_between, read_periods_ahead, segments_of

_HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Charged:
    """What one wording of a plan asks for: `lines` of usage, and the statement that they lead to."""

    lines: Sequence[Line]
    statement: Statement[str]

    @property
    def amount(self) -> Decimal:
        return self.statement.amount_due


@dataclass(frozen=True, slots=True)
class Preview:
    """One customer's usage under the previewed version, and under the present one, where there is one."""

    customer: Customer
    interval: Interval
    then: Charged
    now: Charged | None

    @property
    def amount_now(self) -> Decimal | None:
        return None if self.now is None else self.now.amount

    @property
    def difference(self) -> Decimal | None:
        return None if self.now is None else CONTEXT.subtract(self.then.amount, self.now.amount)


@dataclass(frozen=True, slots=True)
class Everyone:
    """The customers on a version, by what would change for them most."""

    previews: Sequence[Preview]

    @property
    def now(self) -> Decimal:
        return total(one.now.amount for one in self.previews if one.now)

    @property
    def then(self) -> Decimal:
        return total(one.then.amount for one in self.previews)


def percent(now: Decimal, then: Decimal) -> Decimal | None:
    """By how many percent the amount changes; None where there was none."""
    return None if not now else quantise(mul_div(CONTEXT.subtract(then, now), _HUNDRED, now))


def preview(
    customer: Customer,
    spec: VersionSpec,
    currency: str,
    interval: Interval | None,
    *,
    under: PlanVersion | None = None,
    at: datetime,
) -> Preview:
    """What the version would have charged the customer in the interval, which is widened to quarter hours (default:
    the current billing period, as far as it is used). `under`: the version itself where it is stored; then what was
    agreed with the customer for it counts too.

    The interval is cut where billing periods of the oldest subscription begin; in a part of one, what is meant for a
    whole period counts in proportion and quantities begin anew. Without any subscription it is one whole period.
    """
    period = current_period(customer, at)
    if interval is None:
        interval = _of(period) if period else Interval(quarter_floor(at), quarter_ceil(at))
    interval = Interval(quarter_floor(interval.start), quarter_ceil(interval.end))
    own = _periods(customer, period, interval)
    return _preview(_Question(spec, terms_said(spec), currency, under), customer, interval, own)


def preview_everyone(
    spec: VersionSpec, currency: str, version: PlanVersion, *, under: PlanVersion | None = None
) -> Everyone:
    """The same for every active subscription of a version, in its open billing period. A fixed number of queries."""
    opened = BillingPeriod.objects.filter(
        status=PeriodStatus.OPEN,
        subscription__status=SubscriptionStatus.ACTIVE,
        subscription__version=version,
    ).select_related("customer")
    found = preview_open(spec, currency, list(opened), under=under).values()
    return Everyone(sorted(found, key=lambda one: (-abs(one.difference or ZERO), one.customer.key)))


def preview_open(
    spec: VersionSpec, currency: str, opened: Sequence[BillingPeriod], *, under: PlanVersion | None = None
) -> dict[int, Preview]:
    """The same for each of these billing periods, by id. A fixed number of queries."""
    ranges = [(one.customer_id, one.starts_at, one.ends_at) for one in opened]
    question = _Question(spec, terms_said(spec), currency, under)
    with shared_reads():
        read_periods_ahead(ranges)
        read_totals_ahead(ranges)
        read_overrides_ahead({customer for customer, *_ in ranges})
        return {
            one.pk: _preview(question, one.customer, _of(one), _periods(one.customer, one, _of(one))) for one in opened
        }


def _of(period: BillingPeriod) -> Interval:
    return Interval(period.starts_at, period.ends_at)


def _periods(customer: Customer, period: BillingPeriod | None, interval: Interval) -> list[BillingPeriod]:
    """The billing periods of one subscription that share time with the interval."""
    if period is None:
        return []
    found = periods_between(customer, interval.start, interval.end)
    return [one for one in found if one.subscription_id == period.subscription_id]


@dataclass(frozen=True, slots=True)
class _Question:
    """The version that is previewed: what it says, its prices with their meters, and itself where it is stored."""

    spec: VersionSpec
    terms: Sequence[PriceTerms]
    currency: str
    under: PlanVersion | None


def _preview(asked: _Question, customer: Customer, interval: Interval, own: Sequence[BillingPeriod]) -> Preview:
    wholes = own or [_imagined(customer, interval)]
    parts = [part for one in wholes if (part := _part(one, None, interval)) is not None]
    agreed = _agreed(asked, customer, own)
    supposed = [(part, terms_in(part, item, agreed.get(item.meter.key, ()))) for part in parts for item in asked.terms]
    then = _charged(customer, supposed, [(part, asked.spec) for part in parts], asked.currency, interval)
    if not own:
        return Preview(customer, interval, then, None)
    real = [part for one in own for each in segments_of(one) if (part := _part(one, each, interval)) is not None]
    now = _charged(customer, priced_in(real), [(part, _said(part)) for part in real], asked.currency, interval)
    return Preview(customer, interval, then, now)


def _agreed(
    asked: _Question, customer: Customer, periods: Iterable[BillingPeriod]
) -> dict[str, list[tuple[int, PriceOverride]]]:
    """By meter: what was agreed with the customer for the asked version, and beside it what was agreed for those that
    the customer is on, as far as the asked one has it."""
    known = [one for each in overrides(customer.pk).values() for one in each]
    under = None if asked.under is None else asked.under.pk
    versions = {segment.version_id for period in periods for segment in segments_of(period)} - {under}
    own = [one for one in known if one.price.version_id == under]
    others = [one for one in known if one.price.version_id in versions]
    found: dict[str, list[tuple[int, PriceOverride]]] = defaultdict(list)
    for one in (*carried(own, asked.spec.prices), *carried(others, asked.spec.prices, own)):
        if one.price is not None:
            found[one.price.meter] += [(one.row, copy) for copy in one.copies()]
    return found


def _said(part: PlanSegment) -> VersionSpec:
    return once(("said", part.version_id), lambda: spec_of(part.version))


def _imagined(customer: Customer, interval: Interval) -> BillingPeriod:
    start, end = interval.start, interval.end
    bounds = {"starts_at": start, "ends_at": end, "whole_starts_at": start, "whole_ends_at": end}
    return BillingPeriod(customer=customer, **bounds)


def _part(period: BillingPeriod, segment: PlanSegment | None, interval: Interval) -> PlanSegment | None:
    """What lies of a period, or of one of its plan segments, in the interval; nothing is written."""
    bounds = segment or period
    starts_at, ends_at = max(bounds.starts_at, interval.start), min(bounds.ends_at, interval.end)
    if starts_at >= ends_at:
        return None
    part = PlanSegment(period=period, starts_at=starts_at, ends_at=ends_at)
    if segment is not None:
        part.version, part.is_trial = segment.version, segment.is_trial
    return part


@exact()
def _charged(
    customer: Customer,
    priced: Sequence[tuple[PlanSegment, PriceTerms]],
    said: Sequence[tuple[PlanSegment, VersionSpec]],
    currency: str,
    interval: Interval,
) -> Charged:
    found = lines_of(customer, priced, starts_at=interval.start, ends_at=interval.end)
    usage: list[Charge[str]] = []
    minimums: list[Minimum[str]] = []
    fees: list[Charge[str]] = []
    for part, spec in said:
        own = [line for line in found if line.segment is part]
        usage += _usage(part, spec, own, currency)
        if not part.is_trial:
            fees.append(Charge("fee", part.share.of_fee(spec.base_fee, currency), part=id(part)))
            minimums += _minimums(part, spec, own, currency)
    return Charged(found, statement(currency, usage=usage, fees=fees, minimums=minimums))


def _usage(part: PlanSegment, spec: VersionSpec, own: Sequence[Line], currency: str) -> Iterator[Charge[str]]:
    """Usage in the currency, less prepaid money that comes with the plan; and credits beyond those that come."""
    given = _given(part, spec)
    for line in own:
        if line.unit == currency:
            paid = min(line.amount, given[currency])
            given[currency] -= paid
            yield Charge(line.price.key, line.amount, paid, id(part))
    used: dict[str, Decimal] = defaultdict(Decimal)
    for line in own:
        used[line.unit] += line.amount
    for term in spec.overage:
        beyond = max(used[term.unit] - given[term.unit], ZERO)
        yield Charge(f"overage:{term.unit}", quantise(beyond * term.unit_amount), part=id(part))


def _given(part: PlanSegment, spec: VersionSpec) -> dict[str, Decimal]:
    """By unit: the credits that come with the plan in this part of a billing period."""
    months = spec.interval_count * (12 if spec.interval == "year" else 1)
    given: dict[str, Decimal] = defaultdict(Decimal)
    for credit in spec.credits:
        times = months if credit.every == "month" else 1
        given[credit.unit] += part.share.of(credit.amount * times)
    return given


def _minimums(part: PlanSegment, spec: VersionSpec, own: Iterable[Line], currency: str) -> Iterator[Minimum[str]]:
    rates = {currency: Decimal(1), **{term.unit: term.unit_amount for term in spec.overage}}
    for line in own:
        rate, least = rates.get(line.unit, ZERO), line.terms.minimum_amount
        if least is not None and rate:
            yield Minimum(line.price.key, least * rate, id(part), line.amount * rate)
    if spec.minimum_spend is not None:
        yield Minimum("minimum_spend", part.share.of(spec.minimum_spend), id(part))
