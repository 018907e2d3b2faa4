"""Questions about top-ups."""

from decimal import Decimal

from django.db.models import QuerySet

from accounts.models import Customer
from billing.money import is_currency
from billing.topups.models import PaymentAccount, TopUp, TopUpPrice


def top_ups(customer: Customer) -> QuerySet[TopUp]:
    """The customer's, newest first."""
    return TopUp.objects.filter(customer=customer).select_related("customer", "grant").order_by("-id")


def unit_price(customer: Customer, unit: str) -> Decimal | None:
    """What one of the unit costs in the customer's currency; None when it is not for sale."""
    if is_currency(unit):
        return Decimal(1) if unit == customer.currency else None
    return (
        TopUpPrice.objects.filter(unit=unit, currency=customer.currency).values_list("unit_amount", flat=True).first()
    )


def payment_account(customer: Customer, provider: str) -> PaymentAccount | None:
    return PaymentAccount.objects.filter(customer=customer, provider=provider).first()
