"""Holds: what is allowed, what is denied, and when a hold counts no longer."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Customer, TestClock
from billing.authorizations import services
from billing.authorizations.facts import UnknownMeter, Usage
from billing.authorizations.models import Authorization, HoldAccount
from billing.authorizations.queries import balances
from billing.budgets import services as budgets
from billing.credits import services as credits
from billing.cycle.services import subscribe, tick
from billing.errors import Conflict
from billing.metering import ingesting
from billing.metering import services as metering
from billing.metering.models import Meter
from billing.pricing import agreements
from billing.pricing.models import PlanVersion, Price
from billing.pricing.schemes import Tier
from billing.pricing.spec import MatchSpec, OverageSpec, PriceSpec
from tests.billing.authorizations.conftest import (
    MINUTE,
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
from tests.factories import event, make_meter, make_plan, make_version

D = Decimal
SECOND = timedelta(seconds=1)


def balance(customer, at=NOON, unit="credits"):
    return next(one for one in balances(customer, at) if one.unit == unit)


def test_a_hold_is_reserved_and_what_is_left_can_be_held(house):
    give(house, 100)

    first = ask(house, 60)

    assert first.available_after == {"credits": 40}
    assert (balance(house).balance, balance(house).reserved, balance(house).available) == (100, 60, 40)
    assert denied(ask(house, "40.000000000001")) == "credit_exhausted"
    assert ask(house, 40).available_after == {"credits": 0}


def test_a_released_hold_is_free_at_once_and_ends_once(house):
    give(house, 100)
    held = allowed(ask(house, 100))

    services.release(authorization=held, at=NOON + MINUTE)

    assert balance(house).available == 100
    with pytest.raises(Conflict, match="release has ended it"):
        services.release(authorization=held, at=NOON + MINUTE)
    with pytest.raises(Conflict):
        services.capture(authorization=held, at=NOON + MINUTE)


def test_a_hold_past_its_expiry_never_counts_even_before_it_is_swept(house):
    give(house, 100)
    held = allowed(ask(house, 100))

    assert denied(ask(house, 1, at=NOON + 5 * MINUTE - timedelta(microseconds=1))) == "credit_exhausted"
    assert balance(house, NOON + 5 * MINUTE).available == 100
    assert ask(house, 100, at=NOON + 5 * MINUTE).available_after == {"credits": 0}

    held.refresh_from_db()
    assert (held.ended_by, held.ended_at) == ("expiry", NOON + 5 * MINUTE)
    with pytest.raises(Conflict, match="expiry has ended it"):
        services.capture(authorization=held, at=NOON + 6 * MINUTE)


def test_due_work_frees_what_has_expired(house):
    give(house, 100)
    allowed(ask(house, 100))

    tick(at=NOON + 5 * MINUTE)
    assert Authorization.objects.get().ended_by == ""  # for a while it is left to the next question

    tick(at=NOON + 5 * MINUTE + SECOND)
    assert HoldAccount.objects.get().reserved == 0
    assert Authorization.objects.get().ended_by == "expiry"


def test_due_work_frees_for_many_customers_at_once(house):
    version = PlanVersion.objects.get()
    others = [Customer.objects.create(key=f"other-{number}", name="Other") for number in range(3)]
    for customer in others:
        subscribe(customer=customer, version=version, starts_at=START, at=START)
    for customer in [house, *others]:
        give(customer, 100)
        allowed(ask(customer, 100))

    with CaptureQueriesContext(connection) as for_many:
        tick(at=NOON + 5 * MINUTE + SECOND)
    assert {one.reserved for one in HoldAccount.objects.all()} == {0}

    allowed(ask(house, 100, at=NOON + 6 * MINUTE))
    with CaptureQueriesContext(connection) as for_one:
        tick(at=NOON + 11 * MINUTE + SECOND)
    assert len(for_many) == len(for_one)


def test_an_event_ends_its_hold_which_stays_reserved_until_the_event_is_settled(house):
    give(house, 100)
    held = allowed(ask(house, 30))

    assert use(house, "search", 20, authorization=held.public_id).results == []

    held.refresh_from_db()
    assert (held.ended_by, held.settled_at) == ("event", None)
    assert balance(house).available == 70
    assert denied(ask(house, 71)) == "credit_exhausted"
    tick(at=NOON)
    assert (balance(house).balance, balance(house).reserved) == (80, 0)


def test_a_hold_that_an_event_ended_outlives_its_expiry_until_it_is_settled(house):
    give(house, 100)
    held = allowed(ask(house, 100))
    use(house, "search", 100, authorization=held.public_id)

    assert denied(ask(house, 1, at=NOON + 6 * MINUTE)) == "credit_exhausted"
    assert balance(house, NOON + 6 * MINUTE).available == 0


def test_usage_that_nobody_asked_for_counts_before_it_is_counted(house):
    give(house, 100)
    use(house, "search", 90)

    assert denied(ask(house, 11)) == "credit_exhausted"
    assert ask(house, 10).available_after == {"credits": 0}


def test_an_event_and_usage_beside_it_are_never_taken_for_each_other(house):
    give(house, 100)
    held = allowed(ask(house, 30))
    use(house, "search", 20, authorization=held.public_id)
    use(house, "search", 50)

    assert denied(ask(house, 31)) == "credit_exhausted"
    tick(at=NOON)
    assert balance(house).available == 30


@pytest.mark.parametrize("name", ["auth_nothing", "no identifier at all"])
def test_an_unknown_authorization_is_a_warning_and_never_refuses_the_event(house, name):
    answer = use(house, "search", 1, authorization=name)

    assert answer.accepted == 1
    assert [result["warning"] for result in answer.results] == ["authorization_not_open"]


def test_ended_expired_and_other_customers_authorizations_are_a_warning(house, globex):
    give(house, 100)
    ended, expired = allowed(ask(house, 1)), allowed(ask(house, 1))
    services.release(authorization=ended, at=NOON)

    answers = [
        use(house, "search", 1, authorization=ended.public_id),
        use(house, "search", 1, authorization=expired.public_id, at=NOON + 6 * MINUTE),
        use(globex, "search", 1, authorization=allowed(ask(house, 1)).public_id),
    ]

    assert [answer.results[0]["warning"] for answer in answers] == ["authorization_not_open"] * 3
    assert [answer.accepted for answer in answers] == [1, 1, 1]


def test_the_warning_is_that_of_the_event_which_found_the_hold_ended(house, globex):
    """Also where several bodies are stored together, as those are that come at the same time."""
    give(house, 100)
    held = allowed(ask(house, 1)).public_id
    bodies = [
        [event("theirs", "globex", type="search", n=1, authorization=held)],
        [event("first", "acme", type="search", n=1, authorization=held)],
        [event("second", "acme", type="search", n=1, authorization=held)],
    ]
    sent = [
        ingesting.judged(body=json.dumps(body).encode(), content_type="application/json", api_key=None, at=NOON)
        for body in bodies
    ]

    answers = services.take._record(sent)

    warned = [[result.get("warning") for result in answer.results] for answer in answers]
    assert warned == [["authorization_not_open"], [], ["authorization_not_open"]]


def test_a_repeated_event_ends_nothing_a_second_time(house):
    give(house, 100)
    held = allowed(ask(house, 1))
    use(house, "search", 1, authorization=held.public_id)
    tick(at=NOON)
    account = HoldAccount.objects.get()

    assert account.reserved == 0
    assert use(house, "search", 1, authorization=held.public_id).results[0]["warning"] == "authorization_not_open"
    tick(at=NOON)
    account.refresh_from_db()
    assert account.reserved == 0


# --- prices -----------------------------------------------------------------------------------------------------


def test_usage_is_priced_at_the_margin_of_the_period_so_far(acme):
    tiers = (Tier(D(10), D(0)), Tier(None, D(2)))
    make_house(acme, (PriceSpec("searches", "searches", "credits", scheme="graduated", tiers=tiers),))
    give(acme, 100)

    assert ask_for(acme, "searches", 5).amounts == {"credits": 0}
    use(acme, "search", 8)
    assert ask_for(acme, "searches", 5).amounts == {"credits": 6}
    tick(at=NOON)
    assert ask_for(acme, "searches", 5).amounts == {"credits": 6}
    use(acme, "search", 3)
    assert ask_for(acme, "searches", 5).amounts == {"credits": 10}


def test_two_rows_of_one_question_are_priced_one_after_the_other(acme):
    make_house(acme, (PriceSpec("searches", "searches", "credits", D(2), included=D(10)),))
    give(acme, 100)
    usage = [Usage("searches", D(8)), Usage("searches", D(8))]
    found = services.authorize(customer="acme", wanted=usage, ttl=MINUTE, at=NOON)

    assert found.amounts == {"credits": 12}


def test_properties_choose_the_price(acme):
    large = MatchSpec({"model": "large"}, unit_amount=D(5))
    make_house(acme, (PriceSpec("work", "work", "USD", D(1), match=(large,)),))

    assert ask_for(acme, "work", 2, model="large").amounts == {"USD": 10}
    assert ask_for(acme, "work", 2, model="small").amounts == {"USD": 2}


def test_without_a_subscription_that_prices_it_nothing_is_allowed(house, globex):
    make_meter("images", event_type="image", aggregation="count")

    assert denied(ask(globex, 1)) == "no_subscription"
    assert denied(ask_for(house, "images", 1)) == "no_subscription"


@pytest.mark.parametrize("meter", ["searches", "images"])
def test_between_a_periods_end_and_the_tick_that_opens_the_next_the_last_prices_hold(house, meter):
    """Of every subscription."""
    make_meter("images", event_type="image", value="n")
    other = make_version(make_plan("other"), prices=(PriceSpec("images", "images", "credits", D(2)),))
    subscribe(customer=house, version=other, starts_at=START, at=START)
    give(house, 10)
    april = START + timedelta(days=31)

    assert ask_for(house, meter, 1, at=april + MINUTE).amounts == {"credits": 2 if meter == "images" else 1}
    use(house, "image", 4, at=april + MINUTE)
    assert denied(ask_for(house, meter, 3, at=april + MINUTE)) == "credit_exhausted"


# --- limits -----------------------------------------------------------------------------------------------------


def test_credits_with_a_price_beyond_the_grants_may_run_beyond_them(acme):
    make_house(acme, overage=(OverageSpec("credits", D("0.5")),))
    give(acme, 10)

    assert ask(acme, 100).available_after == {"credits": None}


def test_what_is_beyond_the_grants_counts_against_the_budget_in_its_currency(acme):
    make_house(acme, overage=(OverageSpec("credits", D("0.5")),))
    give(acme, 10)
    stop_at(acme, 20)

    assert denied(ask(acme, 51)) == "budget_stop"
    allowed(ask(acme, 50))
    assert denied(ask(acme, 1)) == "budget_stop"


def test_money_is_invoiced_unless_the_plan_is_prepaid(acme):
    make_house(acme)
    assert ask(acme, 1_000_000, "USD").available_after == {"USD": None}


def test_a_prepaid_plan_needs_money_that_was_paid(acme):
    make_house(acme, postpaid=False)
    give(acme, 5, "USD")

    assert denied(ask(acme, 6, "USD")) == "credit_exhausted"
    assert ask(acme, 5, "USD").available_after == {"USD": 0}


def test_a_budget_stops_at_its_percent_and_says_so(house):
    budget = stop_at(house, 100, percent=50)
    use(house, "work", 30)
    tick(at=NOON)
    allowed(ask(house, 15, "USD"))
    use(house, "work", 2)

    found = ask(house, 4, "USD")

    assert denied(found) == "budget_stop"
    assert (found.budget.id, found.budget.name) == (budget.pk, budget.name)
    assert (found.stop.limit, found.stop.used, found.stop.reserved) == (50, 32, 15)
    assert ask(house, 3, "USD").available_after == {"USD": 0}


def test_a_budget_that_only_warns_stops_nothing(house):
    budget = stop_at(house, 1)
    assert denied(ask(house, 2, "USD")) == "budget_stop"

    budgets.update_budget(budget=budget, stop_at_percent=None, at=NOON)

    allowed(ask(house, 2, "USD"))


def test_the_strictest_budget_stops_and_the_others_hold_nothing(house):
    stop_at(house, 100)
    strict = stop_at(house, 10)

    found = ask(house, 11, "USD")

    assert found.budget.id == strict.pk
    assert not HoldAccount.objects.exists()


def test_a_new_billing_period_begins_with_nothing_used(house):
    stop_at(house, 10)
    use(house, "work", 10)
    tick(at=NOON)
    assert denied(ask(house, 1, "USD")) == "budget_stop"

    april = START + timedelta(days=32)
    tick(at=april)

    allowed(ask(house, 10, "USD", at=april))


def test_a_grant_counts_from_its_start_to_its_expiry_without_any_tick(house):
    give(house, 10, effective_at=NOON, expires_at=NOON + 60 * MINUTE)

    assert denied(ask(house, 1, at=NOON - MINUTE)) == "credit_exhausted"
    allowed(ask(house, 1, at=NOON))
    assert denied(ask(house, 1, at=NOON + 60 * MINUTE)) == "credit_exhausted"


def test_a_grant_for_other_meters_does_not_help(house):
    give(house, 10, meters=["work"])
    give(house, 5)

    assert denied(ask_for(house, "searches", 6)) == "credit_exhausted"
    allowed(ask_for(house, "searches", 5))
    assert denied(ask_for(house, "searches", 1)) == "credit_exhausted"


def test_a_void_grant_is_gone_for_the_next_question(house):
    grant = give(house, 10)
    allowed(ask(house, 4))

    credits.void(grant=grant, at=NOON)

    assert denied(ask(house, 1)) == "credit_exhausted"


def test_settled_authorizations_are_forgotten_after_a_week(house):
    give(house, 10)
    services.release(authorization=allowed(ask(house, 1)), at=NOON)
    still = allowed(ask(house, 1))

    assert services.forget(at=NOON + timedelta(days=7)) == 0
    assert services.forget(at=NOON + timedelta(days=7, microseconds=1)) == 1
    assert list(Authorization.objects.all()) == [still]


@pytest.mark.parametrize("year", [2020, 2050])
def test_in_a_sandbox_a_week_is_one_of_its_clock(house, year):
    there = datetime(year, 3, 1, tzinfo=UTC)
    give(house, 10)
    held = allowed(ask(house, 1))
    Customer.objects.filter(pk=house.pk).update(test_clock=TestClock.objects.create(now=there))
    Authorization.objects.update(created_at=there, expires_at=there + MINUTE)
    services.release(authorization=held, at=there)

    assert services.forget(at=NOON) == 0
    TestClock.objects.update(now=there + timedelta(days=7, microseconds=1))
    assert services.forget(at=NOON) == 1


def test_what_is_denied_leaves_nothing_behind(house):
    assert denied(ask(house, 1, "no such unit")) == "credit_exhausted"

    assert not HoldAccount.objects.exists()


def test_an_unknown_customer_and_an_unknown_meter_are_said_so(house):
    wanted = [Usage("searches", D(1)), Usage("nothing", D(1))]

    with pytest.raises(UnknownMeter) as unknown:
        services.authorize(customer="acme", wanted=wanted, ttl=MINUTE, at=NOON)
    assert unknown.value.index == 1
    with pytest.raises(services.UnknownCustomer):
        services.authorize(customer="nobody", wanted=wanted, ttl=MINUTE, at=NOON)


def test_what_was_agreed_prices_the_next_question(house):
    assert ask_for(house, "work", 2).amounts == {"USD": 2}

    agreements.override_price(
        customer=house,
        price=Price.objects.get(key="work"),
        row=None,
        amounts=MatchSpec({}, unit_amount=D(3)),
        at=NOON,
    )

    assert ask_for(house, "work", 2).amounts == {"USD": 6}


def test_a_meter_that_counts_otherwise_is_priced_otherwise(house):
    """Before anything is counted its aggregation may change, which no version of the customer tells."""
    give(house, 100)
    assert ask_for(house, "searches", 2).amounts == {"credits": 2}

    metering.update_meter(meter=Meter.objects.get(key="searches"), aggregation="max", at=NOON)

    use(house, "search", 5)
    assert ask_for(house, "searches", 7).amounts == {"credits": 2}


def test_an_event_ends_a_hold_of_a_sandbox_by_its_clock(house):
    give(house, 100)
    Customer.objects.filter(pk=house.pk).update(test_clock=TestClock.objects.create(now=NOON))
    held = allowed(ask(house, 10))

    sent = event("e", "acme", type="search", timestamp=NOON.isoformat(), authorization=held.public_id)
    later = NOON + timedelta(days=200)
    services.take(body=json.dumps([sent]).encode(), content_type="application/json", api_key=None, at=later)

    held.refresh_from_db()
    assert (held.ended_by, held.ended_at) == ("event", NOON)
