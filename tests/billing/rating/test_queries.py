"""Lines, segments and series over real counters, against an oracle that rates every event again."""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.money import total
from billing.periods import QUARTER, Interval, buckets
from billing.pricing.schemes import Tier
from billing.pricing.spec import PriceSpec
from billing.rating import queries
from billing.subscriptions.queries import periods as periods_of
from billing.subscriptions.services import roll
from tests.billing.rating.conftest import PRICES, START, days, spec, use
from tests.factories import make_meter, make_plan, make_subscription, make_version
from tests.oracle import rating as oracle
from tests.oracle.rating import Event

D = Decimal


def amounts(lines):
    return {(line.price.key, line.row): line.amount for line in lines if line.amount}


def expected_lines(house, end):
    return {
        (price.key, row): amount
        for price in PRICES
        for row, amount in oracle.lines(price, house.events, house.period.starts_at, end).items()
        if amount
    }


def series(house, edges, unit="USD", **question):
    return queries.rated_series(house.customer, edges=edges, unit=unit, **question)


def simple(rows):
    return [((row.start - START) / QUARTER, dict(row.group), row.quantity, row.amount) for row in rows]


# --- lines --------------------------------------------------------------------------------------------------


def test_lines_say_what_each_row_of_each_price_used_and_cost(house):
    house.use("tokens", 1600, model="other")
    house.use("tokens", 9, model="large")
    house.use("tokens", 6, model="large", region="eu")
    house.use("calls", 4, model="large")

    lines = queries.lines(house.period)

    assert [(line.price.key, line.row, line.unit, line.quantity, line.events, line.amount) for line in lines] == [
        ("tokens", 0, "USD", 1600, 1, 30),
        ("tokens", 1, "USD", 9, 1, D("7.5")),
        ("tokens", 3, "USD", 6, 1, 6),
        ("images", 0, "USD", 0, 0, 0),
        ("calls", 0, "credits", 4, 1, 6),
    ]
    assert lines[0].rated.explanation == "(1,600 - 1,000 included) / 3 x 0.15"


def test_lines_through_an_instant_count_what_happened_before_it(house):
    house.use("images", 1)
    house.use("images", 2, quarter=1)
    house.use("images", 4, quarter=2)

    found = [amounts(queries.lines(house.period, through=START + n * QUARTER)) for n in range(4)]

    assert found == [{}, *({("images", 0): D(n) * D("0.04")} for n in (1, 3, 7))]


@pytest.mark.parametrize("variety", [1, 3])
def test_lines_take_the_same_queries_whatever_there_is(house, variety, django_assert_num_queries):
    for number in range(variety):
        for meter in house.meters:
            house.use(meter, 1, quarter=100 * number, model=f"m{number}")

    period = periods_of(house.customer).get()
    queries.lines(period)  # the terms of the version
    with django_assert_num_queries(3):  # overrides, meters, counters
        queries.lines(period)


# --- segments -----------------------------------------------------------------------------------------------


def test_a_segment_costs_what_its_end_cost_less_what_its_start_cost(house):
    house.use("tokens", 800)
    house.use("tokens", 800, quarter=1)
    house.use("calls", 2, quarter=5)

    found = queries.segments(house.period, [START, START + QUARTER, START + 3 * QUARTER, house.period.ends_at])

    assert [
        (segment.starts_at, {key.meter: amount for key, amount in segment.amounts.items() if amount})
        for segment in found
    ] == [
        (START, {}),
        (START + QUARTER, {"tokens": D(30)}),
        (START + 3 * QUARTER, {"calls": D(3)}),
    ]
    line = queries.lines(house.period)[0]
    assert line.key in found[1].amounts
    assert (line.key.id, line.key.unit, line.key.meter) == (
        (line.price.pk, 0, line.segment.pk, house.period.pk),
        "USD",
        "tokens",
    )


# --- series -------------------------------------------------------------------------------------------------


def test_every_bucket_has_a_row_when_nothing_is_grouped(house):
    house.use("calls", 2, quarter=1)

    rows = series(house, [START, START + QUARTER, START + 2 * QUARTER, START + 3 * QUARTER], "credits")

    assert simple(rows) == [(0, {}, 0, 0), (1, {}, 2, 3), (2, {}, 0, 0)]


def test_groups_have_rows_only_where_something_happened(house):
    house.use("calls", 2, quarter=1, model="mini")
    house.use("calls", 4, quarter=1)

    rows = series(house, [START, START + QUARTER, START + 2 * QUARTER], "credits", group_by=("model",))

    assert simple(rows) == [(1, {"model": "mini"}, 2, 3), (1, {"model": None}, 4, 6)]


def test_what_was_used_before_the_range_uses_up_what_is_included(house):
    house.use("tokens", 900)
    house.use("tokens", 130, quarter=2)

    rows = series(house, [START + QUARTER, START + 3 * QUARTER], filters={"meter": "tokens"})

    assert simple(rows) == [(1, {}, 130, D("1.5"))]


def test_a_row_that_spans_meters_has_no_quantity(house):
    house.use("tokens", 1003)
    house.use("images", 1)
    edges = [START, days(1)]

    assert simple(series(house, edges)) == [(0, {}, None, D("0.19"))]
    assert simple(series(house, edges, group_by=("meter",))) == [
        (0, {"meter": "images"}, 1, D("0.04")),
        (0, {"meter": "tokens"}, 1003, D("0.15")),
    ]
    assert simple(series(house, edges, filters={"price": "images"})) == [(0, {}, 1, D("0.04"))]


def test_filters_choose_among_dimension_values(house):
    house.use("calls", 1, model="mini", api_key="a")
    house.use("calls", 2, model="mini", api_key="b")
    house.use("calls", 4, model="large", api_key="a")
    edges = [START, days(1)]

    assert simple(series(house, edges, "credits", filters={"model": "mini"})) == [(0, {}, 3, D("4.5"))]
    assert simple(series(house, edges, "credits", filters={"model": "mini"}, group_by=("api_key",))) == [
        (0, {"api_key": "a"}, 1, D("1.5")),
        (0, {"api_key": "b"}, 2, D("3")),
    ]
    assert simple(series(house, edges, "credits", filters={"model": "nope"})) == [(0, {}, 0, 0)]


def test_usage_outside_every_billing_period_is_unpriced(house):
    use(house.customer, Event(START - QUARTER, "images", D(5)))

    assert simple(series(house, [days(-1), days(1)], filters={"price": "images"})) == [(-96, {}, 0, 0)]


def test_without_a_subscription_a_series_is_empty(acme):
    rows = queries.rated_series(acme, edges=[START, days(1), days(2)], unit="USD")

    assert simple(rows) == [(0, {}, 0, 0), (96, {}, 0, 0)]


def test_the_included_quantity_begins_anew_with_each_period(house):
    end = house.period.ends_at
    with transaction.atomic():
        roll(customer_id=house.customer.pk, at=end)
    house.use_all(*(Event(at, "tokens", D(1300)) for at in (START, end - QUARTER, end)))

    rows = series(house, [START, end, end + timedelta(days=1)], filters={"price": "tokens"})
    across = series(house, [START, end + timedelta(days=1)], filters={"price": "tokens"})

    assert [row.amount for row in rows] == [D(80), D(15)]
    assert [row.amount for row in across] == [D(95)]


def test_subscriptions_with_different_periods_add_up(house):
    images = oracle.PerUnit("extra", "videos", "USD", D(2))
    make_meter("videos", event_type="videos", value="quantity")
    make_subscription(house.customer, make_version(make_plan("video"), prices=(spec(images),)), days(2.5), anchor_day=9)
    house.use_all(Event(days(3), "videos", D(1)), Event(days(3), "images", D(1)), Event(days(1), "images", D(1)))

    rows = series(house, [START, days(2), days(5)], group_by=("price",))

    assert simple(rows) == [
        (0, {"price": "images"}, 1, D("0.04")),
        (192, {"price": "extra"}, 1, D(2)),
        (192, {"price": "images"}, 1, D("0.04")),
    ]


def test_tiers_are_climbed_in_the_order_of_time(house):
    make_meter("videos", event_type="videos", value="quantity", dimensions=["model"])
    price = PriceSpec(
        "videos", "videos", "USD", scheme="graduated", tiers=(Tier(D(10), D(3)), Tier(None, D(1), flat_amount=D(5)))
    )
    version = make_version(make_plan("video"), prices=(price,))
    period = make_subscription(house.customer, version, START).periods.get()
    for quarter, model in enumerate("aab"):
        house.use("videos", 6, quarter=quarter, model=model)
    cuts = [START, START + QUARTER, START + 2 * QUARTER, START + 3 * QUARTER]

    assert [line.amount for line in queries.lines(period)] == [D(43)]
    assert [list(segment.amounts.values()) for segment in queries.segments(period, cuts)] == [[18], [19], [6]]
    assert [row.amount for row in series(house, cuts, filters={"price": "videos"})] == [18, 19, 6]
    grouped = series(house, [START, START + 3 * QUARTER], filters={"price": "videos"}, group_by=("model",))
    assert [(row.group["model"], row.amount) for row in grouped] == [
        ("a", D("28.666666666667")),
        ("b", D("14.333333333333")),
    ]


def test_another_customers_usage_is_not_in_it(house, acme):
    use(acme, Event(START, "images", D(5)))

    assert amounts(queries.lines(house.period)) == {}
    assert simple(series(house, [START, days(1)], filters={"price": "images"})) == [(0, {}, 0, 0)]


@pytest.mark.parametrize("variety", [1, 3])
@pytest.mark.parametrize("group_by", [(), ("price", "model")])
def test_a_series_takes_the_same_queries_whatever_there_is(house, variety, group_by, django_assert_num_queries):
    for number in range(variety):
        for meter in house.meters:
            house.use(meter, 1, quarter=100 * number, model=f"m{number}")

    series(house, [days(0), days(1)])  # the terms of the version
    with django_assert_num_queries(5):  # periods, plan segments, overrides, meters, counters
        series(house, [days(number) for number in range(3 * variety)], group_by=group_by)


# --- against the oracle -------------------------------------------------------------------------------------

properties = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["large", "mini", "nano", "other"]),
        "region": st.sampled_from(["eu", "us"]),
        "api_key": st.sampled_from(["k1", "k2"]),
    },
)
events = st.builds(
    Event,
    at=st.integers(0, 60 * 24 * 40).map(lambda minutes: START + timedelta(minutes=minutes)),
    meter=st.sampled_from([price.meter for price in PRICES]),
    quantity=st.decimals(0, 2000, places=3),
    properties=properties,
)
edges = st.sets(st.integers(-50, 4 * 24 * 45), min_size=2, max_size=6).map(
    lambda quarters: [START + quarter * QUARTER for quarter in sorted(quarters)]
)
with_a_database = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Undone(Exception):  # noqa: N818 -- no error
    """Ends an example without a trace."""


@with_a_database
@given(st.lists(events, max_size=12), edges, st.sampled_from([(), ("model",), ("price", "api_key")]), st.data())
def test_lines_and_series_are_what_the_oracle_says(house, used, edges, group_by, data):
    try:
        with transaction.atomic():
            roll(customer_id=house.customer.pk, at=days(40))
            house.events.clear()
            house.use_all(*data.draw(st.permutations(used)))
            periods = list(periods_of(house.customer))
            check_lines(house, periods[0])
            for unit in ("USD", "credits"):
                check_series(house, edges, unit, group_by, periods)
            raise Undone
    except Undone:
        pass


def check_lines(house, period):
    assert amounts(queries.lines(period)) == expected_lines(house, period.ends_at)
    middle = days(10)
    assert amounts(queries.lines(period, through=middle)) == expected_lines(house, middle)


def check_series(house, edges, unit, group_by, periods):
    rows = series(house, edges, unit, group_by=group_by)
    found = defaultdict(list)
    for row in rows:
        found[row.start, row.end].append(row.amount)
    for start, end in pairwise(edges):
        assert total(found[start, end]) == expected(house, periods, unit, Interval(start, end))
    whole = series(house, [edges[0], edges[-1]], unit, group_by=group_by)
    assert by_group(rows) == by_group(whole)


def expected(house, periods, unit, interval):
    parts = [(period, Interval(period.starts_at, period.ends_at).clip(interval)) for period in periods]
    return total(
        oracle.spend(PRICES, house.events, unit=unit, period_start=period.starts_at, start=part.start, end=part.end)
        for period, part in parts
        if part
    )


def by_group(rows):
    sums = defaultdict(list)
    for row in rows:
        sums[tuple(row.group.items())].append(row.amount)
    return {group: total(amounts) for group, amounts in sums.items() if total(amounts)}


def test_a_series_by_local_days_adds_up_to_the_line(house):
    for quarter in range(0, 2000, 97):
        house.use("tokens", quarter, quarter=quarter, model="large" if quarter % 2 else "other")
    whole = Interval(house.period.starts_at, house.period.ends_at)
    cuts = [whole.start, *(bucket.end for bucket in buckets(whole, "day", house.customer.timezone))]

    rows = series(house, cuts, filters={"price": "tokens"})

    assert total(row.amount for row in rows) == total(
        line.amount for line in queries.lines(house.period) if line.price.key == "tokens"
    )
