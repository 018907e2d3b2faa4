"""Acme, whose credits cost five cents each, and Stripe."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.test import Client

from accounts.models import Customer
from billing.authorizations.queries import balances
from billing.topups.models import PaymentAccount, TopUpPrice
from tests import stripe_server
from tests.billing.authorizations.conftest import make_house
from tests.factories import bearer, make_api_key
from tests.stripe_server import EVENTS, FakeStripe, signed


@pytest.fixture
def fake(settings) -> Iterator[FakeStripe]:
    with stripe_server.running(settings) as fake:
        yield fake


@pytest.fixture
def house(acme: Customer) -> Customer:
    TopUpPrice.objects.create(unit="credits", currency="USD", unit_amount=Decimal("0.05"))
    return make_house(acme)


@pytest.fixture
def card(house) -> PaymentAccount:
    return PaymentAccount.objects.create(customer=house, provider="stripe", reference="cus_1", payment_method="pm_1")


@pytest.fixture
def buy(client):
    secret = make_api_key()[1]

    def buy(amount: object = "100", unit: str = "credits", key: str | None = None):
        sent = bearer(secret)
        if key:
            sent["headers"]["Idempotency-Key"] = key
        body = {"unit": unit, "amount": amount}
        return client.post("/api/v1/customers/acme/top-ups", body, content_type="application/json", **sent)

    return buy


def tell(kind: str, **subject: object):
    """As Stripe tells: signed."""
    content, headers = signed(kind, **subject)
    return Client().post(EVENTS, content, content_type="application/json", headers=headers)


def available(customer: Customer) -> Decimal:
    return sum((one.available for one in balances(customer, now()) if one.unit == "credits"), Decimal(0))


def now() -> datetime:
    return datetime.now(UTC)
