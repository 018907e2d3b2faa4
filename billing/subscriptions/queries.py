"""Questions about subscriptions and their billing periods."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable
from datetime import date, datetime, timedelta
from typing import Final

from django.db.models import DateField, DateTimeField, F, Func, Min, Prefetch, Q, QuerySet, prefetch_related_objects
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast

from accounts.models import Customer
from billing.periods import Interval, calendar_period
from billing.reads import once, recall, remember
from billing.subscriptions.models import BillingPeriod, PeriodStatus, PlanSegment, Subscription, SubscriptionStatus

RECENT: Final = timedelta(weeks=13)  # as far as forecasts look back
GRACE: Final = timedelta(hours=24)  # for events that come late, before a period closes
NOT_EMPTY: Final = Q(ends_at__gt=F("starts_at"))  # of billing periods: an empty one is nobody's business
_MOMENT: Final = timedelta(microseconds=1)
SEGMENTS: Final = Prefetch("plan_segments", PlanSegment.objects.select_related("version__plan"))


def subscriptions(customer: Customer | None = None) -> QuerySet[Subscription]:
    """Those of a customer, or of all, oldest first; with their open period and its plan segments."""
    parts = ("customer__test_clock", "version__plan", "next_version__plan", "beside__version__plan")
    found = Subscription.objects.select_related(*parts).order_by("starts_at", "id")
    opened = BillingPeriod.objects.filter(status=PeriodStatus.OPEN).prefetch_related(SEGMENTS)
    found = found.prefetch_related(Prefetch("periods", opened, to_attr="open_periods"))
    return found if customer is None else found.filter(customer=customer)


def open_period(subscription: Subscription) -> BillingPeriod | None:
    """The open billing period of one of `subscriptions`; None once it has ended."""
    opened: list[BillingPeriod] = subscription.open_periods  # type: ignore[attr-defined]  # prefetched
    return opened[0] if opened else None


def stage(subscription: Subscription, at: datetime) -> str:
    """Where its life stands: "scheduled", "trialing", "active" or "ended"."""
    if subscription.status == SubscriptionStatus.ENDED:
        return "ended"
    if subscription.starts_at > at:
        return "scheduled"
    in_trial = subscription.trial_ends_at is not None and at < subscription.trial_ends_at
    return "trialing" if in_trial else "active"


def periods(
    customer: Customer, *, starts_at: datetime | None = None, ends_at: datetime | None = None
) -> QuerySet[BillingPeriod]:
    """The customer's billing periods that share time with [starts_at, ends_at), in time order, with their plan
    segments; none that are empty. Two queries."""
    found = BillingPeriod.objects.filter(NOT_EMPTY, customer=customer).prefetch_related(SEGMENTS)
    found = found.select_related("customer", "subscription", "version__plan")
    if starts_at is not None:
        found = found.filter(ends_at__gt=starts_at)
    if ends_at is not None:
        found = found.filter(starts_at__lt=ends_at)
    return found.order_by("starts_at", "id")


def periods_between(customer: Customer, starts_at: datetime, ends_at: datetime) -> list[BillingPeriod]:
    """Those that share time with [starts_at, ends_at), as `periods`; read once where reads are shared."""
    known = _known(customer.pk, starts_at, ends_at)
    if known is not None:
        return known
    key = ("periods", customer.pk, starts_at, ends_at)
    return once(key, lambda: list(periods(customer, starts_at=starts_at, ends_at=ends_at)))


def recent_periods(customer: Customer, at: datetime) -> list[BillingPeriod]:
    """The periods of the last quarter of a year and those that are under way, as `periods`. Where reads are shared,
    what is asked of them afterwards needs no query."""
    since = at - RECENT
    first, found = once(_recently(customer.pk), lambda: (since, list(periods(customer, starts_at=since))))
    return found if first <= since else list(periods(customer, starts_at=since))


def _known(customer_id: int, starts_at: datetime, ends_at: datetime) -> list[BillingPeriod] | None:
    """The same as `periods_between`, from what was read before; None where that does not reach back so far."""
    first, recent = recall(_recently(customer_id)) or (None, [])
    if first is None or first > starts_at:
        return None
    return [one for one in recent if one.ends_at > starts_at and one.starts_at < ends_at]


def _recently(customer_id: int) -> Hashable:
    return "recent periods", customer_id


def read_periods_ahead(ranges: Iterable[tuple[int, datetime, datetime]], known: Collection[BillingPeriod] = ()) -> None:
    """Inside `reads.shared`: read what `periods_between` is going to be asked, (customer id, start, end), in two
    queries; none for what was read before. `known`: some of them, as `periods`, that need not be read again."""
    ranges = [one for one in ranges if recall(("periods", *one)) is None and _known(*one) is None]
    if not ranges:
        return
    customers, starts, ends = zip(*ranges, strict=True)
    found: dict[int, list[BillingPeriod]] = defaultdict(list)
    near = BillingPeriod.objects.filter(NOT_EMPTY, ends_at__gt=min(starts), starts_at__lt=max(ends))
    near = near.filter(customer__in=customers).select_related("customer", "subscription", "version__plan")
    near = near.exclude(pk__in=[period.pk for period in known]).prefetch_related(SEGMENTS)
    for period in sorted([*known, *near], key=lambda one: (one.starts_at, one.pk)):
        found[period.customer_id].append(period)
    remember(
        (
            ("periods", customer_id, starts_at, ends_at),
            [one for one in found[customer_id] if one.ends_at > starts_at and one.starts_at < ends_at],
        )
        for customer_id, starts_at, ends_at in ranges
    )


def segments_of(period: BillingPeriod) -> list[PlanSegment]:
    """The plan segments of the period, in time order. No query for a period of `periods`."""
    prefetch_related_objects([period], SEGMENTS)
    return list(period.plan_segments.all())


def segments_between(customer: Customer, starts_at: datetime, ends_at: datetime) -> list[PlanSegment]:
    """The plan segments that share time with [starts_at, ends_at), period by period. Queries as `periods_between`."""
    return [
        segment
        for period in periods_between(customer, starts_at, ends_at)
        for segment in segments_of(period)
        if segment.ends_at > starts_at and segment.starts_at < ends_at
    ]


def versions_between(
    customer: Customer, *, starts_at: datetime, ends_at: datetime | None, beside: Subscription | None = None
) -> set[int]:
    """Ids of the plan versions that the customer is on, or will be, in [starts_at, ends_at); without those of the
    subscription `beside`."""
    lasting = Subscription.objects.filter(Q(ends_at=None) | Q(ends_at__gt=starts_at), customer=customer)
    parts = PlanSegment.objects.filter(period__customer=customer, ends_at__gt=starts_at)
    if ends_at is not None:
        lasting, parts = lasting.filter(starts_at__lt=ends_at), parts.filter(starts_at__lt=ends_at)
    if beside is not None:
        lasting, parts = lasting.exclude(pk=beside.pk), parts.exclude(period__subscription=beside)
    planned = {version for pair in lasting.values_list("version", "next_version") for version in pair if version}
    return planned | set(parts.values_list("version", flat=True))


def current_period(customer: Customer, at: datetime, subscription: Subscription | None = None) -> BillingPeriod | None:
    """The billing period at that instant, of this subscription or of the oldest active one; None without any.

    In the moment between a period's end and the tick that opens the next one, it is still the one that ended.
    """
    found = periods(customer).filter(starts_at__lte=at)
    if subscription is not None:
        return found.filter(subscription=subscription).order_by("-starts_at").first()
    active = found.filter(subscription__status=SubscriptionStatus.ACTIVE)
    return active.order_by("subscription__starts_at", "subscription_id", "-starts_at").first()


def present_period(customer: Customer, at: datetime) -> BillingPeriod | None:
    """The same as `current_period` of the oldest active subscription, with `recent_periods` read on the way."""
    begun = [one for one in recent_periods(customer, at) if one.starts_at <= at]
    active = [one for one in begun if one.subscription.status == SubscriptionStatus.ACTIVE]
    latest_first = sorted(active, key=lambda one: one.starts_at, reverse=True)
    found = min(latest_first, key=lambda one: (one.subscription.starts_at, one.subscription_id), default=None)
    return found or current_period(customer, at)


def current_periods(customer_ids: Collection[int], at: datetime) -> list[BillingPeriod]:
    """The `current_period` of each of these customers that has one. One query."""
    found = BillingPeriod.objects.filter(
        NOT_EMPTY, customer__in=customer_ids, starts_at__lte=at, subscription__status=SubscriptionStatus.ACTIVE
    )
    ordered = found.order_by("customer_id", "subscription__starts_at", "subscription_id", "-starts_at")
    return list(ordered.distinct("customer_id"))


def period_beginning(customer: Customer, day: date) -> BillingPeriod | None:
    """The billing period that begins on this day of its own zone; of the oldest subscription that has one."""
    found = periods(customer).alias(first_day=_local_day(F("starts_at"))).filter(first_day=day)
    return found.order_by("subscription__starts_at", "subscription_id").first()


def _local_day(instant: Combinable) -> Cast:
    """The instant's day in the period's zone."""
    return Cast(Func("timezone", instant, function="timezone", output_field=DateTimeField()), DateField())


def period_on(
    customer: Customer, when: date | datetime, subscription: Subscription | None = None
) -> BillingPeriod | None:
    """The billing period that an instant, or a day of its own zone, lies in; on a day of two the one that begins.

    Of this subscription, or of the oldest that has one.
    """
    last_moment = F("ends_at") - timedelta(microseconds=1)
    if isinstance(when, datetime):
        found = periods(customer).filter(starts_at__lte=when, ends_at__gt=when)
    else:
        found = (
            periods(customer)
            .alias(first_day=_local_day(F("starts_at")), last_day=_local_day(last_moment))
            .filter(first_day__lte=when, last_day__gte=when)
        )
    if subscription is not None:
        found = found.filter(subscription=subscription)
    return found.order_by("subscription__starts_at", "subscription_id", "-starts_at").first()


def period_before(period: BillingPeriod) -> BillingPeriod | None:
    """The one before it of the same subscription."""
    known = _known(period.customer_id, period.starts_at - _MOMENT, period.starts_at)
    if known is not None:
        before = [one for one in known if one.subscription_id == period.subscription_id]
        if before or period.starts_at == period.subscription.starts_at:
            return before[0] if before else None
    earlier = BillingPeriod.objects.filter(
        NOT_EMPTY, subscription=period.subscription_id, starts_at__lt=period.starts_at
    )
    return earlier.order_by("-starts_at").first()


def last_period(customer: Customer, at: datetime) -> BillingPeriod | None:
    """The billing period that ended last, of any subscription."""
    return periods(customer, ends_at=at).filter(ends_at__lte=at).order_by("-ends_at", "-starts_at").first()


def default_range(customer: Customer, at: datetime, subscription: Subscription | None = None) -> Interval:
    """What a question without a range is about: the billing period, else the calendar month of the customer."""
    period = current_period(customer, at, subscription)
    if period is None:
        return calendar_period("month", at, customer.timezone)
    return Interval(period.starts_at, period.ends_at)


def due_customers(at: datetime, among: Collection[int] | None = None) -> list[int]:
    """Ids of the customers whose periods `services.roll` would move: of these, or of all that live in real time."""
    ended = Q(status=PeriodStatus.OPEN, ends_at__lte=at, subscription__status=SubscriptionStatus.ACTIVE)
    over = Q(status=PeriodStatus.GRACE, ends_at__lte=at - GRACE)
    found = BillingPeriod.objects.filter(ended | over)
    found = found.filter(customer__test_clock=None) if among is None else found.filter(customer__in=among)
    return list(found.order_by("customer_id").values_list("customer_id", flat=True).distinct())


def next_due(customer_ids: Collection[int], after: datetime) -> dict[int, datetime]:
    """By customer: when `services.roll` has something to do next, after this instant."""
    waiting = BillingPeriod.objects.filter(customer__in=customer_ids)
    ended = waiting.filter(status=PeriodStatus.OPEN, ends_at__gt=after)
    over = waiting.filter(status=PeriodStatus.GRACE, ends_at__gt=after - GRACE)
    found = dict(ended.values_list("customer").annotate(Min("ends_at")))
    for customer_id, ends_at in over.values_list("customer").annotate(Min("ends_at")):
        found[customer_id] = min(ends_at + GRACE, found.get(customer_id, ends_at + GRACE))
    return found
