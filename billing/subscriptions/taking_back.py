"""Changes to a plan with other billing periods that are taken back within a quarter hour of being asked for never
were: the period that they ended, or turned into another one, goes on as it was."""

from datetime import datetime

from django.db.models import F

from billing.metering.services import track
from billing.periods import QUARTER, quarter_floor
from billing.pricing.carrying import call_off
from billing.pricing.models import PlanVersion
from billing.subscriptions.add_ons import same_periods
from billing.subscriptions.models import BillingPeriod, PeriodChange, PeriodStatus, PlanSegment, Subscription


def remember(subscription: Subscription, period: BillingPeriod, at: datetime) -> None:
    """Keep what the subscription and its open period are before a change that is asked for at `at`."""
    subscription.period_changes.filter(asked_at__lte=at - QUARTER).delete()
    PeriodChange.objects.create(
        subscription=subscription,
        period=period,
        version=subscription.version,
        ends_at=period.ends_at,
        whole_starts_at=period.whole_starts_at,
        whole_ends_at=period.whole_ends_at,
        anchored_on=subscription.anchored_on,
        anchor_day=subscription.anchor_day,
        anchor_month=subscription.anchor_month,
        asked_at=at,
    )


def take_back(subscription: Subscription, version: PlanVersion, at: datetime) -> bool:
    """Whether there was a change, asked for less than a quarter hour ago, from a plan with billing periods as those of
    `version`: then it never was. A cancellation that waits goes on to wait; where it would have come to pass meanwhile,
    the change stays."""
    recent = subscription.period_changes.filter(asked_at__gt=at - QUARTER).select_related("version", "period")
    found = next((one for one in recent.order_by("-pk") if same_periods(one.version, version)), None)
    if found is None or (subscription.ends_at is not None and found.ends_at <= at):
        return False
    _empty_later_periods(subscription, found)
    _restore_subscription(subscription, found)
    _restore_period(found)
    subscription.period_changes.filter(pk__gte=found.pk).delete()
    return True


def _empty_later_periods(subscription: Subscription, change: PeriodChange) -> None:
    """Nothing is billed in them, and what was agreed is not carried over to their versions. Withdrawn credits refer to
    them, so they stay."""
    later = subscription.periods.filter(starts_at__gt=change.period.starts_at)
    segments = PlanSegment.objects.filter(period__in=later)
    others = {change.period.version_id, *segments.values_list("version", flat=True)} - {change.version_id}
    call_off(customer_id=subscription.customer_id, versions=others, since=quarter_floor(change.asked_at))
    segments.delete()
    later.update(ends_at=F("starts_at"), status=PeriodStatus.GRACE)


def _restore_subscription(subscription: Subscription, change: PeriodChange) -> None:
    subscription.version, subscription.next_version = change.version, None
    subscription.anchored_on = change.anchored_on
    subscription.anchor_day, subscription.anchor_month = change.anchor_day, change.anchor_month
    if subscription.ends_at is not None:
        subscription.ends_at = change.ends_at
    subscription.save()


def _restore_period(change: PeriodChange) -> None:
    period = change.period
    if period.version_id == change.version_id:
        _lengthen(period, change)
    else:
        period.plan_segments.filter(starts_at__gt=period.starts_at).delete()
        period.plan_segments.update(version=change.version, ends_at=change.ends_at)
    period.version, period.ends_at, period.status = change.version, change.ends_at, PeriodStatus.OPEN
    period.whole_starts_at, period.whole_ends_at = change.whole_starts_at, change.whole_ends_at
    period.save()
    track(customer_id=period.customer_id, starts_at=period.starts_at, ends_at=period.ends_at)


def _lengthen(period: BillingPeriod, change: PeriodChange) -> None:
    """Its plan segments again reach through its end, with the one that would have begun where it was cut."""
    last = period.plan_segments.latest("starts_at")
    if last.version_id == change.version_id:
        last.ends_at = change.ends_at
        last.save(update_fields=["ends_at"])
    else:
        PlanSegment.objects.create(
            period=period,
            version=change.version,
            starts_at=last.ends_at,
            ends_at=change.ends_at,
            created_at=change.asked_at,
        )
