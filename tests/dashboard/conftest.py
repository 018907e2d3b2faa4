"""Acme as the pages see it: a plan with two token meters, ten days into its billing period, two models, two keys."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest

from accounts.models import Customer
from billing import clock
from billing.cycle.services import advance
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

PER_MILLION = {"per": Decimal(1_000_000)}
PRICES = (
    PriceSpec(
        key="input",
        meter="input_tokens",
        unit="USD",
        unit_amount=Decimal("0.15"),
        match=(MatchSpec({"model": "large-2"}, Decimal("2.50")),),
        **PER_MILLION,
    ),
    PriceSpec(key="searches", meter="searches", unit="credits", unit_amount=Decimal(1)),
    PriceSpec(key="output", meter="output_tokens", unit="USD", unit_amount=Decimal("0.60"), **PER_MILLION),
)


@dataclass
class House:
    """A subscribed customer, and a way to use something."""

    customer: Customer
    now: datetime
    ids: count

    def use(self, *, days_ago: float = 0, customer: str | None = None, **properties: object) -> None:
        key = customer or self.customer.key
        sent = event(f"e{next(self.ids)}", key, timestamp=self.at(days_ago).isoformat(), **properties)
        ingest(sent, at=clock.now())

    def at(self, days_ago: float) -> datetime:
        return self.now - timedelta(days=days_ago)

    def count(self) -> None:
        advance(customer_id=self.customer.pk, at=clock.now())


@pytest.fixture
def plan(db):
    for key in ("input_tokens", "output_tokens"):
        make_meter(key, dimensions=["model", "api_key"])
    make_meter("searches", unit="search", event_type="search", aggregation="count", dimensions=["api_key"])
    credits, overage = CreditSpec("credits", Decimal(10)), OverageSpec("credits", Decimal("0.05"))
    return make_version(make_plan(), prices=PRICES, credits=(credits,), overage=(overage,))


@pytest.fixture
def house(acme, plan) -> House:
    house = House(acme, clock.now(), count(1))
    make_subscription(acme, plan, house.at(10), at=house.now)
    return house


@pytest.fixture
def busy(house) -> House:
    """$5.16 in three days: $5 of large-2, the rest of small-1."""
    house.use(days_ago=3, model="large-2", api_key="ingest", input_tokens=1_000_000)
    house.use(days_ago=2, model="large-2", api_key="chat", input_tokens=1_000_000)
    house.use(days_ago=0, model="small-1", api_key="chat", input_tokens=200_000, output_tokens=216_666)
    house.count()
    return house
