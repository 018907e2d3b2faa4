"""Coupons on subscriptions: redeem one, take it off, and which of them discount a billing period."""

from datetime import datetime

from django.db import transaction
from django.db.models import Q

from billing.errors import Conflict
from billing.metering.services import claim, publish
from billing.periods import quarter_floor
from billing.pricing.coupons import Offer
from billing.pricing.models import Coupon, CouponDuration
from billing.subscriptions.models import BillingPeriod, CouponRedemption, PeriodStatus, Subscription


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


def offers(period: BillingPeriod) -> list[Offer]:
    """What coupons discount the period, in the order they were redeemed. One query, and one per coupon with a number
    of periods."""
    of_subscription = CouponRedemption.objects.filter(subscription=period.subscription_id)
    begun = of_subscription.filter(Q(ends_at=None) | Q(ends_at__gt=period.starts_at), starts_at__lte=period.starts_at)
    return [
        Offer(coupon.key, coupon.name, coupon.percent, coupon.amount)
        for redemption in begun.select_related("coupon").order_by("created_at", "id")
        if _lasts(redemption, coupon := redemption.coupon, period)
    ]


def _lasts(redemption: CouponRedemption, coupon: Coupon, period: BillingPeriod) -> bool:
    if coupon.duration == CouponDuration.FOREVER:
        return True
    earlier = BillingPeriod.objects.filter(
        subscription=period.subscription_id, starts_at__gte=redemption.starts_at, starts_at__lt=period.starts_at
    )
    return earlier.count() < (coupon.periods or 1)
