"""What Stripe has to say about payments: signed, repeated, and in any order.

First everything that is not in the message is asked for, then the message is noted and heeded in one transaction. While
Stripe cannot be asked it is answered 503, and sends the message again.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import stripe
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from accounts.models import Customer
from billing.clock import now
from billing.topups import services
from billing.topups.models import PaymentNotice, TopUp
from billing.topups.payments import Outcome, Progress, Refused, Unavailable
from billing.topups.providers import stripe_provider
from billing.topups.stripe_payments import Stripe, top_up_named

logger = logging.getLogger(__name__)

type Act = Callable[[], object]
PAID: Final = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
# Only a later failure takes back what did come: an attempt that failed may be told of after the success.
ENDS: Final[Mapping[str, tuple[Callable[..., object], str]]] = {
    "checkout.session.expired": (services.fail, "The payment page has expired."),
    "checkout.session.async_payment_failed": (services.reverse, "The payment failed."),
    "charge.refunded": (services.pay_back, "It was paid back."),
    "charge.dispute.created": (services.pay_back, "The payment is disputed."),
}
HEEDED: Final = (*PAID, "payment_intent.succeeded", "payment_intent.payment_failed", *ENDS)
WITHOUT_LOSS: Final = ("won", "warning_closed")  # the latter: a bank's inquiry that became no dispute of money
PART_REFUNDED: Final = "A part was paid back, and the credits stay. Adjust the grant by what that part had paid for."
DISPUTE_WITHOUT_LOSS: Final = (
    "The dispute ended without loss: the money is yours, and its credits are void. Give what was left of them anew."
)


@csrf_exempt
@login_not_required
@require_POST
def stripe_events(request: HttpRequest) -> HttpResponse:
    """Stripe's webhook."""
    if not settings.STRIPE_WEBHOOK_SECRET:
        return _said("Stripe is not set up here.", 400)
    try:
        event = stripe.Webhook.construct_event(
            request.body, request.headers.get("Stripe-Signature", ""), settings.STRIPE_WEBHOOK_SECRET
        )
    except (ValueError, stripe.SignatureVerificationError):
        return _said("The signature is not Stripe's.", 400)
    try:
        _heed(event)
    except Refused as refused:
        logger.warning("Stripe told of %s and knows nothing more of it: %s", event.id, refused)
    except Unavailable:
        logger.exception("Stripe told of %s and could not be asked about it; it will tell again", event.id)
        return _said("Stripe cannot be asked about this at the moment.", 503)
    return HttpResponse(status=204)


def _said(sentence: str, status: int) -> HttpResponse:
    return HttpResponse(sentence, status=status, content_type="text/plain")


def _heed(event: stripe.Event) -> None:
    subject = event.data.object
    todo = _todo(event.type, subject)
    if event.type not in HEEDED and not todo:
        return
    if PaymentNotice.objects.filter(provider=Stripe.name, reference=event.id).exists():
        return
    public_id = _top_up(subject)
    act = None if todo else _meaning(event.type, subject, public_id)
    if act is None and not (todo and public_id):
        return
    about = {"kind": event.type, "subject": str(_get(subject, "id")), "public_id": public_id, "todo": todo}
    with transaction.atomic():
        if services.note(provider=Stripe.name, reference=event.id, **about) and act is not None:
            act()


def _todo(kind: str, subject: Any) -> str:
    """What an operator is to do about it, because nothing follows by itself; "" for nothing."""
    if kind == "charge.refunded" and not subject.refunded:
        return PART_REFUNDED
    if kind == "charge.dispute.closed" and _get(subject, "status") in WITHOUT_LOSS:
        return DISPUTE_WITHOUT_LOSS
    return ""


def _meaning(kind: str, subject: Any, public_id: str) -> Act | None:
    """What follows from one that is heeded; None for nothing."""
    if kind in PAID and subject.mode == "setup":
        return _card_left(subject)
    if kind in PAID or kind == "payment_intent.succeeded":
        return _payment_made(subject, public_id)
    if kind == "payment_intent.payment_failed":
        return _charge_failed(subject, public_id)
    end, failure = ENDS[kind]
    return partial(end, public_id=public_id, failure=failure, at=now())


def _payment_made(subject: Any, public_id: str) -> Act | None:
    """A session with nothing to pay is none of ours, and one may be complete before the money has come."""
    if subject.object == "payment_intent":
        payment = subject.id
    else:
        payment = subject.payment_intent if subject.payment_status == "paid" else None
    if not payment or not public_id:
        return None
    return partial(services.settle, public_id=public_id, outcome=_paid(payment), at=now())


def _paid(payment: Any) -> Outcome:
    """With the receipt and the card that only Stripe knows. That it was paid, the message says."""
    try:
        found = stripe_provider().payment(str(payment))
    except Refused:  # it is not known there any more
        return Outcome(Progress.PAID, str(payment))
    return Outcome(Progress.PAID, str(payment), found.receipt_url, card=found.card)


def _charge_failed(intent: Any, public_id: str) -> Act | None:
    """Of a saved card. On a payment page the customer may try another card."""
    if not TopUp.objects.filter(public_id=public_id, is_automatic=True, payment=intent.id).exists():
        return None
    return partial(services.settle, public_id=public_id, outcome=stripe_provider().payment(intent.id), at=now())


def _card_left(session: Any) -> Act | None:
    metadata = _get(session, "metadata") or {}
    customer = Customer.objects.filter(key=metadata["card_of"]).first() if "card_of" in metadata else None
    if customer is None or not session.setup_intent:
        return None
    card = stripe_provider().saved_card(str(session.setup_intent))
    return partial(services.save_card, customer=customer, provider=Stripe.name, card=card) if card else None


def _top_up(subject: Any) -> str:
    """The top-up that something of Stripe's is about: it says so itself, or its payment or charge does; "" for none."""
    if named := top_up_named(subject):
        return named
    is_payment = _get(subject, "object") == "payment_intent"
    payment = str((subject.id if is_payment else _get(subject, "payment_intent")) or "")
    ours = TopUp.objects.filter(provider=Stripe.name, payment=payment) if payment else TopUp.objects.none()
    if found := ours.values_list("public_id", flat=True).first():
        return found
    if _get(subject, "object") != "dispute":
        return ""
    if payment:
        return stripe_provider().top_up_of_payment(payment)
    charge = str(_get(subject, "charge") or "")
    return stripe_provider().top_up_of_charge(charge) if charge else ""


def _get(subject: Any, name: str) -> Any:
    return getattr(subject, name, None)
