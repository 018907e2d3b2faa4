"""A meter that plans price, and use of it, in a month of 30 days."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.credits import queries as credit_questions
from billing.cycle import services as cycle
from billing.pricing.spec import PriceSpec
from tests.factories import event, ingest, make_meter

D = Decimal
START = datetime(2026, 6, 1, tzinfo=UTC)  # a month of 30 days
DAY = timedelta(days=1)
HALF = START + 15 * DAY


def searches(unit="USD", amount="1", **fields):
    return PriceSpec("searches", "searches", unit, D(amount), **fields)


@pytest.fixture
def meter(db):
    return make_meter("searches", aggregation="count", event_type="search", dimensions=[])


def use(customer, count, at, name="s"):
    sent = [event(f"{name}-{at}-{n}", customer.key, type="search", timestamp=at.isoformat()) for n in range(count)]
    assert ingest(*sent, at=at).accepted == count
    cycle.advance(customer_id=customer.pk, at=at)


def balance(customer, at):
    [found] = credit_questions.balances(customer, at)
    return found
