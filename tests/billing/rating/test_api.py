"""Usage over HTTP: ranges, buckets, groups and filters."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.money import total
from billing.rating import queries, selection
from tests.billing.rating.conftest import START, use
from tests.factories import bearer, make_api_key, make_meter
from tests.oracle.rating import Event


@pytest.fixture
def ask(client, db):
    _, secret = make_api_key()

    def get(customer="globex", *, key=secret, **parameters):
        sent = {name.rstrip("_"): value for name, value in parameters.items()}
        return client.get(f"/api/v1/customers/{customer}/usage", sent, **bearer(key))

    return get


@pytest.fixture
def now(monkeypatch):
    """The request is made in the middle of the first billing period."""
    monkeypatch.setattr("billing.rating.api.now", lambda *_: datetime(2026, 11, 10, 12, tzinfo=UTC))


def rows(response):
    assert response.status_code == 200, response.content
    return [(row["start"], row["group"], row["quantity"], row["amount"]) for row in response.json()["series"]]


def problem(response, status=400):
    assert response.status_code == status, response.content
    return response.json()["code"], [error["field"] for error in response.json()["errors"]]


def test_usage_is_answered_in_the_shape_of_the_contract(house, ask, now):
    house.use("calls", 3, model="mini")
    house.use("calls", "0.5", quarter=1, model="large")

    answer = ask(
        meter="calls", from_="2026-11-03T07:20:00Z", to="2026-11-03T07:31:00Z", granularity="total", group_by="model"
    ).json()

    assert answer.pop("as_of").endswith("Z")
    assert answer == {
        "customer": "globex",
        "meter": "calls",
        "unit": "token",
        "amount_unit": "credits",
        "timezone": "Asia/Kathmandu",
        "from": "2026-11-03T07:15:00Z",
        "to": "2026-11-03T07:45:00Z",
        "additive": True,
        "total": "3.5",
        "series": [
            {
                "start": "2026-11-03T07:15:00Z",
                "end": "2026-11-03T07:45:00Z",
                "group": {"model": "large"},
                "quantity": "0.5",
                "amount": "0.75",
            },
            {
                "start": "2026-11-03T07:15:00Z",
                "end": "2026-11-03T07:45:00Z",
                "group": {"model": "mini"},
                "quantity": "3",
                "amount": "4.5",
            },
        ],
        "capped": [],
    }


def test_usage_says_which_dimension_has_more_values_than_are_told_apart(house, ask, now, settings):
    settings.DIMENSION_VALUES = 1
    house.use("calls", 1, model="mini")
    house.use("calls", 2, model="other-than-any-price-names")
    house.use("calls", 4, model="and-another")

    answer = ask(meter="calls", granularity="total", group_by="model").json()

    assert {row["group"]["model"]: row["quantity"] for row in answer["series"]}["(other)"] in ("4", "6")
    [capped] = answer["capped"]
    assert (capped["dimension"], capped["month"]) == ("model", "2026-11")
    assert not ask(meter="calls", granularity="total", from_="2026-12-01T00:00:00Z", to="2027-01-01T00:00:00Z").json()[
        "capped"
    ]


def test_days_are_those_of_the_customer_and_empty_ones_are_there(house, ask, now):
    house.use("calls", 1, quarter=44)  # 18:15 UTC is midnight in Kathmandu

    found = rows(ask(meter="calls", from_="2026-11-02T18:15:00Z", to="2026-11-05T18:15:00Z"))

    assert found == [
        ("2026-11-02T18:15:00Z", {}, "0", "0"),
        ("2026-11-03T18:15:00Z", {}, "1", "1.5"),
        ("2026-11-04T18:15:00Z", {}, "0", "0"),
    ]


def test_without_a_range_it_is_the_billing_period_in_days(house, ask, now):
    answer = ask(meter="calls").json()

    assert (answer["from"], answer["to"]) == ("2026-11-03T07:15:00Z", "2026-12-02T18:15:00Z")
    assert len(answer["series"]) == 30


def test_without_a_subscription_it_is_the_calendar_month(house, acme, ask, now):
    answer = ask("acme", meter="calls").json()

    assert (answer["from"], answer["to"]) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
    assert (answer["amount_unit"], answer["series"][0]["amount"]) == (None, None)


def test_usage_without_a_price_is_counted_all_the_same(house, ask, now):
    use(house.customer, Event(START - timedelta(minutes=15), "calls", Decimal(7)))
    house.use("calls", 2)

    answer = ask(meter="calls", from_="2026-11-03T07:00:00Z", to="2026-11-03T08:00:00Z", granularity="total")

    assert rows(answer) == [("2026-11-03T07:00:00Z", {}, "9", "3")]


def test_dimensions_filter_and_group(house, ask, now):
    house.use("calls", 1, model="mini", api_key="a")
    house.use("calls", 2, model="mini")
    house.use("calls", 4, model="large", api_key="a")

    found = rows(ask(meter="calls", granularity="month", group_by="api_key,model", model="mini"))

    assert [row[1:] for row in found] == [
        ({"api_key": "a", "model": "mini"}, "1", "1.5"),
        ({"api_key": None, "model": "mini"}, "2", "3"),
    ]


@pytest.mark.parametrize("granularity", ["hour", "day", "week", "month", "total"])
@pytest.mark.parametrize("group_by", ["", "model"])
def test_every_granularity_adds_up_to_the_line(house, ask, now, granularity, group_by):
    for quarter in range(0, 2600, 199):
        house.use("tokens", 100 + quarter, quarter=quarter, model="large" if quarter % 2 else "other")
    lines = [line for line in queries.lines(house.period) if line.meter.key == "tokens"]

    found = rows(ask(meter="tokens", granularity=granularity, group_by=group_by))

    assert total(Decimal(quantity) for *_, quantity, _ in found) == total(line.quantity for line in lines)
    assert total(Decimal(amount) for *_, amount in found) == total(line.amount for line in lines)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"meter": "nope"}, "meter"),
        ({"meter": "a b"}, "meter"),
        ({"from_": "yesterday"}, "from"),
        ({"from_": "2026-11-03T07:20:00"}, "from"),
        ({"from_": "1999-12-31T00:00:00Z"}, "from"),
        ({"to": "9999-12-31T23:59:59Z"}, "to"),
        ({"from_": "2026-11-04T00:00:00Z", "to": "2026-11-04T00:00:00Z"}, "to"),
        ({"from_": "2027-01-01T00:00:00Z"}, "from"),
        ({"granularity": "decade"}, "granularity"),
        ({"group_by": "user"}, "group_by"),
        ({"group_by": "price"}, "group_by"),
        ({"group_by": "model,model"}, "group_by"),
        ({"group_by": "model,"}, "group_by"),
        ({"model": ["a", "b"]}, "model"),
        ({"model": "a\0"}, "model"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_its_parameter(house, ask, now, parameters, field):
    assert problem(ask(**{"meter": "calls", **parameters})) == ("invalid_field", [field])


def test_a_meter_must_be_named(house, ask):
    assert problem(ask()) == ("missing_field", ["meter"])


def test_an_unknown_parameter_is_refused(house, ask):
    assert problem(ask(meter="calls", modle="mini", color="red")) == ("unknown_field", ["modle", "color"])


def test_minutes_of_the_last_two_days_add_up_to_the_hours(house, ask, now):
    recent = {"from_": "2026-11-10T11:00:00Z", "to": "2026-11-10T12:00:00Z"}

    answer = ask(meter="calls", granularity="minute", **recent).json()

    assert len(answer["series"]) == 60
    assert (answer["series"][1]["start"], answer["series"][1]["end"]) == (
        "2026-11-10T11:01:00Z",
        "2026-11-10T11:02:00Z",
    )
    assert (answer["amount_unit"], answer["series"][0]["amount"]) == (None, None)
    assert len(ask(meter="calls", granularity="minute").json()["series"]) == 48 * 60


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"from_": "2026-11-08T11:59:00Z"}, "from"),
        ({"group_by": "model"}, "group_by"),
        ({"model": "mini"}, "model"),
        ({"to": "2026-11-08T11:00:00Z"}, "to"),
    ],
)
def test_minutes_say_what_they_cannot_answer(house, ask, now, parameters, field):
    assert problem(ask(meter="calls", granularity="minute", **parameters)) == ("invalid_field", [field])


def test_ten_thousand_buckets_are_the_most(house, ask):
    start = datetime(2025, 1, 1, tzinfo=UTC)
    hours = {"meter": "calls", "granularity": "hour", "from_": start.isoformat()}

    assert (
        problem(ask(**hours, to=(start + timedelta(hours=10_000, minutes=1)).isoformat()), 422)[0] == "range_too_large"
    )
    assert ask(**hours, to=(start + timedelta(hours=9_999)).isoformat()).status_code == 200


def test_too_many_rows_of_groups_are_refused_too(house, ask, now, monkeypatch):
    monkeypatch.setattr("billing.rating.api.MAX_ROWS", 2)
    for model in "abcde":
        house.use("calls", 1, model=model)

    assert problem(ask(meter="calls", granularity="total", group_by="model"), 422)[0] == "range_too_large"
    assert selection.MAX_ROWS == 10_000


def test_a_dimension_with_all_the_values_that_are_told_apart_can_be_asked_for(house, ask, now, monkeypatch, settings):
    monkeypatch.setattr("billing.rating.api.MAX_ROWS", 2)
    settings.DIMENSION_VALUES = 2
    for model in ("v1", "v2", "v3", "v4", None):
        house.use("calls", 1, **({"model": model} if model else {}))

    answer = ask(meter="calls", granularity="total", group_by="model").json()

    assert {row["group"]["model"] for row in answer["series"]} > {"(other)", None}
    assert (len(answer["series"]), answer["total"]) == (4, "5")


def test_a_subscription_gives_its_own_range(house, acme, ask, now):
    own = house.period.subscription.public_id

    assert ask(meter="calls", subscription=own).json()["from"] == "2026-11-03T07:15:00Z"
    assert ask("acme", meter="calls", subscription=own).status_code == 404
    assert ask(meter="calls", subscription="sub_nope").status_code == 404


def test_a_customer_key_reads_its_own_usage_only(house, acme, ask, now):
    _, own = make_api_key(customer=house.customer)

    assert ask(meter="calls", key=own).status_code == 200
    assert ask("acme", meter="calls", key=own).status_code == 404
    assert ask("nobody", meter="calls").status_code == 404


@pytest.mark.parametrize("variety", [1, 3])
def test_usage_takes_the_same_queries_whatever_there_is(house, ask, now, variety, django_assert_num_queries):
    for number in range(variety):
        house.use("calls", 1, quarter=100 * number, model=f"m{number}")

    ask(meter="calls")  # the terms of the version
    # key, customer, meter, current period, freshness, periods, meters, rated and counted, capped
    with django_assert_num_queries(13):
        ask(meter="calls", group_by="model")


def test_usage_of_a_meter_that_does_not_add_up_says_so(house, ask, now):
    seats = make_meter("seats", aggregation="max", event_type="seats", value="quantity")
    for quarter, quantity in enumerate([3, 7, 5]):
        house.use("seats", quantity, quarter=100 * quarter)

    answer = ask(meter=seats.key, granularity="day").json()

    assert (answer["additive"], answer["total"], answer["amount_unit"]) == (False, "7", None)
    assert [row["quantity"] for row in answer["series"] if row["quantity"] != "0"] == ["3", "7", "5"]
