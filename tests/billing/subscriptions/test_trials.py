"""Trials: usage is counted and shown, nothing is charged, and the first paid period comes after."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.credits import queries as credit_questions
from billing.credits.statements import period_statement
from billing.cycle import services as cycle
from billing.cycle.verify import differences
from billing.metering.models import Meter
from billing.metering.queries import totals
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from billing.subscriptions import queries, services
from tests.factories import event, ingest, make_meter, make_plan, make_version

D = Decimal
START = datetime(2026, 6, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)
END = START + 14 * DAY


@pytest.fixture
def version(db):
    make_meter("searches", aggregation="count", event_type="search")
    make_meter("images", aggregation="count", event_type="image")
    return make_version(
        make_plan(),
        base_fee=D(30),
        trial_days=14,
        minimum_spend=D(50),
        prices=(
            PriceSpec("searches", "searches", "credits", D(1)),
            PriceSpec("images", "images", "USD", D(2)),
        ),
        credits=(CreditSpec("credits", D(100)),),
        overage=(OverageSpec("credits", D("0.5")),),
    )


@pytest.fixture
def subscription(globex, version):
    return cycle.subscribe(customer=globex, version=version, starts_at=START, at=START)


def use(customer, kind, count, at):
    sent = [event(f"{kind}-{at}-{n}", customer.key, type=kind, timestamp=at.isoformat()) for n in range(count)]
    assert ingest(*sent, at=at).accepted == count
    cycle.advance(customer_id=customer.pk, at=at)


def shown(subscription):
    return [(f"{one.starts_at:%m-%d %H:%M}", f"{one.ends_at:%m-%d %H:%M}") for one in subscription.periods.all()]


def test_a_trial_is_a_period_of_its_own(subscription, globex):
    assert subscription.trial_ends_at == END
    assert queries.stage(subscription, START + DAY) == "trialing"

    cycle.advance(customer_id=globex.pk, at=END + DAY)

    assert shown(subscription) == [("06-01 10:00", "06-15 10:00"), ("06-15 10:00", "07-15 00:00")]
    assert queries.stage(subscription, END) == "active"
    assert subscription.anchor_day == 15


def test_usage_is_counted_and_nothing_is_charged(subscription, globex):
    use(globex, "search", 5, START + DAY)
    use(globex, "image", 7, START + DAY)
    period = subscription.periods.get()

    statement = period_statement(period, at=END)

    assert [(row.source.quantity, row.amount) for row in statement.main.usage_rows] == [(7, 0)]
    assert statement.main.amount_due == 0
    counted = totals(globex, starts_at=START, ends_at=END, meter_ids=Meter.objects.values_list("pk", flat=True))
    assert sum(one.quantity for one in counted) == 12
    assert credit_questions.balances(globex, START + DAY) == []
    assert list(differences()) == []


def test_fee_credits_and_prices_come_with_the_first_paid_period(subscription, globex):
    use(globex, "image", 7, START + DAY)
    use(globex, "image", 11, END + DAY)
    use(globex, "search", 5, END + DAY)
    period = subscription.periods.latest("starts_at")

    statement = period_statement(period, at=END + DAY)

    assert (statement.main.usage, statement.main.fees) == (22, 30)
    balances = {balance.unit: balance.available for balance in credit_questions.balances(globex, END + DAY)}
    assert balances["credits"] == 95


def test_an_anchor_day_holds_after_the_trial(globex, version):
    subscription = cycle.subscribe(customer=globex, version=version, starts_at=START, anchor_day=1, at=START)
    cycle.advance(customer_id=globex.pk, at=START + 32 * DAY)

    assert shown(subscription) == [
        ("06-01 10:00", "06-15 10:00"),
        ("06-15 10:00", "07-01 00:00"),
        ("07-01 00:00", "08-01 00:00"),
    ]


def test_the_trial_goes_on_after_a_change_of_plan(subscription, globex, version):
    yearly = make_version(
        make_plan("yearly"), interval="year", base_fee=D(300), prices=(PriceSpec("images", "images", "USD", D(1)),)
    )

    cycle.change(subscription=subscription, version=yearly, when="now", at=START + 5 * DAY)
    use(globex, "image", 7, START + 6 * DAY)
    cycle.advance(customer_id=globex.pk, at=END + DAY)

    trial, paid = subscription.periods.all()
    assert period_statement(trial, at=END).main.amount_due == 0
    assert (paid.starts_at, paid.ends_at) == (END, datetime(2027, 6, 15, tzinfo=UTC))
    assert period_statement(paid, at=END).main.fees == 300


def test_who_cancels_in_the_trial_pays_nothing(subscription, globex):
    cancelled = services.cancel(subscription=subscription, when="period_end", at=START + DAY)
    assert cancelled.ends_at == END

    cycle.advance(customer_id=globex.pk, at=END + 40 * DAY)

    assert shown(subscription) == [("06-01 10:00", "06-15 10:00")]
    subscription.refresh_from_db()
    assert queries.stage(subscription, END) == "ended"
