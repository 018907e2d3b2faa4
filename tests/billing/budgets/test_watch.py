"""When a threshold fires, and that it fires once."""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction

from accounts.models import Customer
from billing.budgets import queries, services
from billing.budgets.models import Alert, AlertDirection
from billing.budgets.validation import ThresholdSpec
from billing.credits import queries as credits
from billing.cycle import services as cycle
from billing.notifications.models import OutboxMessage
from billing.periods import Interval
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from billing.subscriptions.models import BillingPeriod, PeriodStatus
from billing.subscriptions.services import roll
from tests.billing.budgets.conftest import (
    AT,
    DECEMBER,
    NOVEMBER,
    headlines,
    make_budget,
    percents,
    spend,
    subscribe,
    watch,
)
from tests.conftest import member
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version


def fired() -> list[Decimal]:
    """The percents that have fired, in the order of their rows."""
    alerts = Alert.objects.filter(direction=AlertDirection.FIRED).order_by("id")
    return [alert.threshold.percent for alert in alerts.select_related("threshold")]


@pytest.mark.parametrize(
    ("dollars", "expected"),
    [
        ("999.999999999999", []),
        ("1000", [50]),
        ("1599.99", [50]),
        ("1600", [80, 50]),
        ("2000", [100, 80, 50]),
        ("9000", [100, 80, 50]),
    ],
)
def test_a_threshold_fires_from_exactly_its_level_on(subscribed, dollars, expected):
    make_budget(subscribed)
    spend(subscribed, dollars)

    assert watch(subscribed) is bool(expected)
    assert fired() == expected


def test_several_thresholds_at_once_make_one_mail_that_names_the_highest(subscribed):
    make_budget(subscribed)
    spend(subscribed, 1900)

    watch(subscribed)

    [message] = OutboxMessage.objects.all()
    assert message.context["headline"] == '80 % of budget "Production" used'
    assert message.context["also"] == ["50 %"]


def test_a_threshold_fires_once_a_period(subscribed):
    make_budget(subscribed)
    spend(subscribed, 1000)
    watch(subscribed)
    spend(subscribed, 100)

    assert watch(subscribed) is False
    assert fired() == [50]
    assert len(headlines()) == 1


def test_each_threshold_makes_a_mail_of_its_own_when_they_are_crossed_one_by_one(subscribed):
    make_budget(subscribed)
    for dollars in (1000, 600, 400):
        spend(subscribed, dollars)
        watch(subscribed)

    assert headlines() == [f'{percent} % of budget "Production" used' for percent in (50, 80, 100)]
    assert len({message.thread for message in OutboxMessage.objects.all()}) == 1


def test_an_amount_is_a_threshold_too(subscribed):
    make_budget(subscribed, thresholds=[ThresholdSpec(amount=Decimal(1900))])
    spend(subscribed, 1900)

    watch(subscribed)

    assert headlines() == ['$1,900.00 of budget "Production" used']


def test_an_alert_states_what_the_page_shows(subscribed):
    make_budget(subscribed)
    spend(subscribed, "1604.20")
    as_of = AT - timedelta(seconds=1)

    watch(subscribed, as_of=as_of)

    alert = Alert.objects.get(level=1600)
    spent = credits.spend(subscribed, unit="USD", interval=Interval(NOVEMBER, DECEMBER))
    assert alert.value == spent == Decimal("1604.20")
    assert (alert.limit, alert.as_of) == (2000, as_of)
    assert (alert.period_start, alert.period_end) == (NOVEMBER, DECEMBER)


def test_a_customer_without_a_subscription_is_not_judged(acme, work):
    make_budget(acme)

    assert watch(acme) is False


def test_the_spend_of_another_customer_counts_for_nothing(subscribed, globex):
    make_budget(globex)
    spend(subscribed, 5000)

    assert watch(globex) is False
    assert watch(subscribed) is False


def test_usage_before_the_period_counts_for_nothing(subscribed):
    make_budget(subscribed)
    spend(subscribed, 5000, at=NOVEMBER - timedelta(minutes=15))

    assert watch(subscribed) is False


def test_an_archived_budget_is_not_judged(subscribed):
    budget = make_budget(subscribed)
    services.archive_budget(budget=budget, at=AT)
    spend(subscribed, 5000)

    assert watch(subscribed) is False


def test_the_tick_that_counts_an_event_tells_of_it(subscribed):
    make_budget(subscribed)
    sent = event("e1", timestamp=AT.isoformat(), work="1604.20")
    ingest(sent, at=AT, backfill=True)

    cycle.advance(customer_id=subscribed.pk, at=AT)

    assert fired() == [80, 50]
    assert headlines() == ['80 % of budget "Production" used']


def test_an_alert_that_cannot_be_written_does_not_keep_events_from_being_counted(subscribed, caplog):
    make_budget(subscribed, recipients=["owners"])
    Customer.objects.filter(pk=subscribed.pk).update(email="no address at all")
    ingest(event("e1", timestamp=AT.isoformat(), work="1604.20"), at=AT, backfill=True)

    cycle.advance(customer_id=subscribed.pk, at=AT)

    assert "could not be watched" in caplog.text
    assert credits.spend(subscribed, unit="USD", interval=Interval(NOVEMBER, DECEMBER)) == Decimal("1604.20")
    assert fired() == []


def test_credits_beyond_the_grants_count_at_their_rate(acme, work):
    prices = (PriceSpec("work", "work", "credits", Decimal(1)),)
    terms = {"credits": (CreditSpec("credits", Decimal(100)),), "overage": (OverageSpec("credits", Decimal("0.5")),)}
    make_subscription(acme, make_version(make_plan(), prices=prices, **terms), NOVEMBER)
    cycle.advance(customer_id=acme.pk, at=AT)
    make_budget(acme, amount=Decimal(100))
    make_budget(acme, name="Credits", unit="credits", amount=Decimal(1000))
    spend(acme, 300)

    watch(acme)

    values = dict(Alert.objects.values_list("threshold__budget__name", "value"))
    assert values == {"Production": Decimal(100)}
    spend(acme, 200)
    watch(acme)
    assert Alert.objects.get(threshold__budget__name="Credits").value == 500


# --- edits ----------------------------------------------------------------------------------------------------


def test_a_budget_made_below_the_spend_says_so_in_one_mail(subscribed):
    spend(subscribed, 1700)

    make_budget(subscribed)

    assert headlines() == ['Already above 80 % of budget "Production"']
    assert fired() == [80, 50]
    assert watch(subscribed) is False


def test_a_budget_lowered_below_the_spend_says_so_at_once(subscribed):
    budget = make_budget(subscribed)
    spend(subscribed, 900)
    watch(subscribed)

    services.update_budget(budget=budget, amount=Decimal(1000), at=AT)

    assert headlines() == ['Already above 80 % of budget "Production"']


def test_a_raise_well_above_the_spend_arms_its_thresholds_again(subscribed):
    budget = make_budget(subscribed, thresholds=percents(80))
    spend(subscribed, 1600)
    watch(subscribed)

    services.update_budget(budget=budget, amount=Decimal(4000), at=AT)
    spend(subscribed, 1600)
    watch(subscribed)

    rows = Alert.objects.order_by("id").values_list("direction", "epoch", "value")
    assert list(rows) == [("fired", 0, 1600), ("resolved", 0, 1600), ("fired", 1, 3200)]
    assert headlines() == ['80 % of budget "Production" used'] * 2


def test_a_raise_within_two_percent_of_the_level_changes_nothing(subscribed):
    budget = make_budget(subscribed, thresholds=percents(80))
    spend(subscribed, 1600)
    watch(subscribed)

    services.update_budget(budget=budget, amount=Decimal("2040.80"), at=AT)
    spend(subscribed, 100)

    assert watch(subscribed) is False
    assert Alert.objects.count() == 1


def test_other_edits_fire_nothing_again(subscribed):
    budget = make_budget(subscribed)
    spend(subscribed, 1700)
    watch(subscribed)

    services.update_budget(budget=budget, name="Everything", thresholds=percents(50, 80), at=AT)

    assert len(headlines()) == 1


def test_a_threshold_that_comes_back_remembers_what_it_fired(subscribed):
    budget = make_budget(subscribed)
    spend(subscribed, 1700)
    watch(subscribed)

    services.update_budget(budget=budget, thresholds=percents(50), at=AT)
    services.update_budget(budget=budget, thresholds=percents(50, 80), at=AT)

    assert len(headlines()) == 1


# --- periods --------------------------------------------------------------------------------------------------


def test_a_new_period_arms_every_threshold_again(subscribed):
    make_budget(subscribed)
    spend(subscribed, 1000)
    watch(subscribed)
    roll(customer_id=subscribed.pk, at=DECEMBER)
    spend(subscribed, 1000, at=DECEMBER)

    watch(subscribed, at=DECEMBER + timedelta(hours=1))

    assert fired() == [50, 50]
    assert sorted(Alert.objects.values_list("period_start", flat=True)) == [NOVEMBER, DECEMBER]


def test_late_usage_fires_while_its_period_is_in_grace(subscribed):
    make_budget(subscribed)
    roll(customer_id=subscribed.pk, at=DECEMBER)
    spend(subscribed, 1000, at=DECEMBER - timedelta(minutes=15))

    watch(subscribed, at=DECEMBER + timedelta(hours=1))

    assert Alert.objects.get().period_start == NOVEMBER


def test_late_usage_of_a_closed_period_fires_nothing(subscribed):
    make_budget(subscribed)
    later = DECEMBER + timedelta(hours=25)
    roll(customer_id=subscribed.pk, at=DECEMBER)
    roll(customer_id=subscribed.pk, at=later)
    assert BillingPeriod.objects.get(starts_at=NOVEMBER).status == PeriodStatus.CLOSED
    spend(subscribed, 5000, at=DECEMBER - timedelta(minutes=15))

    assert watch(subscribed, at=later) is False


def test_a_period_that_has_ended_is_not_judged_by_levels_set_later(subscribed):
    budget = make_budget(subscribed)
    spend(subscribed, 900)
    roll(customer_id=subscribed.pk, at=DECEMBER)
    morning = DECEMBER + timedelta(hours=8)

    services.update_budget(budget=budget, amount=Decimal(1000), at=morning)

    assert watch(subscribed, at=morning) is False
    assert headlines() == []


# --- recipients -----------------------------------------------------------------------------------------------


def test_roles_are_mailed_to_those_who_hold_them_now(subscribed, alice, bob):
    make_budget(subscribed, recipients=["owners", "finance@acme.test"])
    member(subscribed, "olga", "owner")
    spend(subscribed, 1000)

    watch(subscribed)

    told = OutboxMessage.objects.values_list("recipient", flat=True)
    assert sorted(told) == ["alice@acme.test", "finance@acme.test", "olga@acme.test"]


def test_an_address_that_is_named_twice_gets_one_mail(subscribed, alice):
    make_budget(subscribed, recipients=["owners", "Alice@acme.test"])
    spend(subscribed, 1000)

    watch(subscribed)

    assert OutboxMessage.objects.get().recipient == "alice@acme.test"


def test_with_nobody_in_the_role_the_customers_own_address_is_told(subscribed):
    make_budget(subscribed, recipients=["owners"])
    spend(subscribed, 1000)

    watch(subscribed)

    assert OutboxMessage.objects.get().recipient == "ap@acme.test"


# --- at once --------------------------------------------------------------------------------------------------


def test_twenty_watchers_at_once_make_one_alert_and_one_mail(committed):
    acme = Customer.objects.create(key="acme", name="Acme", timezone="Europe/Berlin")
    make_meter("work", dimensions=["model", "api_key"])
    subscribe(acme)
    make_budget(acme, recipients=["finance@acme.test", "ops@acme.test"])
    spend(acme, 1700)
    start = threading.Barrier(20)

    def watch_unclaimed() -> None:
        start.wait()
        with transaction.atomic():  # without the claim, so that the unique row alone is the guard
            services.watch_all(as_of={acme.pk: AT}, at=AT)
        connection.close()

    watchers = [threading.Thread(target=watch_unclaimed) for _ in range(20)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()

    assert fired() == [80, 50]
    told = OutboxMessage.objects.values_list("recipient", flat=True)
    assert sorted(told) == ["finance@acme.test", "ops@acme.test"]


# --- status ---------------------------------------------------------------------------------------------------


def test_the_status_tells_what_is_used_left_and_fired(subscribed):
    make_budget(subscribed)
    spend(subscribed, "1599.99")
    watch(subscribed)

    [status] = queries.status(subscribed, AT)

    assert (status.value, status.left, status.percent) == (Decimal("1599.99"), Decimal("400.01"), Decimal("79.9"))
    assert [(one.level, one.fired_at) for one in status.thresholds] == [(1000, AT), (1600, None), (2000, None)]


def test_an_exceeded_budget_has_less_than_nothing_left(subscribed):
    make_budget(subscribed)
    spend(subscribed, 2100)

    [status] = queries.status(subscribed, AT)

    assert (status.left, status.percent) == (-100, 105)


def test_a_resolved_threshold_does_not_count_as_fired(subscribed):
    budget = make_budget(subscribed)
    spend(subscribed, 1000)
    watch(subscribed)
    services.update_budget(budget=budget, amount=Decimal(4000), at=AT)

    [status] = queries.status(subscribed, AT)

    assert [one.fired_at for one in status.thresholds] == [None, None, None]


@pytest.mark.parametrize("budgets", [1, 3])
def test_watching_costs_the_same_however_many_budgets_there_are(subscribed, django_assert_num_queries, budgets):
    for number in range(budgets):
        make_budget(subscribed, name=f"Budget {number}")

    services.watch_all(as_of={subscribed.pk: AT}, at=AT)  # the terms of the version
    with django_assert_num_queries(10):
        services.watch_all(as_of={subscribed.pk: AT}, at=AT)
