"""Actions on what differs from a plan version: amounts for one customer, and coupons."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import F, Q

from accounts.models import Customer, User
from billing.errors import Conflict
from billing.metering.services import claim, publish
from billing.money import is_currency
from billing.periods import quarter_ceil, quarter_floor
from billing.pricing.models import Coupon, CouponDuration, MatchRow, Price, PriceOverride, VersionStatus
from billing.pricing.queries import price_spec
from billing.pricing.services import refusal, row_columns
from billing.pricing.spec import MatchSpec, amount_problems, key_problems
from billing.pricing.validation import Problem

MAX_PERIODS = 1200


@transaction.atomic
def override_price(
    *,
    customer: Customer,
    price: Price,
    row: MatchRow | None,
    amounts: MatchSpec,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    reason: str = "",
    created_by: User | None = None,
    at: datetime,
) -> PriceOverride:
    """Let one row of a price (None: its default) cost other amounts for the customer in [starts_at, ends_at).

    They hold from the quarter hour of `starts_at` (default: `at`) on, which is not in the past; what was used before
    costs what it did. `where` of the amounts is the row's. Raises ValidationError by field, Conflict
    `override_overlaps`.
    """
    claim(customer_id=customer.pk)
    begins, ends = quarter_floor(starts_at or at), ends_at and quarter_ceil(ends_at)
    found = [*_amount_problems(price, row, amounts), *_range_problems(begins, ends, at)]
    if found:
        raise refusal(found)
    _check_alone(customer, price, row, begins, ends)
    made = PriceOverride.objects.create(
        customer=customer,
        price=price,
        row=row,
        starts_at=begins,
        ends_at=ends,
        reason=reason,
        created_by=created_by,
        created_at=at,
        **row_columns(amounts),
    )
    publish(customer_id=customer.pk)
    return made


@transaction.atomic
def end_override(*, override: PriceOverride, at: datetime) -> PriceOverride:
    """From the quarter hour of `at` on the price is the plan's again; one that lies ahead never holds. It ends under
    each plan version that it was carried over to.

    Raises Conflict `override_ended` when no part of it still holds or ever will.
    """
    claim(customer_id=override.customer_id)
    first = override.carried_from_id or override.pk
    same = PriceOverride.objects.select_for_update(of=["self"]).filter(Q(pk=first) | Q(carried_from=first))
    locked = {one.pk: one for one in same}
    ended = [one for one in locked.values() if _end(one, at)]
    if not ended:
        raise Conflict("These amounts hold no longer.", code="override_ended")
    publish(customer_id=override.customer_id)
    return locked[override.pk]


def _end(override: PriceOverride, at: datetime) -> bool:
    """Whether it had not ended by then."""
    ends_at = max(override.starts_at, quarter_floor(at))
    if override.ends_at is not None and override.ends_at <= ends_at:
        return False
    override.ends_at = ends_at
    override.save(update_fields=["ends_at"])
    return True


def _amount_problems(price: Price, row: MatchRow | None, amounts: MatchSpec) -> Iterator[Problem]:
    if price.version.status == VersionStatus.DRAFT:
        yield Problem("price", "version_not_published", "Change the draft itself: nobody pays by it yet.")
    if row is not None and row.price_id != price.pk:
        yield Problem("row", "foreign_row", "This row belongs to another price.")
        return
    spec = price_spec(price)
    alone = replace(spec, match=(replace(amounts, where=row.where if row else {"-": "-"}),))
    for problem in amount_problems(alone):
        if problem.field.startswith("match.0."):
            yield replace(problem, field=problem.field.removeprefix("match.0."))


def _range_problems(begins: datetime, ends: datetime | None, at: datetime) -> Iterator[Problem]:
    if begins < quarter_floor(at):
        yield Problem("starts_at", "in_the_past", "What was used has its price. Begin now or later.")
    if ends is not None and ends <= begins:
        yield Problem("ends_at", "not_after_start", "It ends after it begins.")


def _check_alone(
    customer: Customer, price: Price, row: MatchRow | None, begins: datetime, ends: datetime | None
) -> None:
    same = PriceOverride.objects.filter(customer=customer, price=price, row=row).exclude(ends_at=F("starts_at"))
    lasting = same.filter(Q(ends_at=None) | Q(ends_at__gt=begins))
    if (lasting if ends is None else lasting.filter(starts_at__lt=ends)).exists():
        detail = "This customer has other amounts for this row at that time already. End those first."
        raise Conflict(detail, code="override_overlaps", field="starts_at")


# --- coupons --------------------------------------------------------------------------------------------------


def create_coupon(
    *,
    key: str,
    name: str,
    percent: Decimal | None = None,
    amount: Decimal | None = None,
    currency: str = "",
    duration: str = CouponDuration.ONCE,
    periods: int | None = None,
    redeem_by: datetime | None = None,
    max_redemptions: int | None = None,
    at: datetime,
) -> Coupon:
    """A coupon of `percent`, or of an `amount` of a currency, off each of its billing periods.

    Raises ValidationError by field, Conflict `already_exists`.
    """
    coupon = Coupon(
        key=key,
        name=name,
        percent=percent,
        amount=amount,
        currency=currency if amount is not None else "",
        duration=duration,
        periods=periods if duration == CouponDuration.PERIODS else None,
        redeem_by=redeem_by,
        max_redemptions=max_redemptions,
        created_at=at,
    )
    found = [*key_problems(key), *_coupon_problems(coupon, at)]
    if found:
        raise refusal(found)
    coupon.clean_fields()
    if Coupon.objects.filter(key=key).exists():
        detail = f'There is a coupon "{key}" already. Choose another key.'
        raise Conflict(detail, code="already_exists", field="key")
    coupon.save(force_insert=True)
    return coupon


def _coupon_problems(coupon: Coupon, at: datetime) -> Iterator[Problem]:
    if (coupon.percent is None) == (coupon.amount is None):
        yield Problem("percent", "one_of_two", "Give a percentage or an amount, one of both.")
    if coupon.percent is not None and not 0 < coupon.percent <= 100:  # noqa: PLR2004 -- percent
        yield Problem("percent", "out_of_range", "Use more than 0, and at most 100.")
    if coupon.amount is not None and coupon.amount <= 0:
        yield Problem("amount", "not_positive", "Send more than zero.")
    if coupon.amount is not None and not is_currency(coupon.currency):
        yield Problem("currency", "unknown_currency", "Name the currency of the amount, such as USD.")
    if coupon.duration not in CouponDuration.values:
        yield Problem("duration", "invalid_choice", f"Use one of {', '.join(CouponDuration.values)}.")
    if coupon.duration == CouponDuration.PERIODS and not 1 <= (coupon.periods or 0) <= MAX_PERIODS:
        yield Problem("periods", "out_of_range", f"Say how many billing periods: 1 to {MAX_PERIODS}.")
    if coupon.redeem_by is not None and coupon.redeem_by <= at:
        yield Problem("redeem_by", "in_the_past", "Nobody could redeem it; name a later instant, or none.")
    if coupon.max_redemptions is not None and coupon.max_redemptions < 1:
        yield Problem("max_redemptions", "not_positive", "Send one or more, or null for no limit.")
