"""The seam to whoever takes the money. A provider moves money; what it means is the services' business.

Everything here speaks to another server: never call it inside a transaction.
"""

from functools import cache
from typing import ClassVar, Protocol

from django.conf import settings

from accounts.models import Customer
from billing.topups.models import PaymentAccount, TopUp
from billing.topups.payments import Outcome, Progress, Refused, Started
from billing.topups.stripe_payments import Stripe


class Provider(Protocol):
    """Each may raise Unavailable; what is repeated then is the same."""

    name: ClassVar[str]

    def checkout(self, top_up: TopUp, account: PaymentAccount | None, back: str) -> Started:
        """A page on which the customer pays, and which leads back. Raises Refused."""
        ...

    def look(self, top_up: TopUp) -> Outcome:
        """What has become of that page."""
        ...

    def prepare(self, top_up: TopUp, account: PaymentAccount) -> str:
        """The name of a payment that the saved card may make; no money moves yet. Raises Refused."""
        ...

    def charge(self, top_up: TopUp) -> Outcome:
        """Make the prepared payment without the customer, unless it was made: only one that was never tried is."""
        ...

    def cancel(self, top_up: TopUp) -> Outcome:
        """Let nothing be paid for it any more; what has been paid stays."""
        ...

    def card_page(self, customer: Customer, account: PaymentAccount | None, back: str) -> str:
        """Where the customer leaves a card. Raises Refused."""
        ...


class Manual:
    """An operator takes the money and says so in the admin."""

    name: ClassVar[str] = "manual"

    def checkout(self, top_up: TopUp, account: PaymentAccount | None, back: str) -> Started:
        return Started()

    def look(self, top_up: TopUp) -> Outcome:
        return Outcome(Progress.WAITING)

    def prepare(self, top_up: TopUp, account: PaymentAccount) -> str:
        raise Refused("Cards cannot be charged here.")

    def charge(self, top_up: TopUp) -> Outcome:
        return Outcome(Progress.WAITING)

    def cancel(self, top_up: TopUp) -> Outcome:
        return Outcome(Progress.FAILED)

    def card_page(self, customer: Customer, account: PaymentAccount | None, back: str) -> str:
        raise Refused("Cards cannot be saved here.")


@cache
def stripe_provider() -> Stripe:
    return Stripe(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


def provider(customer: Customer) -> Provider:
    """Stripe where its key is set, else the operators. On a test clock nobody really pays."""
    return stripe_provider() if settings.STRIPE_API_KEY and customer.test_clock_id is None else Manual()
