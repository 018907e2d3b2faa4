"""Meters that do not add up: the quantity of a period, a row or a group is that of all its events together."""

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.money import total
from billing.periods import QUARTER
from billing.pricing.spec import MatchSpec, PriceSpec
from billing.rating import queries
from billing.subscriptions.queries import periods as periods_of
from tests.billing.rating.conftest import START, House, use
from tests.factories import make_meter, make_plan, make_subscription, make_version
from tests.oracle.rating import Event

D = Decimal
WHOLE = {
    "seats": max,
    "stored": lambda found: found[-1],
    "users": lambda found: len(set(found)),
}
AGGREGATIONS = {"seats": "max", "stored": "latest", "users": "unique"}


@pytest.fixture
def house(globex) -> House:
    meters = {
        key: make_meter(key, aggregation=kind, event_type="use", value="quantity", dimensions=["model", "region"])
        for key, kind in AGGREGATIONS.items()
    }
    match = (MatchSpec({"model": "large"}, D(7)),)
    prices = tuple(PriceSpec(key, key, "USD", D(1), D(1), D(2), match) for key in AGGREGATIONS)
    subscription = make_subscription(globex, make_version(make_plan(), prices=prices), START)
    return House(globex, meters, subscription.periods.get())


def send(house, quarter, quantity, second=0, **properties):
    house.use_all(Event(START + quarter * QUARTER + timedelta(seconds=second), "use", D(quantity), properties))


def amount(row, quantity):
    return D(7) * quantity if row else max(D(0), quantity - 2)


def of_row(row, events):
    return [one for one in events if (one.properties.get("model") == "large") is bool(row)]


def whole(meter, events):
    ordered = sorted(events, key=lambda one: one.at)
    return D(WHOLE[meter]([one.quantity for one in ordered])) if ordered else D(0)


def test_lines_rate_what_all_sets_of_a_row_come_to(house):
    for quarter, (quantity, region) in enumerate([(5, "eu"), (9, "us"), (5, "us"), (4, "eu")]):
        send(house, quarter, quantity, model="small", region=region)
    send(house, 9, 3, model="large")

    lines = queries.lines(house.period)

    assert {(line.price.key, line.row): (line.quantity, line.amount) for line in lines} == {
        ("seats", 0): (9, 7),
        ("seats", 1): (3, 21),
        ("stored", 0): (4, 2),
        ("stored", 1): (3, 21),
        ("users", 0): (3, 1),
        ("users", 1): (1, 7),
    }


def test_a_bucket_costs_what_it_adds_and_shows_its_own_quantity(house):
    for quarter, quantity in enumerate([5, 9, 4, 9]):
        send(house, quarter, quantity)
    edges = [START + n * QUARTER for n in range(5)]

    found = {key: queries.usage_series(house.customer, meter, edges=edges) for key, meter in house.meters.items()}

    assert {key: [(row.quantity, row.amount) for row in one.rows] for key, one in found.items()} == {
        "seats": [(5, 3), (9, 4), (4, 0), (9, 0)],
        "stored": [(5, 3), (9, 4), (4, -5), (9, 5)],
        "users": [(1, 0), (1, 0), (1, 1), (1, 0)],
    }
    assert {key: one.total for key, one in found.items()} == {"seats": 9, "stored": 9, "users": 3}


def test_spend_shows_no_quantity_of_what_does_not_add_up(house):
    send(house, 0, 5)

    rows = queries.rated_series(house.customer, edges=[START, START + QUARTER], unit="USD", group_by=["meter"])

    assert {row.group["meter"]: row.quantity for row in rows} == dict.fromkeys(AGGREGATIONS)


@pytest.mark.parametrize("variety", [1, 3])
def test_lines_and_series_take_the_same_queries_whatever_there_is(house, variety, django_assert_num_queries):
    for number in range(variety):
        send(house, 100 * number, number, model=f"m{number}")
    period = periods_of(house.customer).get()

    queries.lines(period)  # the terms of the version
    with django_assert_num_queries(4):  # overrides, meters, counters, members
        queries.lines(period)
    edges = [START, START + QUARTER, START + 200 * QUARTER]
    with django_assert_num_queries(6):
        queries.rated_series(house.customer, edges=edges, unit="USD", group_by=["model", "price"])
    with django_assert_num_queries(10):
        queries.usage_series(house.customer, house.meters["users"], edges=edges, group_by=["model"])


events = st.lists(
    st.builds(
        lambda quarter, second, quantity, properties: Event(
            START + quarter * QUARTER + timedelta(seconds=second), "use", D(quantity), properties
        ),
        st.integers(0, 300),
        st.integers(0, 899),
        st.integers(0, 9),
        st.fixed_dictionaries(
            {}, optional={"model": st.sampled_from(["large", "mini"]), "region": st.sampled_from(["eu", "us"])}
        ),
    ),
    max_size=25,
    unique_by=lambda one: one.at,
)
cuts = st.lists(st.integers(1, 299), max_size=5, unique=True).map(sorted)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(events, min_size=1, max_size=3), inner=cuts)
def test_segments_and_series_add_up_to_the_lines(house, batches, inner):
    known = {one.at for one in house.events}
    for batch in batches:
        fresh = [one for one in batch if one.at not in known]
        known |= {one.at for one in fresh}
        use(house.customer, *fresh)
        house.events += fresh

    lines = queries.lines(house.period)
    wanted = {(key, row): whole(key, of_row(row, house.events)) for key in AGGREGATIONS for row in (0, 1)}
    assert {(line.price.key, line.row): line.quantity for line in lines if line.quantity} == {
        key: quantity for key, quantity in wanted.items() if quantity
    }
    assert all(line.amount == amount(line.row, line.quantity) for line in lines)

    edges = [START, *(START + n * QUARTER for n in inner), house.period.ends_at]
    sums = defaultdict(D)
    for segment in queries.segments(house.period, edges):
        for key, grown in segment.amounts.items():
            sums[key] += grown
    assert {key: grown for key, grown in sums.items() if grown} == {one.key: one.amount for one in lines if one.amount}

    for group_by in ([], ["model"], ["region", "price"]):
        rows = queries.rated_series(house.customer, edges=edges, unit="USD", group_by=group_by)
        assert total(row.amount for row in rows) == total(line.amount for line in lines)

    for key, meter in house.meters.items():
        found = queries.usage_series(house.customer, meter, edges=edges, group_by=["region"])
        assert found.total == whole(key, house.events)
        wanted = {}
        for start, end in pairwise(edges):
            groups = defaultdict(list)
            for one in house.events:
                if start <= one.at < end:
                    groups[one.properties.get("region")].append(one)
            wanted |= {(start, region): whole(key, used) for region, used in groups.items()}
        shown = {
            (row.start, row.group["region"]): row.quantity for row in found.rows if row.quantity or row.amount == 0
        }
        assert {key: value for key, value in shown.items() if value} == {
            key: value for key, value in wanted.items() if value
        }
