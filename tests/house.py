"""Acme as its pages see it: a plan with token meters and credits, ten days into its billing period."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count

from accounts.models import Customer
from billing import clock
from billing.cycle.services import advance
from billing.pricing.models import PlanVersion
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
    PriceSpec(key="output", meter="output_tokens", unit="USD", unit_amount=Decimal("0.60"), **PER_MILLION),
    PriceSpec(key="searches", meter="searches", unit="credits", unit_amount=Decimal(1)),
)


def make_offer() -> PlanVersion:
    """The published plan: tokens in dollars, searches in credits, ten of which come with it."""
    for key in ("input_tokens", "output_tokens"):
        make_meter(key, dimensions=["model", "api_key"])
    make_meter("searches", unit="search", event_type="search", aggregation="count", dimensions=["api_key"])
    credits, overage = CreditSpec("credits", Decimal(10)), OverageSpec("credits", Decimal("0.05"))
    return make_version(make_plan(), prices=PRICES, credits=(credits,), overage=(overage,))


@dataclass
class House:
    """A subscribed customer, and a way to use something."""

    customer: Customer
    now: datetime = field(default_factory=clock.now)
    ids: count = field(default_factory=lambda: count(1))

    def subscribe(self, version: PlanVersion) -> "House":
        make_subscription(self.customer, version, self.at(10), at=self.now)
        return self

    def at(self, days_ago: float) -> datetime:
        return self.now - timedelta(days=days_ago)

    def use(self, *, days_ago: float = 0, **fields: object) -> None:
        """Send one event, of tokens unless `type` says otherwise."""
        sent = event(f"e{next(self.ids)}", self.customer.key, timestamp=self.at(days_ago).isoformat(), **fields)
        ingest(sent, at=clock.now())

    def use_some(self) -> "House":
        """$5.16 in three days: $5 of large-2, the rest of small-1."""
        self.use(days_ago=3, model="large-2", api_key="ingest", input_tokens=1_000_000)
        self.use(days_ago=2, model="large-2", api_key="chat", input_tokens=1_000_000)
        self.use(days_ago=0, model="small-1", api_key="chat", input_tokens=200_000, output_tokens=216_666)
        self.count()
        return self

    def count(self) -> None:
        """What the tick does for this customer."""
        advance(customer_id=self.customer.pk, at=clock.now())
