"""What is done to a grant counts the usage before it; holds and budgets know of that at once."""

from decimal import Decimal

import pytest

from billing.authorizations import grants
from billing.authorizations.queries import balances
from billing.credits.models import GrantKind
from billing.cycle.services import tick
from billing.pricing.spec import OverageSpec
from tests.billing.authorizations.conftest import (
    NOON,
    START,
    allowed,
    ask,
    ask_for,
    denied,
    give,
    make_house,
    stop_at,
    use,
)


def void(customer, given):
    grants.void(grant=given, at=NOON)


def adjust(customer, given):
    grants.adjust(grant=given, amount=Decimal(-1), reason="A test", at=NOON)


def make_more(customer, given):
    grants.grant(customer=customer, unit="credits", amount=Decimal(1), kind=GrantKind.PAID, at=NOON)


@pytest.mark.parametrize("change", [void, adjust])
def test_a_change_of_a_grant_frees_the_holds_of_what_it_counts(house, change):
    give(house, 50, priority=1)
    other = give(house, 10, priority=2)
    held = allowed(ask(house, 30))
    use(house, "search", 20, authorization=held.public_id)

    change(house, other)

    [balance] = balances(house, NOON)
    assert balance.reserved == 0
    assert ask(house, balance.balance).available_after == {"credits": 0}


@pytest.mark.parametrize("change", [void, adjust])
def test_a_change_of_a_grant_tells_budgets_of_what_it_counts(house, change):
    other = give(house, 10)
    budget = stop_at(house, 100)
    use(house, "work", 80)

    change(house, other)

    budget.refresh_from_db()
    assert budget.used == 80
    assert denied(ask(house, 21, "USD")) == "budget_stop"
    allowed(ask(house, 20, "USD"))


def test_what_a_grant_pays_instead_of_overage_leaves_budgets_at_once(acme):
    house = make_house(acme, overage=(OverageSpec("credits", Decimal(1)),))
    stop_at(house, 10)
    use(house, "search", 10)
    tick(at=NOON)
    assert denied(ask_for(house, "searches", 1)) == "budget_stop"

    given = grants.grant(customer=house, unit="credits", amount=Decimal(10), kind=GrantKind.PAID, at=START)

    allowed(ask_for(house, "searches", 10))
    grants.adjust(grant=given, amount=Decimal(5), reason="A test", at=NOON)
    assert balances(house, NOON)[0].balance == 5
