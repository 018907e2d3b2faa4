"""Changing and cancelling: what becomes of the plan's credits."""

from datetime import timedelta

import pytest

from billing.credits import queries as credit_questions
from billing.credits import services as credits
from billing.cycle import services as cycle
from billing.cycle.verify import differences
from billing.pricing.spec import CreditSpec, OverageSpec
from tests.billing.subscriptions.conftest import DAY, HALF, START, D, balance, searches, use
from tests.factories import make_plan, make_version


@pytest.fixture
def silver(meter):
    return make_version(
        make_plan("silver"),
        prices=(searches(unit="credits"),),
        credits=(CreditSpec("credits", D(100)),),
        overage=(OverageSpec("credits", D("0.10")),),
    )


@pytest.fixture
def gold(meter):
    return make_version(
        make_plan("gold"),
        prices=(searches(unit="credits"),),
        credits=(CreditSpec("credits", D(1000)),),
        overage=(OverageSpec("credits", D("0.01")),),
    )


@pytest.fixture
def on_silver(globex, silver):
    return cycle.subscribe(customer=globex, version=silver, starts_at=START, at=START)


def test_plan_credits_count_in_proportion_after_a_change(on_silver, globex, gold):
    use(globex, 70, START + DAY)

    cycle.change(subscription=on_silver, version=gold, when="now", at=HALF)
    use(globex, 30, HALF + DAY)

    # 50 of 100 for the first half, so 20 were beyond them; 500 of 1,000 for the second.
    found = balance(globex, HALF + DAY)
    assert (found.available, found.overage) == (470, 20)
    [row] = credit_questions.spend_series(globex, edges=[START, START + 30 * DAY], unit="USD")
    assert row.amount == 2  # at the rate of the plan under which they were used
    assert list(differences()) == []


def test_credits_come_back_when_a_change_is_taken_back_at_once(on_silver, globex, silver, gold):
    use(globex, 70, START + DAY)

    cycle.change(subscription=on_silver, version=gold, when="now", at=HALF)
    cycle.change(subscription=on_silver, version=silver, when="now", at=HALF + timedelta(minutes=3))

    found = balance(globex, HALF + DAY)
    assert (found.available, found.overage) == (30, 0)
    assert list(differences()) == []


def test_credits_of_a_subscription_that_is_cancelled_now_end_with_it(on_silver, globex):
    use(globex, 20, START + DAY)

    cycle.cancel(subscription=on_silver, when="now", at=HALF)

    assert balance(globex, HALF).available == 0
    assert list(differences()) == []


def test_credits_that_an_operator_voided_stay_void_after_a_change(on_silver, globex, silver, gold):
    grant = globex.credit_grants.get()
    credits.void(grant=grant, at=START + DAY)

    cycle.change(subscription=on_silver, version=gold, when="now", at=HALF)
    cycle.change(subscription=on_silver, version=silver, when="now", at=HALF + timedelta(minutes=3))

    assert balance(globex, HALF + DAY).available == 0
    assert list(differences()) == []
