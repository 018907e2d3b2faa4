"""A customer in a zone of half hours, a plan with every kind of per-unit price, and usage that is really counted."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest

from accounts.models import Customer
from billing.metering.models import Meter
from billing.periods import QUARTER
from billing.pricing.spec import MatchSpec, PriceSpec
from billing.subscriptions.models import BillingPeriod
from tests.factories import event, fold, ingest, make_meter, make_plan, make_subscription, make_version
from tests.oracle.rating import Event, PerUnit

START = datetime(2026, 11, 3, 7, 15, tzinfo=UTC)
PRICES = (
    PerUnit(
        "tokens",
        "tokens",
        "USD",
        Decimal("0.15"),
        per=Decimal(3),
        included=Decimal(1000),
        match=[
            ({"model": "large"}, Decimal("2.5")),
            ({"model": ["mini", "nano"], "region": None}, Decimal("0.05")),
            ({"model": "large", "region": "eu"}, Decimal("3")),
        ],
    ),
    PerUnit("images", "images", "USD", Decimal("0.04")),
    PerUnit("calls", "calls", "credits", Decimal("1.5")),
)
_numbers = count()


def spec(price: PerUnit) -> PriceSpec:
    match = tuple(MatchSpec(where, unit_amount) for where, unit_amount in price.match)
    return PriceSpec(price.key, price.meter, price.unit, price.unit_amount, price.per, price.included, match)


def use(customer: Customer, *events: Event) -> None:
    """Send the events and count them."""
    sent = [
        event(
            f"e{next(_numbers)}",
            customer.key,
            type=one.meter,
            timestamp=one.at.isoformat(),
            properties={**one.properties, "quantity": str(one.quantity)},
        )
        for one in events
    ]
    if sent:
        at = max(one.at for one in events)
        answer = ingest(*sent, at=at, backfill=True)
        assert answer.accepted == len(sent), answer
        fold(customer, at=at)


@dataclass
class House:
    """Globex with its meters and its first billing period."""

    customer: Customer
    meters: dict[str, Meter]
    period: BillingPeriod
    events: list[Event] = field(default_factory=list)

    def use(self, meter: str, quantity: object, *, quarter: int = 0, **properties: str) -> None:
        self.use_all(Event(START + quarter * QUARTER, meter, Decimal(str(quantity)), properties))

    def use_all(self, *events: Event) -> None:
        use(self.customer, *events)
        self.events += events


@pytest.fixture
def house(globex) -> House:
    globex.timezone = "Asia/Kathmandu"  # 5:45 ahead of UTC
    globex.save()
    dimensions = ["model", "region", "api_key"]
    meters = {
        price.meter: make_meter(price.meter, event_type=price.meter, value="quantity", dimensions=dimensions)
        for price in PRICES
    }
    version = make_version(make_plan(), prices=tuple(map(spec, PRICES)))
    subscription = make_subscription(globex, version, START)
    return House(globex, meters, subscription.periods.get())


def days(number: float) -> datetime:
    return START + timedelta(days=number)
