"""Questions about subscriptions and their billing periods."""

from datetime import date, datetime, timedelta
from typing import Final

from django.db.models import DateField, DateTimeField, Func, Q, QuerySet
from django.db.models.functions import Cast

from accounts.models import Customer
from billing.periods import Interval, calendar_period
from billing.subscriptions.models import BillingPeriod, PeriodStatus, Subscription, SubscriptionStatus

GRACE: Final = timedelta(hours=24)  # for events that come late, before a period closes


def subscriptions(customer: Customer | None = None) -> QuerySet[Subscription]:
    """Those of a customer, or of all; oldest first."""
    found = Subscription.objects.select_related("customer", "version__plan").order_by("starts_at", "id")
    return found if customer is None else found.filter(customer=customer)


def periods(
    customer: Customer, *, starts_at: datetime | None = None, ends_at: datetime | None = None
) -> QuerySet[BillingPeriod]:
    """The customer's billing periods that share time with [starts_at, ends_at), in time order."""
    found = BillingPeriod.objects.filter(customer=customer).select_related("customer", "subscription", "version__plan")
    if starts_at is not None:
        found = found.filter(ends_at__gt=starts_at)
    if ends_at is not None:
        found = found.filter(starts_at__lt=ends_at)
    return found.order_by("starts_at", "id")


def current_period(customer: Customer, at: datetime, subscription: Subscription | None = None) -> BillingPeriod | None:
    """The billing period at that instant, of this subscription or of the oldest active one; None without any.

    In the moment between a period's end and the tick that opens the next one, it is still the one that ended.
    """
    found = periods(customer).filter(starts_at__lte=at)
    if subscription is not None:
        return found.filter(subscription=subscription).order_by("-starts_at").first()
    active = found.filter(subscription__status=SubscriptionStatus.ACTIVE)
    return active.order_by("subscription__starts_at", "subscription_id", "-starts_at").first()


def period_beginning(customer: Customer, day: date) -> BillingPeriod | None:
    """The billing period that begins on this day of its own zone; of the oldest subscription that has one."""
    local = Func("timezone", "starts_at", function="timezone", output_field=DateTimeField())
    found = periods(customer).alias(first_day=Cast(local, DateField())).filter(first_day=day)
    return found.order_by("subscription__starts_at", "subscription_id").first()


def period_before(period: BillingPeriod) -> BillingPeriod | None:
    """The one before it of the same subscription."""
    earlier = BillingPeriod.objects.filter(subscription=period.subscription_id, starts_at__lt=period.starts_at)
    return earlier.order_by("-starts_at").first()


def default_range(customer: Customer, at: datetime, subscription: Subscription | None = None) -> Interval:
    """What a question without a range is about: the billing period, else the calendar month of the customer."""
    period = current_period(customer, at, subscription)
    if period is None:
        return calendar_period("month", at, customer.timezone)
    return Interval(period.starts_at, period.ends_at)


def due_customers(at: datetime) -> list[int]:
    """Ids of the customers whose periods `services.roll` would move."""
    ended = Q(status=PeriodStatus.OPEN, ends_at__lte=at, subscription__status=SubscriptionStatus.ACTIVE)
    over = Q(status=PeriodStatus.GRACE, ends_at__lte=at - GRACE)
    found = BillingPeriod.objects.filter(ended | over)
    return list(found.order_by("customer_id").values_list("customer_id", flat=True).distinct())
