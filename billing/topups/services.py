"""Actions on top-ups. What is written before money moves, and after it, makes repeats harmless: a payment carries its
top-up's name as idempotency key, and a top-up is granted once."""

import logging
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import stripe
from django.db import IntegrityError, transaction
from django.db.models import Sum

from accounts.models import Customer, User
from billing.authorizations.queries import balances
from billing.credits import services as credits
from billing.credits.models import GrantKind
from billing.errors import Conflict
from billing.money import ZERO, exact, round_to_unit
from billing.periods import calendar_period
from billing.topups import queries
from billing.topups.models import AutomaticTopUp, PaymentAccount, TopUp, TopUpStatus
from billing.topups.providers import Declined, Refused, provider

logger = logging.getLogger(__name__)

_UNPAID: Final = (TopUpStatus.PENDING, TopUpStatus.FAILED)


@transaction.atomic
def order(
    *, customer: Customer, unit: str, amount: Decimal, back: str, at: datetime, created_by: User | None = None
) -> TopUp:
    """Let the customer buy so much; `back` is where the payment page leads afterwards. Conflict `not_for_sale`;
    Unavailable."""
    top_up = _new(customer, unit, amount, at)
    top_up.created_by = created_by
    top_up.save()
    try:
        started = provider(customer).checkout(top_up, queries.payment_account(customer, top_up.provider), back)
    except Refused as refused:
        raise Conflict(str(refused), code="not_for_sale") from refused
    top_up.reference, top_up.url = started.reference, started.url
    top_up.save(update_fields=["reference", "url"])
    return top_up


@exact()
def _new(customer: Customer, unit: str, amount: Decimal, at: datetime) -> TopUp:
    price = queries.unit_price(customer, unit)
    if price is None:
        raise Conflict(f"{unit} cannot be bought in {customer.currency}.", code="not_for_sale", field="unit")
    charge = round_to_unit(amount * price, customer.currency)
    if charge <= 0:
        raise Conflict("That is too little to be charged. Buy more.", code="not_for_sale", field="amount")
    return TopUp(
        customer=customer,
        unit=unit,
        amount=amount,
        currency=customer.currency,
        charge=charge,
        provider=provider(customer).name,
        created_at=at,
    )


@transaction.atomic
def succeed(*, public_id: str, at: datetime) -> TopUp | None:
    """The payment has succeeded: grant it, once. None when there is no such top-up."""
    top_up = TopUp.objects.select_for_update(of=["self"]).select_related("customer").filter(public_id=public_id).first()
    if top_up is None or top_up.status not in _UNPAID:
        return top_up
    with exact():
        cost_basis = top_up.charge / top_up.amount
    top_up.grant = credits.grant(
        customer=top_up.customer,
        unit=top_up.unit,
        amount=top_up.amount,
        kind=GrantKind.PAID,
        cost_basis=round(cost_basis, 12),
        reason="Automatic top-up" if top_up.is_automatic else "Top-up",
        created_by=top_up.created_by,
        at=at,
    )
    top_up.status, top_up.failure, top_up.ended_at = TopUpStatus.PAID, "", at
    top_up.save(update_fields=["grant", "status", "failure", "ended_at"])
    return top_up


@transaction.atomic
def fail(*, public_id: str, failure: str, at: datetime) -> TopUp | None:
    """The payment did not come about. One that has succeeded stays: see `reverse`."""
    top_up = TopUp.objects.select_for_update().filter(public_id=public_id).first()
    if top_up is not None and top_up.status == TopUpStatus.PENDING:
        top_up.status, top_up.failure, top_up.ended_at = TopUpStatus.FAILED, failure[:500], at
        top_up.save(update_fields=["status", "failure", "ended_at"])
    return top_up


@transaction.atomic
def reverse(*, public_id: str, failure: str, at: datetime) -> TopUp | None:
    """The money is gone again, or never came: what is left of the grant is void. An unpaid one has failed."""
    top_up = TopUp.objects.select_for_update(of=["self"]).select_related("grant").filter(public_id=public_id).first()
    if top_up is None or top_up.status != TopUpStatus.PAID or top_up.grant is None:
        return fail(public_id=public_id, failure=failure, at=at)
    if top_up.grant.voided_at is None:
        credits.void(grant=top_up.grant, at=at, reason=failure[:500])
    top_up.status, top_up.failure, top_up.ended_at = TopUpStatus.REVERSED, failure[:500], at
    top_up.save(update_fields=["status", "failure", "ended_at"])
    return top_up


@transaction.atomic
def pay_back(*, public_id: str, failure: str, at: datetime) -> TopUp | None:
    """What was paid is paid back. That may be known before that it was paid, which then grants nothing any more."""
    succeed(public_id=public_id, at=at)
    return reverse(public_id=public_id, failure=failure, at=at)


def save_card(*, top_up: TopUp, reference: str, payment_method: str) -> None:
    """The customer has paid with a card that may be charged again."""
    PaymentAccount.objects.update_or_create(
        customer=top_up.customer,
        provider=top_up.provider,
        defaults={"reference": reference, "payment_method": payment_method},
    )


# --- automatic --------------------------------------------------------------------------------------------------


def top_up_automatically(*, at: datetime) -> int:
    """Order what is due, then charge what is ordered; how many were paid. A lost run loses nothing, and two at once
    order and charge once."""
    for rule in AutomaticTopUp.objects.filter(is_active=True, customer__test_clock=None).select_related("customer"):
        order_if_due(rule=rule, at=at)
    waiting = TopUp.objects.filter(status=TopUpStatus.PENDING, is_automatic=True).select_related("customer")
    return sum(_charge(top_up, at) for top_up in waiting)


@transaction.atomic
@exact()
def order_if_due(*, rule: AutomaticTopUp, at: datetime) -> TopUp | None:
    """The top-up that the rule asks for now; None for nothing. One at a time: another sees what this one ordered."""
    AutomaticTopUp.objects.select_for_update().get(pk=rule.pk)
    missing = _missing(rule, at)
    if missing <= 0 or queries.payment_account(rule.customer, provider(rule.customer).name) is None:
        return None
    try:
        with transaction.atomic():
            top_up = _new(rule.customer, rule.unit, missing, at)
            top_up.is_automatic = True
            top_up.save()
    except (IntegrityError, Conflict):
        return None
    return top_up


def _missing(rule: AutomaticTopUp, at: datetime) -> Decimal:
    """How much to buy: up to the target and within the month's ceiling; none above the threshold or too soon."""
    mine = TopUp.objects.filter(customer=rule.customer, unit=rule.unit, is_automatic=True)
    if mine.filter(created_at__gt=at - timedelta(minutes=rule.cooldown_minutes)).exists():
        return ZERO
    available = next((one.available for one in balances(rule.customer, at) if one.unit == rule.unit), ZERO)
    if available >= rule.threshold:
        return ZERO
    month = calendar_period("month", at, rule.customer.timezone)
    bought = mine.exclude(status=TopUpStatus.FAILED).filter(created_at__gte=month.start)
    spent: Decimal = bought.aggregate(sum=Sum("amount"))["sum"] or ZERO
    wanted: Decimal = min(rule.target - available, rule.monthly_ceiling - spent)
    return wanted


def _charge(top_up: TopUp, at: datetime) -> bool:
    """Charge the saved card. Until it is known what came of it, the top-up waits and is charged again as the same."""
    account = queries.payment_account(top_up.customer, top_up.provider)
    if account is None:
        fail(public_id=top_up.public_id, failure="There is no saved card.", at=at)
        return False
    try:
        if not (payment := provider(top_up.customer).charge(top_up, account)):
            return False
    except Declined as declined:
        fail(public_id=top_up.public_id, failure=str(declined), at=at)
        return False
    except stripe.StripeError:
        logger.exception("Top-up %s could not be charged; it is tried again", top_up.public_id)
        return False
    TopUp.objects.filter(pk=top_up.pk).update(reference=payment)
    succeed(public_id=top_up.public_id, at=at)
    return True
