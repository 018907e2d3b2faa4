"""Globex pays by token and by credit, and the vendor pays for tokens."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest

from billing.cycle.services import advance
from billing.pricing.costs import record_cost
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)
_numbers = count()


def day(number: float) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture
def tokens(db):
    return make_meter("tokens", dimensions=["model", "key"])


@pytest.fixture
def searches(db):
    return make_meter("searches", aggregation="count", event_type="search", unit="search")


@pytest.fixture
def version(tokens, searches):
    large = MatchSpec({"model": "large"}, tiers=(Tier(None, Decimal(5)),))
    return make_version(
        make_plan(),
        base_fee=Decimal(31),
        credits=(CreditSpec("credits", Decimal(10)),),
        prices=(
            PriceSpec(
                "tokens",
                "tokens",
                "USD",
                scheme="graduated",
                tiers=(Tier(Decimal(100), Decimal(2)), Tier(None, Decimal(1))),
                match=(large,),
            ),
            PriceSpec("searches", "searches", "credits", Decimal(1)),
        ),
        overage=(OverageSpec("credits", Decimal("0.5")),),
    )


@pytest.fixture
def subscribed(globex, version):
    """Globex (whose zone is UTC) since 1 March 2026, which has 31 days, as its base fee has dollars."""
    make_subscription(globex, version, START)
    return globex


@pytest.fixture
def costs(tokens, searches):
    """Small costs 1 and large 4; from day 10 on large costs 6."""
    cost(tokens, {}, 1)
    cost(tokens, {"model": "large"}, 4)
    cost(tokens, {"model": "large"}, 6, effective_at=day(10))
    cost(searches, {}, "0.1")


def cost(meter, where, amount, **changes):
    values = {"effective_at": START, "at": START, **changes}
    return record_cost(meter=meter, where=where, unit_amount=Decimal(amount), **values)


def use(customer, *, at, tokens=None, **properties):
    """A completion, or without tokens a search; counted and settled."""
    kind = {"tokens": str(tokens)} if tokens is not None else {"type": "search"}
    sent = event(f"e{next(_numbers)}", customer.key, timestamp=at.isoformat(), **kind, **properties)
    assert ingest(sent, at=at, backfill=True).accepted == 1
    advance(customer_id=customer.pk, at=at)
