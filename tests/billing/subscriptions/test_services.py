"""Subscriptions: what may start, and how billing periods follow each other."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Barrier, Thread

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from accounts.models import Customer
from billing.errors import Conflict
from billing.metering.counter_models import TrackedPeriod
from billing.metering.services import claim
from billing.periods import Interval
from billing.pricing.services import create_version
from billing.pricing.spec import PriceSpec, VersionSpec
from billing.subscriptions import queries, services
from billing.subscriptions.models import BillingPeriod, Subscription
from tests.factories import make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 1, 31, 9, 7, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def price(meter):
    return PriceSpec(meter, meter, "USD", Decimal(1))


@pytest.fixture
def version(db):
    make_meter("tokens")
    return make_version(make_plan(), prices=(price("tokens"),))


def roll(customer, at):
    with transaction.atomic():
        claim(customer_id=customer.pk)
        return services.roll(customer_id=customer.pk, at=at)


def shown(customer):
    return [
        (f"{period.starts_at:%m-%d %H:%M}", f"{period.ends_at:%m-%d %H:%M}", period.status)
        for period in queries.periods(customer)
    ]


def test_a_subscription_starts_at_its_quarter_hour_and_opens_its_first_period(acme, version):
    subscription = services.start(customer=acme, version=version, starts_at=START, at=START)

    assert subscription.starts_at == datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
    assert subscription.anchor_day == 31
    assert shown(acme) == [("01-31 09:00", "02-27 23:00", "open")]
    assert [(row.starts_at, row.ends_at) for row in TrackedPeriod.objects.all()] == [
        (period.starts_at, period.ends_at) for period in queries.periods(acme)
    ]


def test_periods_follow_the_anchor_in_the_zone_of_the_customer(acme, version):
    make_subscription(acme, version, START)

    assert roll(acme, datetime(2026, 5, 30, 21, 59, tzinfo=UTC))

    # Midnight in Berlin, in winter and in summer, on the last day of shorter months.
    assert shown(acme) == [
        ("01-31 09:00", "02-27 23:00", "grace"),
        ("02-27 23:00", "03-30 22:00", "grace"),
        ("03-30 22:00", "04-29 22:00", "grace"),
        ("04-29 22:00", "05-30 22:00", "open"),
    ]


def test_an_anchor_day_moves_the_boundaries(acme, version):
    make_subscription(acme, version, START, anchor_day=15)

    assert shown(acme) == [("01-31 09:00", "02-14 23:00", "open")]


def test_a_yearly_plan_takes_an_anchor_month(globex, db):
    make_meter("tokens")
    yearly = make_version(make_plan(), interval="year", prices=(price("tokens"),))

    make_subscription(globex, yearly, START, anchor_day=1, anchor_month=7)
    roll(globex, START + timedelta(days=365))

    assert shown(globex) == [("01-31 09:00", "07-01 00:00", "grace"), ("07-01 00:00", "07-01 00:00", "open")]


def test_periods_of_days_are_counted_from_the_start(globex, db):
    weekly = make_version(make_plan(), interval="week", interval_count=2)

    make_subscription(globex, weekly, START)
    roll(globex, START + timedelta(days=15))

    assert shown(globex) == [("01-31 09:00", "02-14 00:00", "grace"), ("02-14 00:00", "02-28 00:00", "open")]


def test_a_new_zone_holds_from_the_next_period(acme, version):
    make_subscription(acme, version, START, anchor_day=1)
    acme.timezone = "America/New_York"
    acme.save()

    roll(acme, datetime(2026, 3, 15, tzinfo=UTC))

    assert shown(acme) == [
        ("01-31 09:00", "01-31 23:00", "grace"),
        ("01-31 23:00", "03-01 05:00", "grace"),
        ("03-01 05:00", "04-01 04:00", "open"),
    ]
    assert [period.timezone for period in queries.periods(acme)] == ["Europe/Berlin"] + ["America/New_York"] * 2


def test_a_period_closes_a_day_after_its_end(globex, version):
    make_subscription(globex, version, START, anchor_day=1)
    end = datetime(2026, 2, 1, tzinfo=UTC)

    assert not roll(globex, end - HOUR)
    assert roll(globex, end)
    assert not roll(globex, end + 23 * HOUR)
    assert roll(globex, end + 24 * HOUR)
    assert [status for *_, status in shown(globex)] == ["closed", "open"]


def test_a_period_that_opens_late_is_in_grace_for_one_roll_so_that_it_is_settled(globex, version):
    make_subscription(globex, version, START)
    late = START + timedelta(days=70)

    roll(globex, late)
    first = [status for *_, status in shown(globex)]
    roll(globex, late)

    assert first == ["grace", "grace", "open"]
    assert [status for *_, status in shown(globex)] == ["closed", "closed", "open"]


def test_rolling_again_moves_nothing(globex, version):
    make_subscription(globex, version, START)
    late = START + timedelta(days=400)
    roll(globex, late)
    roll(globex, late)
    before = list(BillingPeriod.objects.values_list())

    assert not roll(globex, late)
    assert list(BillingPeriod.objects.values_list()) == before


def test_every_missed_period_is_opened_once_when_two_roll_at_once(committed):
    make_meter("tokens")
    globex = Customer.objects.create(key="globex", name="Globex")
    make_subscription(globex, make_version(make_plan(), prices=(price("tokens"),)), START)
    together = Barrier(2)
    moved = []

    def run() -> None:
        together.wait()
        try:
            moved.append(roll(globex, START + timedelta(days=100)))
        finally:
            connection.close()

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    periods = list(queries.periods(globex))
    assert True in moved
    assert len(periods) == 4
    assert all(before.ends_at == after.starts_at for before, after in pairwise(periods))


def test_of_two_subscriptions_started_at_once_on_the_same_meter_one_is_refused(committed):
    make_meter("tokens")
    globex = Customer.objects.create(key="globex", name="Globex")
    version = make_version(make_plan(), prices=(price("tokens"),))
    together = Barrier(2)
    refused = []

    def run() -> None:
        together.wait()
        try:
            make_subscription(globex, version, START)
        except Conflict as conflict:
            refused.append(conflict.code)
        finally:
            connection.close()

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert refused == ["meter_already_priced"]
    assert Subscription.objects.count() == 1


# --- what may start -----------------------------------------------------------------------------------------


def test_a_meter_is_priced_by_one_subscription_at_a_time(acme, globex, version):
    make_meter("images")
    images = make_version(make_plan("images"), prices=(price("images"),))
    both = make_version(make_plan("both"), prices=(price("images"), price("tokens")))
    make_subscription(acme, version, START)

    make_subscription(acme, images, START)
    make_subscription(globex, both, START)
    with pytest.raises(Conflict) as refused:
        make_subscription(acme, both, START)

    assert (refused.value.code, refused.value.field) == ("meter_already_priced", "plan")
    assert "images, tokens" in refused.value.detail


def test_a_draft_cannot_be_subscribed_to(acme, version):
    draft = create_version(plan=version.plan, spec=VersionSpec(), at=START)

    with pytest.raises(ValidationError) as refused:
        make_subscription(acme, draft, START)

    assert set(refused.value.error_dict) == {"version"}


def test_a_version_cannot_be_subscribed_to_before_its_publication(acme, db):
    version = make_version(make_plan(), published_at=START + HOUR)

    with pytest.raises(ValidationError) as refused:
        make_subscription(acme, version, START)

    assert set(refused.value.error_dict) == {"version"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"anchor_day": 0}, "anchor_day"),
        ({"anchor_day": 32}, "anchor_day"),
        ({"anchor_month": 13}, "anchor_month"),
        ({"starts_at": datetime(203, 1, 1, tzinfo=UTC)}, "starts_at"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused_with_the_field(acme, version, fields, field):
    with pytest.raises(ValidationError) as refused:
        services.start(customer=acme, version=version, **{"starts_at": START, "at": START, **fields})

    assert set(refused.value.error_dict) == {field}


def test_weeks_have_no_anchor_day(acme, db):
    weekly = make_version(make_plan(), interval="week")

    with pytest.raises(ValidationError) as refused:
        make_subscription(acme, weekly, START, anchor_day=3)

    assert set(refused.value.error_dict) == {"anchor_day"}


# --- questions ----------------------------------------------------------------------------------------------


def test_customers_are_due_when_a_period_ends_and_when_its_grace_does(acme, globex, version):
    make_subscription(globex, version, START, anchor_day=1)
    end = datetime(2026, 2, 1, tzinfo=UTC)

    assert queries.due_customers(end - HOUR) == []
    assert queries.due_customers(end) == [globex.pk]
    roll(globex, end)
    assert queries.due_customers(end) == []
    assert queries.due_customers(end + services.GRACE) == [globex.pk]


def test_the_current_period_is_that_of_the_oldest_active_subscription(acme, version):
    make_meter("images")
    images = make_version(make_plan("images"), prices=(price("images"),))
    younger = make_subscription(acme, images, START + timedelta(days=5))
    older = make_subscription(acme, version, START)

    assert queries.current_period(acme, START - HOUR) is None
    assert queries.current_period(acme, START).subscription == older
    assert queries.current_period(acme, START + timedelta(days=6)).subscription == older
    assert queries.current_period(acme, START + timedelta(days=6), younger).subscription == younger


def test_the_current_period_lasts_until_the_next_one_is_open(globex, version):
    make_subscription(globex, version, START, anchor_day=1)
    end = datetime(2026, 2, 1, tzinfo=UTC)

    assert queries.current_period(globex, end).ends_at == end
    roll(globex, end)
    assert queries.current_period(globex, end).starts_at == end
    assert queries.current_period(globex, end - HOUR).ends_at == end


def test_without_a_subscription_the_range_is_the_calendar_month(acme, globex, version):
    month = Interval(datetime(2025, 12, 31, 23, tzinfo=UTC), datetime(2026, 1, 31, 23, tzinfo=UTC))
    assert queries.default_range(acme, START) == month

    make_subscription(acme, version, START, anchor_day=10)
    period = Interval(datetime(2026, 1, 31, 9, tzinfo=UTC), datetime(2026, 2, 9, 23, tzinfo=UTC))
    assert queries.default_range(acme, START) == period


def test_periods_are_those_that_share_time_with_the_range(globex, version, django_assert_num_queries):
    make_subscription(globex, version, START, anchor_day=1)
    roll(globex, datetime(2026, 4, 15, tzinfo=UTC))

    with django_assert_num_queries(2):  # and their plan segments
        found = list(
            queries.periods(
                globex, starts_at=datetime(2026, 2, 1, tzinfo=UTC), ends_at=datetime(2026, 3, 1, 0, 15, tzinfo=UTC)
            )
        )
        assert [period.version.plan.key for period in found] == ["pro", "pro"]
    assert [period.starts_at.month for period in found] == [2, 3]
