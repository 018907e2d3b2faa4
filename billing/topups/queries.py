"""Questions about top-ups."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from typing import Final

from django.conf import settings
from django.db.models import QuerySet

from accounts.models import Customer
from billing.money import display, exact, is_currency
from billing.topups.models import AutomaticTopUp, PaymentAccount, TopUp, TopUpPrice, TopUpStatus
from billing.topups.payments import payable

UNBOUND: Final = (None, None, ())


@dataclass(frozen=True, slots=True)
class Offer:
    """What one of a unit costs, how much of it may be bought at once (None: any), and amounts to choose from."""

    unit: str
    unit_amount: Decimal
    least: Decimal | None
    most: Decimal | None
    choices: Sequence[Decimal]

    @exact()
    def costs(self, amount: Decimal, currency: str) -> Decimal:
        """What that much costs, as it can be paid."""
        return payable(amount * self.unit_amount, currency)

    def refusal(self, amount: Decimal) -> str:
        """Why that much is not sold, with the remedy; "" where it is."""
        if self.least is not None and amount < self.least:
            return f"Buy at least {display(self.least, self.unit)}."
        if self.most is not None and amount > self.most:
            return f"Buy at most {display(self.most, self.unit)} at once."
        if amount != self.in_coins(amount):
            return f"Money is bought in whole coins: {display(payable(amount, self.unit, ROUND_UP), self.unit)}, say."
        return ""

    def in_coins(self, amount: Decimal) -> Decimal:
        """At most that much. Of money only what can be paid is sold, so that nobody is given more than they paid."""
        return payable(amount, self.unit, ROUND_DOWN) if is_currency(self.unit) else amount


def offers(customer: Customer) -> list[Offer]:
    """What the customer's page sells, for the customer's currency."""
    return [_offer(price) for price in TopUpPrice.objects.filter(currency=customer.currency).order_by("unit")]


def offer(customer: Customer, unit: str) -> Offer | None:
    """None when it is not for sale. Money costs itself, whether or not somebody has set bounds for it."""
    price = TopUpPrice.objects.filter(unit=unit, currency=customer.currency).first()
    if price is None:
        return Offer(unit, Decimal(1), *UNBOUND) if is_currency(unit) and unit == customer.currency else None
    return _offer(price)


def _offer(price: TopUpPrice) -> Offer:
    return Offer(price.unit, price.unit_amount, price.least, price.most, tuple(price.choices))


def top_ups(customer: Customer) -> QuerySet[TopUp]:
    """The customer's, newest first."""
    return TopUp.objects.filter(customer=customer).select_related("customer", "grant").order_by("-id")


def needing_customer(customer: Customer) -> list[TopUp]:
    """Those whose payment a bank wants confirmed."""
    return list(top_ups(customer).filter(status=TopUpStatus.ACTION_REQUIRED))


def payment_account(customer: Customer, provider: str) -> PaymentAccount | None:
    return PaymentAccount.objects.filter(customer=customer, provider=provider).first()


def automatic_top_ups(customer: Customer) -> dict[str, AutomaticTopUp]:
    """The rules, by unit."""
    return {rule.unit: rule for rule in AutomaticTopUp.objects.filter(customer=customer)}


def page_of(top_up: TopUp) -> str:
    """The address of its page, for mail and for the way back from the provider."""
    return f"{top_ups_page(top_up.customer)}/{top_up.public_id}"


def top_ups_page(customer: Customer) -> str:
    return f"{settings.BASE_URL}/c/{customer.key}/credits/top-ups"
