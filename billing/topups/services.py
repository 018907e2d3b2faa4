"""Actions on top-ups. What is written before money moves, and after it, makes repeats harmless: a payment carries its
top-up's name, and a top-up is granted once. No transaction is open while a provider is asked."""

import logging
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.crypto import salted_hmac

from accounts.models import Customer, User
from billing.authorizations import grants
from billing.credits.models import GrantKind
from billing.errors import Conflict
from billing.money import CONTEXT, exact
from billing.topups import queries, troubles
from billing.topups.models import AutomaticTopUp, PaymentAccount, PaymentNotice, TopUp, TopUpStatus
from billing.topups.payments import Card, Outcome, Progress, Refused, Unavailable
from billing.topups.providers import Manual, provider

logger = logging.getLogger(__name__)

OPEN: Final = (TopUpStatus.PENDING, TopUpStatus.ACTION_REQUIRED)
_UNPAID: Final = (*OPEN, TopUpStatus.FAILED)
LOOK_EVERY: Final = timedelta(minutes=10)  # at a payment page of which no webhook has told
BEGUN_WITHIN: Final = timedelta(hours=1)
PAGE_LIVES: Final = timedelta(days=1)  # Stripe's, after which nobody can pay there
MOST: Final = 50  # that one run looks at


def order(
    *, customer: Customer, unit: str, amount: Decimal, at: datetime, created_by: User | None = None, once: str = ""
) -> TopUp:
    """Write down that the customer buys so much. Commit it, then `begin`. What is sent again with the same `once` is
    the same top-up, as it is by then. Conflict `not_for_sale`."""
    top_up = new(customer, unit, amount, at)
    top_up.created_by = created_by
    if not once:
        top_up.save()
        return top_up
    top_up.public_id = _name_of(top_up, once)
    try:
        with transaction.atomic():
            top_up.save(force_insert=True)
    except IntegrityError:
        return TopUp.objects.select_related("customer").get(public_id=top_up.public_id)
    return top_up


def _name_of(top_up: TopUp, once: str) -> str:
    """A name that only this order of this customer has: the database then knows a repeat, even one at the same time."""
    said = f"{top_up.customer_id} {top_up.unit} {top_up.amount.normalize(CONTEXT)} {once}"
    return f"topup_{salted_hmac('billing.topups.order', said, algorithm='sha256').hexdigest()[:32]}"


def new(customer: Customer, unit: str, amount: Decimal, at: datetime) -> TopUp:
    """A top-up at today's price, not stored yet. Conflict `not_for_sale`."""
    offer = queries.offer(customer, unit)
    if offer is None:
        raise Conflict(f"{unit} cannot be bought in {customer.currency}.", code="not_for_sale", field="unit")
    charge = offer.costs(amount, customer.currency)
    refusal = offer.refusal(amount) or ("" if charge > 0 else "That is too little to be charged. Buy more.")
    if refusal:
        raise Conflict(refusal, code="not_for_sale", field="amount")
    return TopUp(
        customer=customer,
        unit=unit,
        amount=amount,
        currency=customer.currency,
        charge=charge,
        provider=provider(customer).name,
        created_at=at,
    )


def begin(*, top_up: TopUp, at: datetime) -> TopUp:
    """Let the customer pay what was ordered, or an automatic top-up that needs them. Repeating it leads to the same
    payment page. Conflict `not_for_sale` when the provider refuses it; Unavailable."""
    if top_up.status == TopUpStatus.ACTION_REQUIRED and not _withdrawn(top_up, at):
        return top_up
    if top_up.status == TopUpStatus.FAILED:
        raise Conflict(top_up.failure, code="not_for_sale")
    is_being_charged = top_up.is_automatic and top_up.status == TopUpStatus.PENDING
    if top_up.status not in OPEN or top_up.url or is_being_charged:
        return top_up
    account = queries.payment_account(top_up.customer, top_up.provider)
    try:
        started = provider(top_up.customer).checkout(top_up, account, queries.page_of(top_up))
    except Refused as refused:
        fail(public_id=top_up.public_id, failure=str(refused), at=at)
        raise Conflict(str(refused), code="not_for_sale") from refused
    begun = {"reference": started.reference, "url": started.url, "tried_at": at, "status": TopUpStatus.PENDING}
    TopUp.objects.filter(pk=top_up.pk, status__in=OPEN).update(**begun)
    top_up.refresh_from_db()
    return top_up


def _withdrawn(top_up: TopUp, at: datetime) -> bool:
    """Whether the saved card is not charged any more, so that the customer may pay by themselves."""
    outcome = provider(top_up.customer).cancel(top_up)
    if outcome.progress == Progress.FAILED:
        TopUp.objects.filter(pk=top_up.pk).update(payment="")
    else:
        settle(public_id=top_up.public_id, outcome=outcome, at=at)
    top_up.refresh_from_db()
    return outcome.progress == Progress.FAILED


def cancel(*, top_up: TopUp, at: datetime) -> TopUp:
    """The customer does not want it any more. It stays when it has been paid in the meantime. Unavailable."""
    if top_up.status in OPEN:
        outcome = provider(top_up.customer).cancel(top_up)
        if outcome.progress == Progress.FAILED:
            fail(public_id=top_up.public_id, failure="It was cancelled.", at=at)
        else:
            settle(public_id=top_up.public_id, outcome=outcome, at=at)
        top_up.refresh_from_db()
    return top_up


# --- what has become of it --------------------------------------------------------------------------------------


@transaction.atomic
def settle(*, public_id: str, outcome: Outcome, at: datetime) -> TopUp | None:
    """Take over what the provider says of the payment."""
    if outcome.progress == Progress.PAID:
        return _paid(public_id, outcome, at)
    if outcome.progress == Progress.NEEDS_CUSTOMER:
        return _ask_customer(public_id, outcome, at)
    if outcome.progress == Progress.FAILED:
        return _failed(public_id, outcome, at)
    return None


def _failed(public_id: str, outcome: Outcome, at: datetime) -> TopUp | None:
    top_up = fail(public_id=public_id, failure=outcome.failure, at=at)
    if top_up is not None and top_up.is_automatic and top_up.status == TopUpStatus.FAILED:
        troubles.tell_of_failure(top_up, at)
    return top_up


def _paid(public_id: str, outcome: Outcome, at: datetime) -> TopUp | None:
    top_up = succeed(public_id=public_id, at=at)
    if top_up is None:
        return None
    if outcome.payment:
        top_up.payment, top_up.receipt_url = outcome.payment, outcome.receipt_url or top_up.receipt_url
        top_up.save(update_fields=["payment", "receipt_url"])
    if outcome.card:
        save_card(customer=top_up.customer, provider=top_up.provider, card=outcome.card)
    return top_up


def _locked(public_id: str) -> TopUp | None:
    found = TopUp.objects.select_for_update(of=["self"]).select_related("customer", "grant")
    return found.filter(public_id=public_id).first()


@transaction.atomic
def succeed(*, public_id: str, at: datetime) -> TopUp | None:
    """The payment has succeeded: grant it, once. None when there is no such top-up."""
    top_up = _locked(public_id)
    if top_up is None or top_up.status not in _UNPAID:
        return top_up
    with exact():
        cost_basis = top_up.charge / top_up.amount
    top_up.grant = grants.grant(
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
    """The payment did not come about; the rule of an automatic one pauses, so that no card is tried again and again.
    One that has succeeded stays: see `reverse`."""
    top_up = _locked(public_id)
    if top_up is not None and top_up.status in OPEN:
        top_up.status, top_up.failure, top_up.ended_at = TopUpStatus.FAILED, failure[:500], at
        top_up.save(update_fields=["status", "failure", "ended_at"])
        if top_up.is_automatic:
            rule = AutomaticTopUp.objects.filter(customer=top_up.customer, unit=top_up.unit)
            rule.update(paused_because=top_up.failure)
    return top_up


def _ask_customer(public_id: str, outcome: Outcome, at: datetime) -> TopUp | None:
    """The bank wants the customer: nothing is tried again until they come."""
    top_up = _locked(public_id)
    if top_up is not None and top_up.status == TopUpStatus.PENDING and top_up.is_automatic:
        top_up.status, top_up.failure = TopUpStatus.ACTION_REQUIRED, outcome.failure[:500]
        top_up.save(update_fields=["status", "failure"])
        troubles.tell_of_confirmation(top_up, at)
    return top_up


@transaction.atomic
def reverse(*, public_id: str, failure: str, at: datetime) -> TopUp | None:
    """The money is gone again, or never came: what is left of the grant is void. An unpaid one has failed."""
    top_up = _locked(public_id)
    if top_up is None or top_up.status != TopUpStatus.PAID or top_up.grant is None:
        return fail(public_id=public_id, failure=failure, at=at)
    if top_up.grant.voided_at is None:
        grants.void(grant=top_up.grant, at=at, reason=failure[:500])
    top_up.status, top_up.failure, top_up.ended_at = TopUpStatus.REVERSED, failure[:500], at
    top_up.save(update_fields=["status", "failure", "ended_at"])
    return top_up


@transaction.atomic
def pay_back(*, public_id: str, failure: str, at: datetime) -> TopUp | None:
    """What was paid is paid back. That may be known before that it was paid, which then grants nothing any more."""
    succeed(public_id=public_id, at=at)
    return reverse(public_id=public_id, failure=failure, at=at)


@transaction.atomic
def save_card(*, customer: Customer, provider: str, card: Card) -> None:
    """The customer has left a card that may be charged again; rules that waited for one go on."""
    known = {"reference": card.reference, "payment_method": card.payment_method, "card": card.label}
    PaymentAccount.objects.update_or_create(customer=customer, provider=provider, defaults=known)
    AutomaticTopUp.objects.filter(customer=customer).update(paused_because="")


# --- by the clock -----------------------------------------------------------------------------------------------


def claim(*, top_up: TopUp, every: timedelta, at: datetime) -> bool:
    """Whether it is ours to ask about: one worker does, and not more often than that."""
    free = TopUp.objects.filter(
        Q(tried_at=None) | Q(tried_at__lte=at - every), pk=top_up.pk, status=TopUpStatus.PENDING
    )
    return bool(free.update(tried_at=at))


def finish(*, at: datetime) -> int:
    """End what waits for a customer and of which no webhook has told: a page that was paid or has expired, and an
    order that was never begun because the process died in between. How many were looked at."""
    late = Q(tried_at__lte=at - LOOK_EVERY) & ~Q(reference="")
    never = Q(tried_at=None, is_automatic=False, created_at__lte=at - BEGUN_WITHIN)
    waiting = TopUp.objects.filter(late | never, status=TopUpStatus.PENDING).exclude(provider=Manual.name)
    found = list(waiting.select_related("customer").order_by("tried_at")[:MOST])
    return sum(_finish(top_up, at) for top_up in found)


def _finish(top_up: TopUp, at: datetime) -> bool:
    if not top_up.reference:
        fail(public_id=top_up.public_id, failure="The payment was not begun. Please order it again.", at=at)
        return True
    if not claim(top_up=top_up, every=LOOK_EVERY, at=at):
        return False
    try:
        outcome = provider(top_up.customer).look(top_up)
    except Refused as unknown:
        return _give_up(top_up, unknown, at)
    except Unavailable:
        return False
    settle(public_id=top_up.public_id, outcome=outcome, at=at)
    return True


def done(*, notice: PaymentNotice) -> None:
    """An operator has done what there was to do."""
    PaymentNotice.objects.filter(pk=notice.pk).update(todo="")


def _give_up(top_up: TopUp, unknown: Refused, at: datetime) -> bool:
    """Of a page that is not known there once it can have been paid no more. Should a webhook tell that it was, it still
    is granted."""
    logger.warning("The payment page of %s is not known: %s", top_up.public_id, unknown)
    if top_up.created_at > at - PAGE_LIVES:
        return False
    fail(public_id=top_up.public_id, failure=f"The payment page is not known any more: {unknown}", at=at)
    return True


@transaction.atomic
def note(*, provider: str, reference: str, kind: str, subject: str, public_id: str, todo: str = "") -> bool:
    """Write down what the provider has told, and what an operator is `todo` about it; False when it was heeded before.
    Call it in the transaction of what follows from it."""
    top_up = TopUp.objects.filter(public_id=public_id).first() if public_id else None
    about = {"kind": kind, "subject": subject, "top_up": top_up, "todo": todo}
    _, is_new = PaymentNotice.objects.get_or_create(provider=provider, reference=reference, defaults=about)
    return is_new
