"""Acme pays one dollar for each unit of work, by the month, in Berlin."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

import pytest
from django.db import transaction

from accounts.models import Customer
from billing.budgets import services
from billing.budgets.models import Budget
from billing.budgets.validation import ThresholdSpec
from billing.metering import services as metering
from billing.metering.models import Meter
from billing.notifications.models import OutboxMessage
from billing.pricing.spec import PriceSpec
from tests.factories import event, fold, ingest, make_meter, make_plan, make_subscription, make_version

NOVEMBER = datetime(2026, 10, 31, 23, tzinfo=UTC)
DECEMBER = datetime(2026, 11, 30, 23, tzinfo=UTC)
AT = datetime(2026, 11, 15, 12, tzinfo=UTC)
_numbers = count()


@pytest.fixture
def work(db) -> Meter:
    return make_meter("work", dimensions=["model", "api_key"])


def subscribe(customer: Customer, starts_at: datetime = NOVEMBER) -> None:
    prices = (PriceSpec("work", "work", "USD", Decimal(1)),)
    make_subscription(customer, make_version(make_plan(), prices=prices), starts_at)


@pytest.fixture
def subscribed(acme, work) -> Customer:
    subscribe(acme)
    return acme


def spend(customer: Customer, dollars: object, at: datetime = AT, **dimensions: str) -> None:
    """Send an event that costs so much, and count it."""
    sent = event(f"e{next(_numbers)}", customer.key, timestamp=at.isoformat(), work=str(dollars), **dimensions)
    answer = ingest(sent, at=at, backfill=True)
    assert answer.accepted == 1, answer
    fold(customer, at=at)


def percents(*values: object) -> list[ThresholdSpec]:
    return [ThresholdSpec(percent=Decimal(str(value))) for value in values]


def make_budget(customer: Customer, at: datetime = AT, **changes: object) -> Budget:
    values = {
        "name": "Production",
        "unit": "USD",
        "amount": Decimal(2000),
        "thresholds": percents(50, 80, 100),
        "recipients": ["finance@acme.test"],
        "trusted": True,
    }
    return services.create_budget(customer=customer, at=at, **values | changes)


def watch(customer: Customer, at: datetime = AT, as_of: datetime | None = None) -> bool:
    with transaction.atomic():
        metering.claim(customer_id=customer.pk)
        return bool(services.watch_all(as_of={customer.pk: as_of or at}, at=at))


def headlines() -> list[str]:
    """What the queued mails say first, oldest first."""
    return [message.context["headline"] for message in OutboxMessage.objects.order_by("id")]
