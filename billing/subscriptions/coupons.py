"""Coupons on subscriptions: redeem one, take it off, and which of them discount a billing period."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from billing.errors import Conflict
from billing.metering.services import claim, publish
from billing.periods import quarter_floor
from billing.pricing.coupons import Discount, Offer
from billing.pricing.models import Coupon, CouponDuration
from billing.subscriptions.models import BillingPeriod, CouponRedemption, CouponUse, PeriodStatus, Subscription


@transaction.atomic
def redeem(*, subscription: Subscription, coupon: Coupon, at: datetime) -> CouponRedemption:
    """Put the coupon on the subscription, from the billing period that is open (or will open first) on.

    Raises Conflict `coupon_expired`, `coupon_used_up`, `coupon_redeemed`, `wrong_currency`, `add_on`,
    `subscription_ended`.
    """
    claim(customer_id=subscription.customer_id)
    coupon = Coupon.objects.select_for_update().get(pk=coupon.pk)  # two at once must not both be the last
    subscription = Subscription.objects.select_related("version__plan").get(pk=subscription.pk)
    _check(subscription, coupon, at)
    period = subscription.periods.filter(status=PeriodStatus.OPEN).first()
    if period is None:
        raise Conflict("This subscription has ended. Redeem it with another one.", code="subscription_ended")
    redemption = CouponRedemption.objects.create(
        subscription=subscription, coupon=coupon, starts_at=period.starts_at, created_at=at
    )
    publish(customer_id=subscription.customer_id)
    return redemption


@transaction.atomic
def take_off(*, redemption: CouponRedemption, at: datetime) -> CouponRedemption:
    """The coupon discounts no billing period that begins from `at` on; the running one keeps it.

    Raises Conflict `coupon_taken_off`.
    """
    claim(customer_id=redemption.subscription.customer_id)
    locked = CouponRedemption.objects.select_for_update().get(pk=redemption.pk)
    if locked.ends_at is not None:
        raise Conflict("This coupon was taken off already.", code="coupon_taken_off")
    locked.ends_at = max(locked.starts_at, quarter_floor(at))
    locked.save(update_fields=["ends_at"])
    publish(customer_id=redemption.subscription.customer_id)
    return locked


def _check(subscription: Subscription, coupon: Coupon, at: datetime) -> None:
    if coupon.redeem_by is not None and coupon.redeem_by <= at:
        raise Conflict("This coupon can no longer be redeemed.", code="coupon_expired", field="coupon")
    if coupon.max_redemptions is not None and coupon.redemptions.count() >= coupon.max_redemptions:
        raise Conflict("This coupon has been redeemed as often as it may.", code="coupon_used_up", field="coupon")
    if coupon.currency and coupon.currency != subscription.version.plan.currency:
        detail = f"This coupon is in {coupon.currency}, the plan in {subscription.version.plan.currency}."
        raise Conflict(detail, code="wrong_currency", field="coupon")
    if subscription.beside_id is not None:
        detail = "This is an add-on: put the coupon on the subscription that it is added to."
        raise Conflict(detail, code="add_on", field="subscription")
    if subscription.coupons.filter(coupon=coupon).exists():
        detail = "This subscription has redeemed this coupon already."
        raise Conflict(detail, code="coupon_redeemed", field="coupon")


def held(period: BillingPeriod) -> list[CouponRedemption]:
    """Those that discount the period unless they are used up, in the order they were redeemed. One query."""
    of_subscription = CouponRedemption.objects.filter(subscription=period.subscription_id)
    begun = of_subscription.filter(Q(ends_at=None) | Q(ends_at__gt=period.starts_at), starts_at__lt=period.ends_at)
    return list(begun.select_related("coupon").order_by("created_at", "id"))


def offers(redemptions: Iterable[CouponRedemption], used: Mapping[str, int]) -> list[Offer]:
    """What they give where `used` says how many billing periods each coupon, by key, has discounted already."""
    coupons = [one.coupon for one in redemptions]
    return [
        Offer(coupon.key, coupon.name, coupon.percent, coupon.amount)
        for coupon in coupons
        if coupon.duration == CouponDuration.FOREVER or used.get(coupon.key, 0) < (coupon.periods or 1)
    ]


def used_before(period: BillingPeriod) -> Counter[str]:
    """By key of the coupon: how many earlier billing periods of the subscription it discounted, of those that are
    frozen. One query."""
    uses = CouponUse.objects.filter(
        redemption__subscription=period.subscription_id, period__starts_at__lt=period.starts_at
    )
    return Counter(uses.values_list("redemption__coupon__key", flat=True))


def record_uses(period: BillingPeriod, found: Iterable[Discount[int]]) -> None:
    """Keep what coupons took off a billing period that is frozen."""
    amounts = {one.offer.key: one.amount for one in found}
    CouponUse.objects.bulk_create(
        CouponUse(redemption=one, period=period, amount=amounts[one.coupon.key])
        for one in held(period)
        if one.coupon.key in amounts
    )
