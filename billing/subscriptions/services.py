"""Actions on subscriptions: start, change, cancel and resume them, and roll their billing periods on as time passes."""

from calendar import monthrange
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, Literal, cast

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Customer
from billing.errors import Conflict
from billing.metering.services import claim, publish, track
from billing.periods import (
    QUARTER,
    Anchor,
    Interval,
    PeriodUnit,
    first_period,
    local_date,
    next_period,
    quarter_floor,
    whole_first_period,
)
from billing.pricing.carrying import carry_over
from billing.pricing.models import PlanVersion, Price, VersionStatus
from billing.subscriptions.add_ons import add_on_errors, same_periods, unlike
from billing.subscriptions.models import BillingPeriod, PeriodStatus, PlanSegment, Subscription, SubscriptionStatus
from billing.subscriptions.queries import GRACE, versions_between
from billing.subscriptions.taking_back import remember, take_back

type When = Literal["now", "period_end"]

_FAR: Final = timedelta(days=3653)


@transaction.atomic
def start(
    *,
    customer: Customer,
    version: PlanVersion,
    starts_at: datetime,
    anchor_day: int | None = None,
    anchor_month: int | None = None,
    beside: Subscription | None = None,
    at: datetime,
) -> Subscription:
    """Put the customer on the version from the quarter hour of `starts_at` on, and open the first period.

    Periods begin on `anchor_day` (1-31) and, for yearly plans, in `anchor_month`; by default on the start's own
    day. A trial is a period of its own before them, and they begin by default on the day of its end. Earlier periods
    that are over by `at` are opened by `roll`. An add-on is put `beside` the subscription that it is added to, and ends
    its periods where that does: while that is in its trial nothing is charged for it, and a trial of its own ends
    within them. Raises ValidationError by field, Conflict `meter_already_priced`.
    """
    claim(customer_id=customer.pk)
    if beside is not None:  # as it is under the claim, whatever the caller has read before
        beside = Subscription.objects.select_related("version__plan").get(pk=beside.pk)
    starts_at = quarter_floor(starts_at)
    if errors := add_on_errors(customer, version, beside, starts_at):
        raise ValidationError(errors)
    _check(customer, version, starts_at=starts_at, anchor_day=anchor_day, anchor_month=anchor_month, at=at)
    _check_meters(customer, version, starts_at)
    zone = _zone(customer.pk)
    trial_ends_at = _trial_end(version, starts_at, beside)
    anchored_on = beside.anchored_on if beside else local_date(trial_ends_at or starts_at, zone)
    subscription = Subscription.objects.create(
        customer=customer,
        version=version,
        beside=beside,
        starts_at=starts_at,
        ends_at=beside.ends_at if beside else None,
        trial_ends_at=trial_ends_at,
        anchored_on=anchored_on,
        anchor_day=beside.anchor_day if beside else anchor_day or anchored_on.day,
        anchor_month=beside.anchor_month if beside else anchor_month,
        created_at=at,
    )
    if (shared := _period_of_main(subscription, starts_at)) is not None:
        _open_like(subscription, shared, starts_at, at)
    elif trial_ends_at is not None and beside is None:
        trial = Interval(starts_at, trial_ends_at)
        _open(subscription, trial, trial, zone, at)
    else:
        _open_anew(subscription, starts_at, zone, at)
    publish(customer_id=customer.pk)
    return subscription


@transaction.atomic
def change(*, subscription: Subscription, version: PlanVersion, when: When, at: datetime) -> Subscription:
    """Put the subscription on another version: from the quarter hour of `at` on, or from the next billing period.

    A version with the same billing periods begins a plan segment of the present one; another ends the period, and
    periods are counted from then; what is cancelled ends with the first of them. In a trial the trial goes on. A change
    that is taken back within a quarter hour never was; a change to the present version calls off the one that waits for
    the period's end. Raises ValidationError by field, Conflict `subscription_ended`, `meter_already_priced`.
    """
    subscription = _claimed(subscription, at)
    _check_change(subscription, version, at)
    _check_meters(subscription.customer, version, at, subscription=subscription)
    if when == "period_end" or version == subscription.version:
        subscription.next_version = version if version != subscription.version else None
        subscription.save(update_fields=["next_version"])
    else:
        _change_now(subscription, version, at)
    publish(customer_id=subscription.customer_id)
    return subscription


@transaction.atomic
def cancel(*, subscription: Subscription, when: When, at: datetime) -> Subscription:
    """End the subscription at the start of the quarter hour of `at`, or with the billing period.

    One that is cancelled in its first quarter hour never was. Its add-ons end with it; those that would begin later
    never do. Raises Conflict `subscription_ended`.
    """
    subscription = _claimed(subscription, at)
    period = _open_period(subscription)
    for add_on in _add_ons(subscription):
        cancel(subscription=add_on, when="now" if add_on.starts_at >= period.ends_at else when, at=at)
    if when == "period_end":
        subscription.ends_at = period.ends_at
    else:
        subscription.ends_at = max(quarter_floor(at), period.starts_at)
        subscription.status = SubscriptionStatus.ENDED
        _end_early(period, subscription.ends_at)
        period.status = PeriodStatus.GRACE
        period.save()
    subscription.save(update_fields=["ends_at", "status"])
    publish(customer_id=subscription.customer_id)
    return subscription


@transaction.atomic
def resume(*, subscription: Subscription, at: datetime) -> Subscription:
    """Take back a cancellation that waits for the period's end, with the add-ons that would have ended then. Raises
    Conflict `subscription_ended`, `not_cancelled`, `meter_already_priced`, `subscription_cancelled`: of what an add-on
    is added to."""
    subscription = _claimed(subscription, at)
    if subscription.ends_at is None:
        raise Conflict("This subscription is not cancelled, so there is nothing to resume.", code="not_cancelled")
    if subscription.beside is not None and subscription.beside.ends_at is not None:
        detail = "The subscription that this add-on is added to is cancelled. Resume that one."
        raise Conflict(detail, code="subscription_cancelled")
    ended_at, subscription.ends_at = subscription.ends_at, None
    for version in filter(None, (subscription.version, subscription.next_version)):
        _check_meters(subscription.customer, version, ended_at, subscription=subscription)
    subscription.save(update_fields=["ends_at"])
    for add_on in _add_ons(subscription).filter(ends_at=ended_at):
        resume(subscription=add_on, at=at)
    publish(customer_id=subscription.customer_id)
    return subscription


# --- time passes ----------------------------------------------------------------------------------------------


def roll(*, customer_id: int, at: datetime) -> bool:
    """Move the customer's periods on to `at`; whether anything moved. Needs the claim.

    An open period goes into grace at its end and the next one opens, in order, however many were missed. Grace
    becomes closed a day after the end, but never in the roll in which it began: a period that was opened late is
    settled at least once before it closes.
    """
    over = BillingPeriod.objects.filter(customer_id=customer_id, status=PeriodStatus.GRACE, ends_at__lte=at - GRACE)
    moved = over.update(status=PeriodStatus.CLOSED) > 0
    ended = BillingPeriod.objects.filter(
        customer_id=customer_id,
        status=PeriodStatus.OPEN,
        ends_at__lte=at,
        subscription__status=SubscriptionStatus.ACTIVE,
    )
    parts = ("subscription__version", "subscription__next_version", "subscription__customer")
    for period in ended.select_related(*parts).order_by("ends_at", "id"):
        _catch_up(period, at)
        moved = True
    return moved


def _catch_up(period: BillingPeriod, at: datetime) -> None:
    subscription = period.subscription
    while period.ends_at <= at:
        period.status = PeriodStatus.GRACE
        period.save(update_fields=["status"])
        if subscription.ends_at is not None and subscription.ends_at <= period.ends_at:
            subscription.status = SubscriptionStatus.ENDED
            subscription.save(update_fields=["status"])
            return
        period = _follow(subscription, period)


def _follow(subscription: Subscription, period: BillingPeriod) -> BillingPeriod:
    """Open the next period, under the version that waits for it."""
    zone = subscription.customer.timezone
    before, after = subscription.version, subscription.next_version
    if after is not None:
        subscription.version, subscription.next_version = after, None
        subscription.save(update_fields=["version", "next_version"])
        _carry_over(subscription, before, after, period.ends_at, period.ends_at)
    if (shared := _period_of_main(subscription, period.ends_at)) is not None:
        return _open_like(subscription, shared, period.ends_at, period.ends_at)
    if period.ends_at == subscription.trial_ends_at:
        return _open_anew(subscription, period.ends_at, zone, period.ends_at)
    if after is not None and not same_periods(before, after):
        _anchor_anew(subscription, period.ends_at, zone)
        return _open_anew(subscription, period.ends_at, zone, period.ends_at)
    interval = next_period(_anchor(subscription), zone, period.ends_at)
    return _open(subscription, interval, interval, zone, period.ends_at)


def _trial_end(version: PlanVersion, starts_at: datetime, beside: Subscription | None) -> datetime | None:
    """Of the version's own trial, or of that which an add-on begins in: the later."""
    ends = [starts_at + timedelta(days=version.trial_days)] if version.trial_days else []
    if beside is not None and beside.trial_ends_at is not None and beside.trial_ends_at > starts_at:
        ends.append(beside.trial_ends_at)
    return max(ends, default=None)


def _period_of_main(subscription: Subscription, at: datetime) -> BillingPeriod | None:
    """Of an add-on: the billing period of its subscription at that instant, if it is open by now."""
    theirs = BillingPeriod.objects.filter(subscription=subscription.beside_id, starts_at__lte=at, ends_at__gt=at)
    return theirs.first() if subscription.beside_id is not None else None


def _open_like(subscription: Subscription, shared: BillingPeriod, starts_at: datetime, at: datetime) -> BillingPeriod:
    """Open a period of an add-on that ends where that of its subscription does."""
    whole = Interval(shared.whole_starts_at, shared.whole_ends_at)
    return _open(subscription, Interval(starts_at, shared.ends_at), whole, shared.timezone, at)


def _open_anew(subscription: Subscription, starts_at: datetime, zone: str, at: datetime) -> BillingPeriod:
    """Open a period where the calendar of periods begins: it lasts until the first anchor."""
    anchor = _anchor(subscription)
    whole = whole_first_period(anchor, zone, starts_at)
    return _open(subscription, first_period(anchor, zone, starts_at), whole, zone, at)


def _open(subscription: Subscription, interval: Interval, whole: Interval, zone: str, at: datetime) -> BillingPeriod:
    # Where a change was taken back, the period that it had begun is empty: another may begin there.
    empty = subscription.periods.filter(starts_at=interval.start, ends_at=interval.start).first()
    period = empty or BillingPeriod(subscription=subscription, starts_at=interval.start)
    period.customer_id, period.version_id = subscription.customer_id, subscription.version_id
    period.ends_at, period.status, period.timezone = interval.end, PeriodStatus.OPEN, zone
    period.whole_starts_at, period.whole_ends_at = whole.start, whole.end
    period.save()
    trial_end = min(max(subscription.trial_ends_at or interval.start, interval.start), interval.end)
    cuts = [interval.start, *([trial_end] if interval.start < trial_end < interval.end else []), interval.end]
    PlanSegment.objects.bulk_create(
        PlanSegment(
            period=period,
            version_id=subscription.version_id,
            starts_at=start,
            ends_at=end,
            is_trial=start < trial_end,
            created_at=at,
        )
        for start, end in pairwise(cuts)
    )
    track(customer_id=subscription.customer_id, starts_at=interval.start, ends_at=interval.end)
    return period


def _anchor(subscription: Subscription) -> Anchor:
    version = subscription.version
    return Anchor(
        interval=cast(PeriodUnit, version.interval),
        count=version.interval_count,
        starts_on=subscription.anchored_on,
        day=subscription.anchor_day,
        month=subscription.anchor_month,
    )


def _anchor_anew(subscription: Subscription, at: datetime, zone: str) -> None:
    """Count periods from this day on; the anchor day stays where this is it, though clamped to a shorter month."""
    day = local_date(at, zone)
    if day.day != min(subscription.anchor_day, monthrange(day.year, day.month)[1]):
        subscription.anchor_day = day.day
    subscription.anchored_on, subscription.anchor_month = day, None
    subscription.save(update_fields=["anchored_on", "anchor_day", "anchor_month"])


# --- changes within a period ----------------------------------------------------------------------------------


def _claimed(subscription: Subscription, at: datetime) -> Subscription:
    """The subscription as it is at `at`, with the claim on its customer."""
    claim(customer_id=subscription.customer_id)
    roll(customer_id=subscription.customer_id, at=at)
    parts = ("customer", "version__plan", "next_version__plan", "beside__version__plan")
    found = Subscription.objects.select_related(*parts).get(pk=subscription.pk)
    if found.status == SubscriptionStatus.ENDED:
        raise Conflict("This subscription has ended. Start a new one.", code="subscription_ended")
    return found


def _open_period(subscription: Subscription) -> BillingPeriod:
    return subscription.periods.get(status=PeriodStatus.OPEN)


def _change_now(subscription: Subscription, version: PlanVersion, at: datetime) -> None:
    period = _open_period(subscription)
    starts_at = max(quarter_floor(at), period.starts_at)
    in_trial = period.ends_at == subscription.trial_ends_at
    if in_trial or same_periods(subscription.version, version):
        _begin_segment(period, version, starts_at, at)
        _carry_over(subscription, subscription.version, version, starts_at, at)
        period.version = version
        period.save(update_fields=["version"])
        subscription.version, subscription.next_version = version, None
        subscription.save(update_fields=["version", "next_version"])
        return
    if take_back(subscription, version, at):
        roll(customer_id=subscription.customer_id, at=at)  # its period may have ended in between
        subscription.refresh_from_db()
        if version != subscription.version:
            _change_now(subscription, version, at)
        return
    remember(subscription, period, at)
    is_cancelled, subscription.ends_at = subscription.ends_at is not None, None
    if starts_at > period.starts_at:
        _end_early(period, starts_at)
        period.save(update_fields=["ends_at"])
        subscription.next_version = version
        subscription.save(update_fields=["next_version", "ends_at"])
        roll(customer_id=subscription.customer_id, at=at)
        subscription.refresh_from_db()
    else:
        _begin_anew(subscription, period, version, at)
    if is_cancelled:
        subscription.ends_at = _open_period(subscription).ends_at
    subscription.save(update_fields=["ends_at"])


def _carry_over(
    subscription: Subscription, before: PlanVersion, after: PlanVersion, starts_at: datetime, at: datetime
) -> None:
    carry_over(customer_id=subscription.customer_id, before=before, after=after, starts_at=starts_at, at=at)


def _begin_segment(period: BillingPeriod, version: PlanVersion, starts_at: datetime, at: datetime) -> None:
    """From there on the period is one of the version; where a trial ends within the period, it still does."""
    earlier = period.plan_segments.filter(starts_at__lte=starts_at).order_by("starts_at")
    period.plan_segments.filter(starts_at__gt=starts_at).update(version=version)
    *_, before, last = [None, *earlier]
    assert last is not None
    replaces = last.starts_at >= starts_at or at - last.created_at < QUARTER
    goes_on = before is not None and (before.version_id, before.is_trial) == (version.pk, last.is_trial)
    if before is not None and goes_on and replaces:
        last.delete()
        before.ends_at = last.ends_at
        before.save(update_fields=["ends_at"])
    elif last.starts_at >= starts_at:
        last.version = version
        last.save(update_fields=["version"])
    else:
        ends_at, last.ends_at = last.ends_at, starts_at
        last.save(update_fields=["ends_at"])
        PlanSegment.objects.create(
            period=period,
            version=version,
            starts_at=starts_at,
            ends_at=ends_at,
            is_trial=last.is_trial,
            created_at=at,
        )


def _begin_anew(subscription: Subscription, period: BillingPeriod, version: PlanVersion, at: datetime) -> None:
    """The period has only just begun: it becomes one of the other version."""
    _carry_over(subscription, subscription.version, version, period.starts_at, at)
    subscription.version, subscription.next_version = version, None
    subscription.save(update_fields=["version", "next_version"])
    _anchor_anew(subscription, period.starts_at, period.timezone)
    anchor = _anchor(subscription)
    interval = first_period(anchor, period.timezone, period.starts_at)
    whole = whole_first_period(anchor, period.timezone, period.starts_at)
    period.version, period.ends_at = version, interval.end
    period.whole_starts_at, period.whole_ends_at = whole.start, whole.end
    period.save()
    period.plan_segments.update(version=version, ends_at=interval.end)
    track(customer_id=subscription.customer_id, starts_at=interval.start, ends_at=interval.end)


def _end_early(period: BillingPeriod, ends_at: datetime) -> None:
    """Cut the period and its plan segments; what a whole one is stays."""
    period.plan_segments.filter(starts_at__gte=ends_at).delete()
    period.plan_segments.filter(ends_at__gt=ends_at).update(ends_at=ends_at)
    period.ends_at = ends_at
    if ends_at > period.starts_at:
        track(customer_id=period.customer_id, starts_at=period.starts_at, ends_at=ends_at)


# --- what may be ----------------------------------------------------------------------------------------------


def _zone(customer_id: int) -> str:
    """As it is now, whatever whoever asks has read before."""
    return Customer.objects.values_list("timezone", flat=True).get(pk=customer_id)


def _check(
    customer: Customer,
    version: PlanVersion,
    *,
    starts_at: datetime,
    anchor_day: int | None,
    anchor_month: int | None,
    at: datetime,
) -> None:
    errors = _version_errors(customer, version, at)
    if abs(starts_at - at) > _FAR:
        errors["starts_at"] = "Choose an instant within ten years of now."
    if version.interval in ("day", "week") and (anchor_day or anchor_month):
        errors["anchor_day"] = f"Periods of a {version.interval} have no anchor; they begin on the day of the start."
    elif anchor_day is not None and not 1 <= anchor_day <= 31:  # noqa: PLR2004 -- days of a month
        errors["anchor_day"] = "Use 1 to 31; in shorter months the period begins on the last day."
    if anchor_month is not None and not 1 <= anchor_month <= 12:  # noqa: PLR2004 -- months of a year
        errors["anchor_month"] = "Use 1 to 12."
    if errors:
        raise ValidationError(errors)


def _check_change(subscription: Subscription, version: PlanVersion, at: datetime) -> None:
    errors = {} if version == subscription.version else _version_errors(subscription.customer, version, at)
    present, wanted = subscription.version.plan.currency, version.plan.currency
    if present != wanted:
        detail = f"This subscription is billed in {present}, that plan in {wanted}. Cancel it and start another one."
        errors["plan"] = detail
    if version.plan.is_add_on != subscription.version.plan.is_add_on:
        errors["plan"] = "An add-on is changed to another add-on, and a plan to another plan."
    if subscription.beside is not None:
        errors |= unlike(version, subscription.beside.version)
    elif not same_periods(version, subscription.version) and _add_ons(subscription).exists():
        errors["plan"] = "This subscription has add-ons with other billing periods. Cancel those first."
    if errors:
        raise ValidationError(errors)


def _add_ons(subscription: Subscription) -> QuerySet[Subscription]:
    return subscription.add_ons.filter(status=SubscriptionStatus.ACTIVE)


def _version_errors(customer: Customer, version: PlanVersion, at: datetime) -> dict[str, str]:
    if version.status == VersionStatus.RETIRED:
        return {"version": "This version is retired. Choose one that is published."}
    # A test clock is about another time: there, when a version was published does not matter.
    is_published = version.published_at is not None and (customer.test_clock_id or version.published_at <= at)
    if version.status != VersionStatus.PUBLISHED or not is_published:
        return {"version": "This version is not published yet. Publish it first, or choose one that is."}
    return {}


def _check_meters(
    customer: Customer, version: PlanVersion, starts_at: datetime, subscription: Subscription | None = None
) -> None:
    """A meter is priced by one subscription of a customer at a time."""
    ends_at = subscription.ends_at if subscription else None
    lasting = versions_between(customer, starts_at=starts_at, ends_at=ends_at, beside=subscription)
    priced = Price.objects.filter(version__in=lasting, meter__in=Price.objects.filter(version=version).values("meter"))
    taken = sorted(set(priced.values_list("meter__key", flat=True)))
    if taken:
        detail = f"An active subscription of this customer prices {', '.join(taken)} already."
        raise Conflict(detail, code="meter_already_priced", field="plan")
