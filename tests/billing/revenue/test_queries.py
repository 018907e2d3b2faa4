"""Revenue, cost and margin over real counters and cells."""

from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest

from accounts.models import Customer
from billing.credits import services as credits
from billing.credits.models import GrantKind
from billing.cycle.services import advance
from billing.periods import Interval
from billing.pricing.spec import PriceSpec
from billing.revenue import queries
from billing.revenue.queries import CUSTOMER, DIMENSION, METER, PLAN, margin_report
from billing.subscriptions.services import change
from tests.billing.revenue.conftest import START, cost, day, use
from tests.factories import make_meter, make_plan, make_subscription, make_version

D = Decimal
MARCH = Interval(START, day(31))
MODEL = DIMENSION + "model"


def rows(group_by, interval=MARCH, **narrowed):
    report = margin_report(interval, group_by=group_by, **narrowed)
    return {row.group.key or row.group.name: (row.sums.usage, row.sums.fees, row.sums.cost) for row in report.rows}


def total(group_by, interval=MARCH):
    [row] = margin_report(interval, group_by=group_by).totals
    return row.sums.usage, row.sums.fees, row.sums.cost, row.sums.margin


def test_usage_of_each_day_costs_what_it_did_then(subscribed, costs):
    use(subscribed, at=day(1), tokens=3, model="large")
    use(subscribed, at=day(9.99), tokens=1, model="large")
    use(subscribed, at=day(10), tokens=2, model="large")
    use(subscribed, at=day(12), tokens=7, model="small")

    # 14 for small tokens; 4 x 4 and 2 x 6 of large
    assert rows(MODEL) == {"large": (30, 0, 28), "small": (14, 0, 7), "Base fees": (0, 31, 0)}
    assert rows(METER) == {"tokens": (44, 0, 35), "Base fees": (0, 31, 0)}
    assert rows(CUSTOMER) == {"globex": (44, 31, 35)}
    assert rows(PLAN) == {"pro v1": (44, 31, 35)}


def test_the_lowest_margin_comes_first_and_fees_of_no_model_last(subscribed, costs):
    use(subscribed, at=day(11), tokens=2, model="large")
    use(subscribed, at=day(12), tokens=7, model="small")

    report = margin_report(MARCH, group_by=MODEL)
    assert [(row.group.name, row.percent) for row in report.rows] == [("large", -20), ("small", 50), ("Base fees", 100)]


def test_every_view_has_the_same_totals(subscribed, costs):
    random = Random(7)
    for _ in range(12):
        use(
            subscribed,
            at=day(random.uniform(0, 20)),
            tokens=random.randint(1, 60),
            model=random.choice(["large", "small"]),
        )
        use(subscribed, at=day(random.uniform(0, 20)))

    views = [total(group_by) for group_by in (CUSTOMER, PLAN, METER, MODEL, DIMENSION + "key")]
    assert len(set(views)) == 1
    assert views[0][0] > 0


def test_parts_of_a_range_add_up_to_it_where_no_segment_is_cut(subscribed, costs):
    for number in range(0, 20, 3):
        use(subscribed, at=day(number), tokens=40, model="small")
        use(subscribed, at=day(number))

    parts = [total(CUSTOMER, Interval(day(first), day(end))) for first, end in ((0, 4), (4, 9.5), (9.5, 31))]
    assert tuple(map(sum, zip(*parts, strict=True))) == total(CUSTOMER)


def test_a_fee_is_earned_evenly_over_its_time(subscribed):
    assert rows(CUSTOMER, Interval(day(4), day(6))) == {"globex": (0, 2, 0)}


def test_credits_earn_what_they_were_sold_for_and_beyond_them_the_overage(subscribed, costs):
    credits.grant(customer=subscribed, unit="credits", amount=D(5), kind=GrantKind.PAID, cost_basis=D("0.2"), at=START)
    for number in range(20):
        use(subscribed, at=day(number))

    # 10 came with the plan, 5 were sold for 0.2, 5 cost 0.5 each; a search costs the vendor 0.1
    assert rows(METER)["searches"] == (D("3.5"), 0, 2)


def test_prepaid_money_earns_what_it_was_sold_for_and_given_money_nothing(subscribed, costs):
    for kind, basis, amount in (
        (GrantKind.PROMOTIONAL, None, 2),
        (GrantKind.PAID, None, 4),
        (GrantKind.PAID, D("0.5"), 6),
    ):
        credits.grant(customer=subscribed, unit="USD", amount=D(amount), kind=kind, cost_basis=basis, at=START)
    use(subscribed, at=day(1), tokens=10, model="small")

    # 20 of usage: 2 given, 4 prepaid at face value, 6 sold at half, 8 to be invoiced
    assert rows(METER)["tokens"] == (15, 0, 10)


def test_usage_without_a_unit_cost_is_told_with_what_it_earned(subscribed, tokens):
    cost(tokens, {"model": "large"}, 4)
    use(subscribed, at=day(1), tokens=1, model="large")
    use(subscribed, at=day(1), tokens=3, model="small")
    use(subscribed, at=day(2), tokens=2)

    report = margin_report(MARCH, group_by=METER)
    [row] = [row for row in report.rows if row.group.key == "tokens"]
    assert (row.sums.usage, row.sums.cost, row.sums.without_cost) == (15, 4, 10)
    assert [(one.meter.key, one.where, one.quantity, one.events) for one in report.missing] == [
        ("tokens", {"model": "small"}, 3, 1),
        ("tokens", {"model": None}, 2, 1),
    ]


def test_usage_before_the_first_cost_is_missing_one(subscribed, tokens):
    cost(tokens, {}, 1, effective_at=day(5))
    use(subscribed, at=day(1), tokens=3)
    use(subscribed, at=day(6), tokens=4)

    report = margin_report(MARCH, group_by=METER)
    assert [(one.where, one.quantity) for one in report.missing] == [({}, 3)]
    assert rows(METER)["tokens"] == (14, 0, 4)


def test_usage_that_nobody_pays_for_still_costs(globex, version, costs):
    use(globex, at=day(1), tokens=3, model="small")

    assert rows(PLAN) == {"without a plan": (0, 0, 3)}
    assert rows(CUSTOMER) == {"globex": (0, 0, 3)}


def test_each_version_of_a_plan_has_what_was_used_on_it(subscribed, version, costs):
    use(subscribed, at=day(1), tokens=10, model="small")
    other = make_version(make_plan("max"), prices=(PriceSpec("tokens", "tokens", "USD", D(3)),))
    change(subscription=subscribed.subscriptions.get(), version=other, when="now", at=day(10))
    use(subscribed, at=day(11), tokens=5, model="small")
    use(subscribed, at=day(11))
    advance(customer_id=subscribed.pk, at=day(12))

    found = rows(PLAN)
    assert found["max v1"] == (15, 0, D("5.1"))  # searches are not priced there, and cost all the same
    assert found["pro v1"][0] == 20
    assert found["pro v1"][2] == 10


def test_amounts_in_two_currencies_have_no_margin(subscribed, tokens):
    cost(tokens, {}, 1, currency="EUR")
    use(subscribed, at=day(1), tokens=3, model="small")

    report = margin_report(MARCH, group_by=CUSTOMER)
    assert {(row.currency, row.sums.revenue, row.sums.cost, row.percent) for row in report.rows} == {
        ("USD", 37, 0, None),
        ("EUR", 0, 3, None),
    }
    assert all(row.is_mixed for row in report.totals)


def test_a_sandbox_is_left_out_and_one_customer_can_be_asked_for(subscribed, acme, version, costs):
    make_subscription(acme, version, START)
    use(subscribed, at=day(1), tokens=3, model="small")
    use(acme, at=day(1), tokens=5, model="small")

    assert rows(CUSTOMER, customer=acme) == {"acme": (10, 31, 5)}
    assert rows(CUSTOMER).keys() == {"acme", "globex"}


def test_of_very_many_groups_the_rest_is_one(subscribed, costs, monkeypatch):
    monkeypatch.setattr(queries, "MOST_GROUPS", 2)
    for number in range(4):
        use(subscribed, at=day(1), tokens=1, model="small", key=f"k{number}")

    assert total(DIMENSION + "key") == total(CUSTOMER)
    assert len(margin_report(MARCH, group_by=DIMENSION + "key").rows) == 3


@pytest.mark.parametrize("customers", [1, 3])
def test_it_takes_the_same_queries_whatever_there_is(version, costs, customers, django_assert_num_queries):
    for number in range(customers):
        customer = Customer.objects.create(key=f"c{number}", name=f"C{number}", email="c@c.test")
        make_subscription(customer, version, START)
        for each in range(customers):
            use(customer, at=day(each), tokens=number + 1, model=f"m{each}")
    margin_report(MARCH, group_by=MODEL)  # the terms of the version

    with django_assert_num_queries(9):
        margin_report(MARCH, group_by=MODEL)


def test_usage_of_a_meter_that_does_not_add_up_earns_and_has_no_unit_cost(globex):
    make_meter("members", aggregation="unique", value="user", event_type="llm.completion")
    version = make_version(make_plan(), prices=(PriceSpec("members", "members", "USD", D(10)),))
    make_subscription(globex, version, START)
    for user in ("ann", "ben", "ann"):
        use(globex, at=day(1), tokens=1, user=user)

    report = margin_report(MARCH, group_by=METER)
    assert [(row.group.key, row.sums.usage, row.sums.without_cost) for row in report.rows] == [("members", 20, 20)]
    assert report.missing == []


def test_late_usage_of_a_closed_period_is_of_its_own_time(subscribed, costs):
    advance(customer_id=subscribed.pk, at=day(40))
    use(subscribed, at=day(20), tokens=5, model="small")
    advance(customer_id=subscribed.pk, at=day(40) + timedelta(minutes=1))

    assert rows(METER)["tokens"] == (10, 0, 5)
