"""A search costs a credit, a unit of work a dollar; Acme has what each test gives it."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from accounts.models import Customer
from billing.authorizations import services
from billing.authorizations.facts import Amount, Usage
from billing.authorizations.models import Authorization
from billing.authorizations.services import Allowed, Denied
from billing.budgets import services as budgets
from billing.budgets.models import Budget
from billing.credits import services as credits
from billing.credits.models import CreditGrant, GrantKind
from billing.cycle.services import subscribe
from billing.metering.ingesting import IngestAnswer
from billing.pricing.spec import PriceSpec
from tests.factories import event, make_meter, make_plan, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)
NOON = START + timedelta(days=1, hours=12)
MINUTE = timedelta(minutes=1)
PRICES = (
    PriceSpec("searches", "searches", "credits", Decimal(1)),
    PriceSpec("work", "work", "USD", Decimal(1)),
)
_numbers = count()


def make_house(customer: Customer, prices: tuple[PriceSpec, ...] = PRICES, **spec: Any) -> Customer:
    make_meter("searches", event_type="search", value="n")
    make_meter("work", event_type="work", value="n", dimensions=["model"])
    subscribe(customer=customer, version=make_version(make_plan(), prices=prices, **spec), starts_at=START, at=START)
    return customer


@pytest.fixture
def house(acme: Customer) -> Customer:
    return make_house(acme)


def give(customer: Customer, amount: object, unit: str = "credits", **fields: Any) -> CreditGrant:
    values = {"kind": GrantKind.PAID, "at": START, **fields}
    return credits.grant(customer=customer, unit=unit, amount=Decimal(str(amount)), **values)


def stop_at(customer: Customer, amount: object, *, unit: str = "USD", percent: object = 100) -> Budget:
    return budgets.create_budget(
        customer=customer,
        name=f"Budget {next(_numbers)}",
        unit=unit,
        amount=Decimal(str(amount)),
        thresholds=[],
        recipients=["owners"],
        stop_at_percent=Decimal(str(percent)),
        at=NOON,
    )


def ask(customer: Customer, amount: object, unit: str = "credits", *, at: datetime = NOON) -> Allowed | Denied:
    """For five minutes."""
    wanted = Amount(unit, Decimal(str(amount)))
    return services.authorize(customer=customer.key, wanted=wanted, ttl=5 * MINUTE, at=at)


def ask_for(
    customer: Customer, meter: str, quantity: object, at: datetime = NOON, **properties: object
) -> Allowed | Denied:
    usage = Usage(meter, Decimal(str(quantity)), properties)
    return services.authorize(customer=customer.key, wanted=[usage], ttl=5 * MINUTE, at=at)


def allowed(answer: Allowed | Denied) -> Authorization:
    assert isinstance(answer, Allowed), answer
    return Authorization.objects.select_related("customer").get(public_id=answer.id)


def denied(answer: Allowed | Denied) -> str:
    assert isinstance(answer, Denied), answer
    return answer.reason


def use(customer: Customer, type: str, n: object, *, at: datetime = NOON, **fields: Any) -> IngestAnswer:
    """Send an event, as the API takes it, not counted yet."""
    sent = event(f"u{next(_numbers)}", customer.key, type=type, timestamp=at.isoformat(), n=str(n), **fields)
    return services.take(body=json.dumps([sent]).encode(), content_type="application/json", api_key=None, at=at)
