"""Who sends: customers on a plan that prices all that is sent, in money and in credits, so that every tick settles."""

from datetime import datetime, timedelta
from decimal import Decimal

from django.db import transaction

from accounts.models import Customer, Membership, Role, Scope, User
from billing.budgets.services import create_budget
from billing.budgets.validation import ThresholdSpec
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec
from tests.chaos.load import CUSTOMERS
from tests.factories import make_api_key, make_meter, make_plan, make_subscription, make_version

D = Decimal
PRICES = (
    PriceSpec(
        key="input",
        meter="input_tokens",
        unit="USD",
        per=D(1_000_000),
        unit_amount=D("0.15"),
        match=(MatchSpec({"model": "large-2"}, D("2.50")),),
    ),
    PriceSpec(key="cached", meter="cached_tokens", unit="USD", per=D(7_000_000), unit_amount=D("0.1")),
    PriceSpec(
        key="seconds",
        meter="seconds",
        unit="credits",
        scheme="graduated",
        per=D(60),
        tiers=(Tier(D(500_000), D("0.5")), Tier(None, D("0.3"))),
    ),
    PriceSpec(key="calls", meter="calls", unit="credits", per=D(3), unit_amount=D("0.01")),
)


@transaction.atomic
def create(begun: datetime) -> str:
    """Meters, a plan, subscribed customers with a budget each, and the secret of a key that may send."""
    make_meter("input_tokens", dimensions=["model", "api_key"])
    make_meter("cached_tokens", dimensions=["model"])
    make_meter("seconds", dimensions=["api_key"], unit="second")
    successes = [{"property": "status", "op": "eq", "value": "ok"}]
    make_meter("calls", aggregation="count", unit="call", dimensions=["model", "api_key"], filters=successes)
    make_meter("longest", aggregation="max", value="seconds", dimensions=["model"], unit="second")
    make_meter("last_input", aggregation="latest", value="input_tokens", dimensions=["api_key"])
    make_meter("users", aggregation="unique", value="user", dimensions=["model"], unit="user")
    version = make_version(
        make_plan(),
        prices=PRICES,
        credits=(CreditSpec("credits", D(500)),),
        overage=(OverageSpec("credits", D("0.012")),),
    )
    for number in range(CUSTOMERS):
        customer = Customer.objects.create(key=f"c{number}", name=f"Customer {number}")
        owner = User.objects.create(email=f"{customer.key}@chaos.test", name=customer.name)
        Membership.objects.create(user=owner, customer=customer, role=Role.OWNER)
        make_subscription(customer, version, begun - timedelta(days=3))
        create_budget(
            customer=customer,
            name="Tokens",
            unit="USD",
            amount=D(10),
            thresholds=[ThresholdSpec(percent=D(percent)) for percent in (1, 50, 100)],
            recipients=["owners"],
            at=begun,
        )
    return make_api_key(Scope.EVENTS_WRITE)[1]
