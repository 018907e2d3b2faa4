"""Actions on subscriptions: start one, and roll its billing periods on as time passes."""

from datetime import datetime, timedelta
from typing import Final, cast

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from accounts.models import Customer
from billing.errors import Conflict
from billing.metering.services import claim, publish, track
from billing.periods import Anchor, Interval, PeriodUnit, first_period, local_date, next_period, quarter_floor
from billing.pricing.models import PlanVersion, Price, VersionStatus
from billing.subscriptions.models import BillingPeriod, PeriodStatus, Subscription, SubscriptionStatus
from billing.subscriptions.queries import GRACE

_FAR: Final = timedelta(days=3653)


@transaction.atomic
def start(
    *,
    customer: Customer,
    version: PlanVersion,
    starts_at: datetime,
    anchor_day: int | None = None,
    anchor_month: int | None = None,
    at: datetime,
) -> Subscription:
    """Put the customer on the version from the quarter hour of `starts_at` on, and open the first period.

    Periods begin on `anchor_day` (1-31) and, for yearly plans, in `anchor_month`; by default on the start's own
    day. Earlier periods that are over by `at` are opened by `roll`. Raises ValidationError by field, Conflict
    `meter_already_priced`.
    """
    claim(customer_id=customer.pk)
    starts_at = quarter_floor(starts_at)
    _check(version, starts_at, anchor_day, anchor_month, at)
    _check_meters(customer, version, starts_at)
    zone = Customer.objects.values_list("timezone", flat=True).get(pk=customer.pk)
    subscription = Subscription.objects.create(
        customer=customer,
        version=version,
        starts_at=starts_at,
        anchor_day=anchor_day or local_date(starts_at, zone).day,
        anchor_month=anchor_month,
        created_at=at,
    )
    _open(subscription, first_period(_anchor(subscription, zone), zone, starts_at), zone)
    publish(customer_id=customer.pk)
    return subscription


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
    for period in ended.select_related("subscription__version", "subscription__customer").order_by("ends_at", "id"):
        _catch_up(period, at)
        moved = True
    return moved


def _catch_up(period: BillingPeriod, at: datetime) -> None:
    subscription = period.subscription
    zone = subscription.customer.timezone
    first_zone = subscription.periods.order_by("starts_at").values_list("timezone", flat=True)[0]
    anchor = _anchor(subscription, first_zone)
    while period.ends_at <= at:
        period.status = PeriodStatus.GRACE
        period.save(update_fields=["status"])
        period = _open(subscription, next_period(anchor, zone, period.ends_at), zone)


def _open(subscription: Subscription, interval: Interval, zone: str) -> BillingPeriod:
    period = BillingPeriod.objects.create(
        subscription=subscription,
        customer_id=subscription.customer_id,
        version_id=subscription.version_id,
        starts_at=interval.start,
        ends_at=interval.end,
        timezone=zone,
    )
    track(customer_id=subscription.customer_id, starts_at=interval.start, ends_at=interval.end)
    return period


def _anchor(subscription: Subscription, first_zone: str) -> Anchor:
    version = subscription.version
    return Anchor(
        interval=cast(PeriodUnit, version.interval),
        count=version.interval_count,
        starts_on=local_date(subscription.starts_at, first_zone),
        day=subscription.anchor_day,
        month=subscription.anchor_month,
    )


def _check(
    version: PlanVersion, starts_at: datetime, anchor_day: int | None, anchor_month: int | None, at: datetime
) -> None:
    errors = {}
    if version.status != VersionStatus.PUBLISHED or version.published_at is None or version.published_at > at:
        errors["version"] = "This version is not published yet. Publish it first, or choose one that is."
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


def _check_meters(customer: Customer, version: PlanVersion, starts_at: datetime) -> None:
    """A meter is priced by one subscription of a customer at a time."""
    lasting = Subscription.objects.filter(Q(ends_at=None) | Q(ends_at__gt=starts_at), customer=customer)
    priced = Price.objects.filter(
        version__subscriptions__in=lasting, meter__in=Price.objects.filter(version=version).values("meter")
    )
    taken = sorted(set(priced.values_list("meter__key", flat=True)))
    if taken:
        detail = f"An active subscription of this customer prices {', '.join(taken)} already."
        raise Conflict(detail, code="meter_already_priced", field="plan")
