"""Who pays by which plan, in which billing periods."""

from functools import partial

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import Customer
from billing.fields import amount_field, ordered, positive
from billing.money import plain
from billing.periods import Interval
from billing.pricing.models import Coupon, PlanVersion
from billing.subscriptions.proration import Share


class SubscriptionStatus(models.TextChoices):
    ACTIVE = "active", "Active"
    ENDED = "ended", "Ended"


class Subscription(models.Model):
    """A customer on a plan version, from a quarter hour on.

    `ends_at` lies ahead while a cancellation waits for it. Billing periods are derived from `anchored_on`, a date of
    the customer's calendar: that of the start, or of the change to a plan with other billing periods.
    """

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "sub"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="subscriptions")
    version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="subscriptions")
    beside = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="add_ons",
        help_text="Of an add-on: the subscription that it is added to, and whose billing periods it shares.",
    )
    status = models.CharField(
        max_length=16, choices=SubscriptionStatus, default=SubscriptionStatus.ACTIVE, editable=False
    )
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, editable=False)
    next_version = models.ForeignKey(
        PlanVersion,
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="+",
        help_text="Holds from the next billing period.",
    )
    trial_ends_at = models.DateTimeField(null=True, editable=False)
    anchored_on = models.DateField(editable=False)
    anchor_day = models.PositiveSmallIntegerField(help_text="Day of month on which periods begin, 1 to 31.")
    anchor_month = models.PositiveSmallIntegerField(null=True, blank=True, help_text="For yearly plans, 1 to 12.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["starts_at", "id"]
        constraints = [
            models.CheckConstraint(condition=Q(anchor_day__range=(1, 31)), name="subscription_anchor_day_exists"),
            models.CheckConstraint(
                condition=Q(anchor_month=None) | Q(anchor_month__range=(1, 12)),
                name="subscription_anchor_month_exists",
            ),
            models.CheckConstraint(
                condition=Q(status__in=SubscriptionStatus.values), name="subscription_status_is_known"
            ),
            models.CheckConstraint(
                condition=Q(ends_at=None) | Q(ends_at__gte=models.F("starts_at")),
                name="subscription_ends_later",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.customer.key} on {self.version}"


class CouponRedemption(models.Model):
    """A coupon on a subscription: it discounts the billing periods that share time with [starts_at, ends_at).

    `starts_at` is the beginning of the first of them, unless the change that began that one was taken back. Only its
    end may change (a trigger guards it).
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="coupons")
    coupon = models.ForeignKey(Coupon, on_delete=models.PROTECT, related_name="redemptions")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True, help_text="Set when it was taken off.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["starts_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["subscription", "coupon"], condition=Q(ends_at=None), name="coupon_once_per_subscription"
            ),
            models.CheckConstraint(
                condition=Q(ends_at=None) | Q(ends_at__gte=models.F("starts_at")), name="redemption_ends_later"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.coupon.key} on {self.subscription}"


class PeriodStatus(models.TextChoices):
    OPEN = "open", "Open"
    GRACE = "grace", "In grace"
    CLOSED = "closed", "Closed"


class BillingPeriod(models.Model):
    """The half-open stretch for which a subscription is billed at once, in the customer's zone as of its opening.

    [`whole_starts_at`, `whole_ends_at`) is what a full base fee is for: longer than the period where that begins
    between two anchors or ends early. `version` is that of the last plan segment. A period whose subscription was
    cancelled as it began, or that a change began which was taken back, is empty.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="periods")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="+")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    whole_starts_at = models.DateTimeField()
    whole_ends_at = models.DateTimeField()
    timezone = models.CharField(max_length=64)
    status = models.CharField(max_length=8, choices=PeriodStatus, default=PeriodStatus.OPEN)
    billed_at = models.DateTimeField(null=True, help_text="When its lines were frozen: soon after it has closed.")

    class Meta:
        ordering = ["starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["subscription", "starts_at"], name="one_period_per_start"),
            models.UniqueConstraint(
                fields=["subscription"], condition=Q(status="open"), name="one_open_period_per_subscription"
            ),
            models.CheckConstraint(condition=Q(status__in=PeriodStatus.values), name="period_status_is_known"),
            models.CheckConstraint(
                condition=Q(ends_at__gt=models.F("starts_at"))
                | Q(ends_at=models.F("starts_at"), status__in=[PeriodStatus.GRACE, PeriodStatus.CLOSED]),
                name="period_is_not_empty",
            ),
            models.CheckConstraint(
                condition=Q(whole_starts_at__lte=models.F("starts_at"), whole_ends_at__gte=models.F("ends_at")),
                name="period_is_part_of_a_whole",
            ),
        ]
        indexes = [
            # Due work: periods to roll, and those whose grace has passed.
            models.Index(fields=["ends_at"], condition=~Q(status="closed"), name="period_due"),
            models.Index(fields=["customer", "starts_at"], name="period_of_customer"),
            # Due work: closed periods whose lines are not frozen yet.
            models.Index(fields=["customer"], condition=Q(status="closed", billed_at=None), name="period_to_bill"),
        ]

    def __str__(self) -> str:
        return f"{self.subscription}: {self.starts_at:%Y-%m-%d} to {self.ends_at:%Y-%m-%d}"


class PeriodChange(models.Model):
    """What a subscription and its open period were before a change to a plan with other billing periods, kept while it
    may be taken back. `period` was ended by it, or if it had just begun, turned into one of the other plan."""

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="period_changes")
    period = models.ForeignKey(BillingPeriod, on_delete=models.CASCADE, related_name="+")
    version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="+")
    ends_at = models.DateTimeField()
    whole_starts_at = models.DateTimeField()
    whole_ends_at = models.DateTimeField()
    anchored_on = models.DateField()
    anchor_day = models.PositiveSmallIntegerField()
    anchor_month = models.PositiveSmallIntegerField(null=True)
    asked_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.subscription} until {self.asked_at:%Y-%m-%d %H:%M}"


class CouponUse(models.Model):
    """What a coupon took off a billing period, kept when the period is frozen. Append-only.

    Of a coupon for a number of billing periods these are what counts: a trial, or a period in which there was nothing
    to discount, uses nothing up.
    """

    redemption = models.ForeignKey(CouponRedemption, on_delete=models.PROTECT, related_name="uses")
    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="+")
    amount = amount_field(help_text="In the plan's currency.")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["redemption", "period"], name="coupon_use_once_per_period"),
            positive("amount", "coupon_use_amount_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.redemption.coupon.key}: {plain(self.amount)}"


class PlanSegment(models.Model):
    """A stretch of a billing period under one plan version; those of a period follow each other without a gap.

    Quantities begin anew in each. Whatever a plan version says for a billing period counts in proportion. In a trial
    nothing is charged.
    """

    period = models.ForeignKey(BillingPeriod, on_delete=models.CASCADE, related_name="plan_segments")
    version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="+")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    is_trial = models.BooleanField(default=False)
    created_at = models.DateTimeField(help_text="When it was asked for: a change that is undone at once never was.")

    class Meta:
        ordering = ["starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["period", "starts_at"], name="one_plan_segment_per_start"),
            ordered("starts_at", "ends_at", "plan_segment_is_not_empty"),
        ]

    def __str__(self) -> str:
        return f"{self.version} from {self.starts_at:%Y-%m-%d %H:%M} to {self.ends_at:%Y-%m-%d %H:%M}"

    @property
    def share(self) -> Share:
        """Which part of a whole billing period it is."""
        period = self.period
        return Share(Interval(self.starts_at, self.ends_at), Interval(period.whole_starts_at, period.whole_ends_at))
