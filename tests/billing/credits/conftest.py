"""A customer whose searches cost a credit each, with 100 credits in each month and 0.01 USD beyond them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from tests.factories import make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def credit_plan(db):
    make_meter("searches", aggregation="count", event_type="search", dimensions=["api_key"], unit="search")
    make_meter("tokens", dimensions=["model"])
    return make_version(
        make_plan(),
        credits=(CreditSpec("credits", Decimal(100)),),
        prices=(
            PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1)),
            PriceSpec("tokens", meter="tokens", unit="USD", unit_amount=Decimal("0.5")),
        ),
        overage=(OverageSpec("credits", Decimal("0.01")),),
    )


@pytest.fixture
def subscribed(globex, credit_plan):
    """Globex (whose zone is UTC) since 1 March 2026."""
    make_subscription(globex, credit_plan, START)
    return globex
