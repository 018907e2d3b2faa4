"""The seam to whoever takes the money. A provider moves money; what it means is the services' business."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import ClassVar, Protocol

import stripe
from django.conf import settings

from accounts.models import Customer
from billing.money import CONTEXT, exponent
from billing.topups.models import PaymentAccount, TopUp


@dataclass(frozen=True, slots=True)
class Started:
    """The provider's name of a payment, and where the customer pays (nowhere: an operator says when it is paid)."""

    reference: str = ""
    url: str = ""


class Declined(Exception):  # noqa: N818 -- an answer
    """The card was not charged, and why."""


class Unavailable(Exception):  # noqa: N818 -- an answer
    """The provider cannot be asked now; nothing has begun."""


class Refused(Exception):  # noqa: N818 -- an answer
    """The provider does not sell this, and why."""


class Provider(Protocol):
    name: ClassVar[str]

    def checkout(self, top_up: TopUp, account: PaymentAccount | None, back: str) -> Started:
        """Let the customer pay. Repeating it starts no second payment. Raises Unavailable, Refused."""
        ...

    def charge(self, top_up: TopUp, account: PaymentAccount) -> str:
        """Charge the saved card without the customer: the name of the payment that succeeded, or "" while it is not
        known. Repeating it charges once. Raises Declined."""
        ...


class Manual:
    """An operator takes the money and says so in the admin."""

    name: ClassVar[str] = "manual"

    def checkout(self, top_up: TopUp, account: PaymentAccount | None, back: str) -> Started:
        return Started()

    def charge(self, top_up: TopUp, account: PaymentAccount) -> str:
        return ""


class Stripe:
    """Checkout, which saves the card, and later charges of it. Names in idempotency keys are the top-up's."""

    name: ClassVar[str] = "stripe"

    def __init__(self, api_key: str, base: str) -> None:
        self.client = stripe.StripeClient(api_key, base_addresses={"api": base}, max_network_retries=2)

    def checkout(self, top_up: TopUp, account: PaymentAccount | None, back: str) -> Started:
        whose = {"customer": account.reference} if account else {"customer_creation": "always"}
        price = {
            "currency": top_up.currency.lower(),
            "unit_amount": minor_units(top_up.charge, top_up.currency),
            "product_data": {"name": f"{top_up.amount.normalize():f} {top_up.unit}"},
        }
        wanted = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "payment_intent_data": {
                "setup_future_usage": "off_session",
                "metadata": {"top_up": top_up.public_id},
            },
            "client_reference_id": top_up.public_id,
            "metadata": {"top_up": top_up.public_id},
            "success_url": back,
            "cancel_url": back,
            **whose,
        }
        try:
            session = self.client.v1.checkout.sessions.create(
                wanted,  # type: ignore[arg-type]  # one of two keys names the customer
                {"idempotency_key": f"checkout-{top_up.public_id}"},
            )
        except stripe.InvalidRequestError as error:
            raise Refused(error.user_message or str(error)) from error
        except stripe.StripeError as error:
            raise Unavailable(str(error)) from error
        return Started(session.id, session.url or "")

    def charge(self, top_up: TopUp, account: PaymentAccount) -> str:
        try:
            intent = self.client.v1.payment_intents.create(
                {
                    "amount": minor_units(top_up.charge, top_up.currency),
                    "currency": top_up.currency.lower(),
                    "customer": account.reference,
                    "payment_method": account.payment_method,
                    "off_session": True,
                    "confirm": True,
                    "metadata": {"top_up": top_up.public_id},
                },
                {"idempotency_key": f"charge-{top_up.public_id}"},
            )
        except stripe.CardError as error:
            raise Declined(error.user_message or "The card was declined.") from error
        return intent.id if intent.status == "succeeded" else ""

    def saved_card(self, payment: str) -> str:
        """The payment method of a payment."""
        method = self.client.v1.payment_intents.retrieve(payment).payment_method
        return method if isinstance(method, str) else method.id if method else ""


def minor_units(amount: Decimal, currency: str) -> int:
    """Cents, or whatever is the smallest coin. The amount is rounded to it already."""
    return int(CONTEXT.scaleb(amount, exponent(currency)))


@cache
def stripe_provider() -> Stripe:
    return Stripe(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


def provider(customer: Customer) -> Provider:
    """Stripe where its key is set, else the operators. On a test clock nobody really pays."""
    return stripe_provider() if settings.STRIPE_API_KEY and customer.test_clock_id is None else Manual()
