"""Stripe: Checkout, which saves the card, and later charges of it. Names in idempotency keys are the top-up's."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, ClassVar, Final

import stripe

from accounts.models import Customer
from billing.money import CONTEXT, exponent, plain
from billing.topups.models import PaymentAccount, TopUp
from billing.topups.payments import Card, Outcome, Progress, Refused, Started, Unavailable, payable

TIMEOUT_SECONDS: Final = 15  # of one attempt
DETAILS: Final = ["latest_charge", "payment_method"]
CONFIRM: Final = "Your bank asks you to confirm this payment."
# Where Stripe counts in other coins than ISO 4217 says: docs.stripe.com/currencies, "Zero-decimal" and "Special cases".
PLACES: Final = {"MGA": 0, "ISK": 2, "UGX": 2}


@contextmanager
def _answers() -> Iterator[None]:
    """Stripe's errors in our words."""
    try:
        yield
    except stripe.InvalidRequestError as error:
        raise Refused(error.user_message or str(error)) from error
    except stripe.StripeError as error:
        raise Unavailable(str(error)) from error


class Stripe:
    name: ClassVar[str] = "stripe"

    def __init__(self, api_key: str, base: str) -> None:
        client = stripe.RequestsClient(timeout=TIMEOUT_SECONDS)
        self.client = stripe.StripeClient(
            api_key, base_addresses={"api": base}, http_client=client, max_network_retries=1
        )

    # --- the customer pays ------------------------------------------------------------------------------------------

    def checkout(self, top_up: TopUp, account: PaymentAccount | None, back: str) -> Started:
        named = {"metadata": {"top_up": top_up.public_id}}
        price = {
            "currency": top_up.currency.lower(),
            "unit_amount": minor_units(top_up.charge, top_up.currency),
            "product_data": {"name": f"{plain(top_up.amount)} {top_up.unit}"},
        }
        wanted: dict[str, Any] = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "payment_intent_data": {"setup_future_usage": "off_session", **named},
            "client_reference_id": top_up.public_id,
            **named,
            **_ways_back(back),
            **_whose(account),
        }
        with _answers():
            key = {"idempotency_key": f"checkout-{top_up.public_id}"}
            session = self.client.v1.checkout.sessions.create(wanted, key)  # type: ignore[arg-type]
        return Started(session.id, session.url or "")

    def look(self, top_up: TopUp) -> Outcome:
        with _answers():
            session = self.client.v1.checkout.sessions.retrieve(top_up.reference)
        if session.payment_status == "paid" and session.payment_intent:
            return self.payment(_id(session.payment_intent))
        if session.status == "expired":
            return Outcome(Progress.FAILED, failure="The payment page has expired.")
        return Outcome(Progress.WAITING)

    def card_page(self, customer: Customer, account: PaymentAccount | None, back: str) -> str:
        wanted: dict[str, Any] = {
            "mode": "setup",
            "currency": customer.currency.lower(),
            "client_reference_id": customer.key,
            "metadata": {"card_of": customer.key},
            **_ways_back(back),
            **_whose(account),
        }
        with _answers():
            return self.client.v1.checkout.sessions.create(wanted).url or ""  # type: ignore[arg-type]

    # --- the saved card pays ----------------------------------------------------------------------------------------

    def prepare(self, top_up: TopUp, account: PaymentAccount) -> str:
        """Made in two steps, because Stripe forgets an idempotency key after a day: a payment that is only prepared
        moves no money however often it is made, and a named one is tried once."""
        with _answers():
            intent = self.client.v1.payment_intents.create(
                {
                    "amount": minor_units(top_up.charge, top_up.currency),
                    "currency": top_up.currency.lower(),
                    "customer": account.reference,
                    "payment_method": account.payment_method,
                    "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                    "metadata": {"top_up": top_up.public_id},
                },
                {"idempotency_key": f"payment-{top_up.public_id}"},
            )
        return intent.id

    def charge(self, top_up: TopUp) -> Outcome:
        with _answers():
            intent = self._intent(top_up.payment)
            if intent.status != "requires_confirmation":
                return _outcome(intent)
            refusal = self._confirm(top_up)
            intent = self._intent(top_up.payment)
        if intent.status == "requires_confirmation" and refusal:
            return Outcome(Progress.FAILED, intent.id, failure=refusal)
        return _outcome(intent)

    def _confirm(self, top_up: TopUp) -> str:
        """Why not; the payment itself tells of a card that was declined."""
        try:
            self.client.v1.payment_intents.confirm(
                top_up.payment, {"off_session": True}, {"idempotency_key": f"confirm-{top_up.public_id}"}
            )
        except (stripe.CardError, stripe.InvalidRequestError) as refused:
            return refused.user_message or "The card cannot be charged."
        return ""

    def cancel(self, top_up: TopUp) -> Outcome:
        try:
            if top_up.payment:
                self.client.v1.payment_intents.cancel(top_up.payment)
            elif top_up.reference:
                self.client.v1.checkout.sessions.expire(top_up.reference)
        except stripe.InvalidRequestError:
            return self._ended(top_up)
        except stripe.StripeError as error:
            raise Unavailable(str(error)) from error
        return Outcome(Progress.FAILED)

    def _ended(self, top_up: TopUp) -> Outcome:
        """What cannot be cancelled has ended in some way already, and nobody pays for what is not known there."""
        try:
            return self.payment(top_up.payment) if top_up.payment else self.look(top_up)
        except Refused as unknown:
            return Outcome(Progress.FAILED, failure=str(unknown))

    # --- what is known ----------------------------------------------------------------------------------------------

    def payment(self, name: str) -> Outcome:
        """What has become of a payment, with its receipt and the card that made it."""
        with _answers():
            return _outcome(self._intent(name))

    def saved_card(self, setup: str) -> Card | None:
        """The card that was left on a card page."""
        with _answers():
            intent = self.client.v1.setup_intents.retrieve(setup, {"expand": ["payment_method"]})
        return _card(intent)

    def top_up_of_charge(self, charge: str) -> str:
        """The name of the top-up that a charge is for; "" for none, or a charge that is not known."""
        return self._named(lambda: self.client.v1.charges.retrieve(charge))

    def top_up_of_payment(self, payment: str) -> str:
        return self._named(lambda: self.client.v1.payment_intents.retrieve(payment))

    def _named(self, fetch: Any) -> str:
        try:
            with _answers():
                return top_up_named(fetch())
        except Refused:
            return ""

    def _intent(self, name: str) -> stripe.PaymentIntent:
        return self.client.v1.payment_intents.retrieve(name, {"expand": DETAILS})


def _ways_back(back: str) -> dict[str, str]:
    return {"success_url": f"{back}?from=payment", "cancel_url": f"{back}?from=cancelled"}


def _whose(account: PaymentAccount | None) -> dict[str, str]:
    return {"customer": account.reference} if account else {"customer_creation": "always"}


def _outcome(intent: stripe.PaymentIntent) -> Outcome:
    error = intent.last_payment_error
    if intent.status == "succeeded":
        charge = intent.latest_charge
        receipt = "" if charge is None or isinstance(charge, str) else charge.receipt_url or ""
        return Outcome(Progress.PAID, intent.id, receipt, card=_card(intent))
    if intent.status == "requires_action" or (error and error.code == "authentication_required"):
        return Outcome(Progress.NEEDS_CUSTOMER, intent.id, failure=CONFIRM)
    if intent.status in ("requires_payment_method", "canceled"):
        said = error.message if error else None
        return Outcome(Progress.FAILED, intent.id, failure=said or "The payment was not made.")
    return Outcome(Progress.WAITING, intent.id)


def _card(intent: stripe.PaymentIntent | stripe.SetupIntent) -> Card | None:
    """None where nothing was saved: only what belongs to one of Stripe's customers can be charged again."""
    method = intent.payment_method
    if method is None or isinstance(method, str) or intent.customer is None:
        return None
    return Card(_id(intent.customer), method.id, _label(method))


def _label(method: stripe.PaymentMethod) -> str:
    if method.type != "card" or method.card is None:
        return method.type.replace("_", " ").capitalize()
    card = method.card
    return f"{card.brand.capitalize()} ending in {card.last4}, until {card.exp_month:02}/{card.exp_year}"


def _id(thing: Any) -> str:
    """Stripe names a thing, or sends it whole."""
    return thing if isinstance(thing, str) else str(thing.id)


def top_up_named(subject: Any) -> str:
    """The top-up that one of Stripe's things says it is for; "" for none."""
    metadata = getattr(subject, "metadata", None)
    return str(metadata["top_up"]) if metadata and "top_up" in metadata else ""


def minor_units(amount: Decimal, currency: str) -> int:
    """Cents, or whatever Stripe counts in. Raises Refused for a part of a coin: to round it is not ours any more."""
    if amount != payable(amount, currency):
        raise Refused(f"{plain(amount)} {currency} cannot be paid by card. Buy another amount.")
    return int(CONTEXT.scaleb(amount, PLACES.get(currency, exponent(currency))))
