"""What credits cost beyond the grants: the same total however it is cut and grouped."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing.credits import queries, services
from billing.credits.booking import book
from billing.credits.models import GrantKind
from billing.cycle.services import advance
from billing.periods import Interval
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from billing.reads import shared
from billing.subscriptions.queries import periods, periods_between
from tests.billing.credits.conftest import START
from tests.billing.credits.test_settlement import DAY, balance, use
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

HOUR = timedelta(hours=1)


@pytest.fixture
def two_lines(globex):
    """Searches and pictures cost a credit each; 10 credits pay pictures only, and 20 pay whatever comes."""
    make_meter("searches", aggregation="count", event_type="search")
    make_meter("pictures", aggregation="count", event_type="picture")
    version = make_version(
        make_plan(),
        credits=(CreditSpec("credits", Decimal(20), priority=1),),
        prices=(
            PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1)),
            PriceSpec("pictures", meter="pictures", unit="credits", unit_amount=Decimal(1)),
        ),
        overage=(OverageSpec("credits", Decimal("0.333333333333")),),
    )
    make_subscription(globex, version, START)
    services.grant(
        customer=globex,
        unit="credits",
        amount=Decimal(10),
        kind=GrantKind.PAID,
        meters=["pictures"],
        priority=5,
        at=START,
    )
    for hour in range(12):
        at = START + hour * HOUR
        kinds = ["search", "picture", "picture"] if hour % 2 else ["search", "search", "picture"]
        sent = [event(f"{hour}-{n}", "globex", type=kind, timestamp=at.isoformat()) for n, kind in enumerate(kinds)]
        ingest(*sent, at=at)
    advance(customer_id=globex.pk, at=START + 12 * HOUR)
    return globex


@pytest.mark.parametrize("step", [timedelta(minutes=15), HOUR, 5 * HOUR, 31 * DAY])
@pytest.mark.parametrize("group_by", [(), ("price",), ("meter",), ("price", "meter")])
def test_a_series_adds_up_to_the_posted_overage_at_its_rate(two_lines, step, group_by):
    edges = [START, *(START + n * step for n in range(1, DAY // step)), START + 31 * DAY]

    rows = queries.spend_series(two_lines, edges=edges, unit="USD", group_by=group_by)

    posted = balance(two_lines, START + DAY).overage
    assert posted == 6
    assert sum(row.amount for row in rows) == Decimal("1.999999999998")


@pytest.mark.parametrize("unit", ["USD", "credits"])
def test_what_allocation_has_rated_is_not_rated_again(two_lines, unit, django_assert_num_queries):
    services.grant(
        customer=two_lines, unit="credits", amount=Decimal(2), kind=GrantKind.PROMOTIONAL, at=START + 6 * HOUR
    )
    [period] = periods(two_lines)
    month = Interval(period.starts_at, period.ends_at)
    alone = queries.spend(two_lines, unit=unit, interval=month)
    half = queries.spend(two_lines, unit=unit, interval=Interval(START, START + 6 * HOUR))

    with shared():
        book(two_lines, periods_between(two_lines, month.start, month.end))
        if unit == "credits":
            with django_assert_num_queries(0):
                assert queries.spend(two_lines, unit=unit, interval=month) == alone == 36
        assert queries.spend(two_lines, unit=unit, interval=month) == alone
        assert queries.spend(two_lines, unit=unit, interval=Interval(START, START + 6 * HOUR)) == half < alone


def test_overage_joins_the_usage_without_the_dimension_in_one_row(globex):
    make_meter("calls", aggregation="count", event_type="call", dimensions=["model"])
    make_meter("searches", aggregation="count", event_type="search")
    version = make_version(
        make_plan(),
        prices=(
            PriceSpec("calls", meter="calls", unit="USD", unit_amount=Decimal(1)),
            PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1)),
        ),
        overage=(OverageSpec("credits", Decimal(3)),),
    )
    make_subscription(globex, version, START)
    sent = [event(kind, "globex", type=kind, timestamp=START.isoformat()) for kind in ("call", "search")]
    ingest(*sent, at=START)
    advance(customer_id=globex.pk, at=START + HOUR)

    rows = queries.spend_series(globex, edges=[START, START + DAY], unit="USD", group_by=("model",))

    assert [(row.group, row.quantity, row.amount) for row in rows] == [({"model": None}, None, Decimal(4))]


def test_overage_is_the_last_usage_of_a_segment(two_lines):
    edges = [START + n * HOUR for n in range(13)]

    rows = queries.spend_series(two_lines, edges=edges, unit="USD", group_by=("meter",))

    assert rows[0].start >= START + 6 * HOUR


def test_a_filter_on_a_dimension_leaves_overage_out(two_lines):
    month = [START, START + 31 * DAY]

    assert queries.spend_series(two_lines, edges=month, unit="USD", filters={"model": "large"})[0].amount == 0
    assert queries.spend_series(two_lines, edges=month, unit="USD", filters={"price": "overage:credits"})[0].amount > 1
    assert queries.spend_series(two_lines, edges=month, unit="USD", filters={"price": "searches"})[0].amount == 0


def test_a_unit_without_a_rate_costs_nothing_beyond_the_grants(globex):
    make_meter("searches", aggregation="count", event_type="search")
    price = PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1))
    make_subscription(globex, make_version(make_plan(), prices=(price,)), START)
    use(5, START)

    advance(customer_id=globex.pk, at=START)

    assert balance(globex, START).overage == 5
    assert queries.spend_series(globex, edges=[START, START + DAY], unit="USD")[0].amount == 0


def test_the_overage_of_an_earlier_day(subscribed):
    for day in (1, 2):
        use(120, START + day * DAY, first=200 * day)
        advance(customer_id=subscribed.pk, at=START + day * DAY)

    [then] = queries.balances(subscribed, START + DAY, recorded_by=START + DAY)

    assert (then.overage, balance(subscribed, START + 2 * DAY).overage) == (20, 140)


def test_a_new_period_begins_without_overage_before_any_tick(subscribed):
    use(120, START + DAY)
    advance(customer_id=subscribed.pk, at=START + DAY)

    assert balance(subscribed, START + 31 * DAY - timedelta(seconds=1)).overage == 20
    assert balance(subscribed, START + 31 * DAY).overage == 0
