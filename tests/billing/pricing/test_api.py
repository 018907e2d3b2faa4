"""The catalog over HTTP, in the shape that the contract prints."""

import json

import pytest

from accounts.models import Scope
from billing.pricing.models import Plan, PlanVersion
from tests.factories import bearer, make_api_key, make_meter

EXAMPLE = {
    "interval": "month",
    "interval_count": 1,
    "base_fee": "20.00",
    "base_fee_timing": "advance",
    "trial_days": 0,
    "minimum_spend": None,
    "credits": [{"unit": "credits", "amount": "1000", "every": "period", "rollover_max": "0", "priority": 10}],
    "prices": [
        {
            "key": "input",
            "meter": "input_tokens",
            "unit": "USD",
            "scheme": "per_unit",
            "per": "1000000",
            "unit_amount": "0.15",
            "included": "0",
            "match": [
                {"where": {"model": "large-2"}, "unit_amount": "2.50"},
                {"where": {"model": ["mini", "nano"]}, "unit_amount": "0.05"},
            ],
        },
    ],
    "overage": [{"unit": "credits", "unit_amount": "0.012"}],
    "postpaid": True,
}


TIERS = [
    {"up_to": "1000", "unit_amount": "1", "flat_amount": "0"},
    {"up_to": None, "unit_amount": "0.8", "flat_amount": "5"},
]
GRADUATED = {"key": "calls", "meter": "calls", "unit": "credits", "scheme": "graduated", "tiers": TIERS}
BY_TIERS = {"where": {"model": "large"}, "tiers": TIERS[1:]}


@pytest.fixture
def ask(client, db):
    _, secret = make_api_key()

    def send(method, path, body=None, *, key=secret, **headers):
        raw = body if isinstance(body, str) else json.dumps(body)
        sent = {"headers": {**bearer(key)["headers"], **headers}}
        return client.generic(method, f"/api/v1{path}", raw, content_type="application/json", **sent)

    return send


@pytest.fixture
def pro(ask):
    make_meter("input_tokens", dimensions=["model"])
    make_meter("calls", aggregation="count", dimensions=["model", "region"])
    assert ask("POST", "/plans", {"key": "pro", "name": "Pro", "currency": "USD"}).status_code == 201


def problems(response, status=400):
    assert response.status_code == status, response.content
    return {error["field"]: error["code"] for error in response.json()["errors"]}


def test_a_plan_is_made_and_listed(ask):
    sent = {"key": "pro", "name": "Pro", "currency": "EUR"}
    shown = {**sent, "is_add_on": False, "is_listed": False}

    assert ask("POST", "/plans", sent).json() == shown
    assert ask("GET", "/plans").json() == {"data": [shown], "next_cursor": None}


def test_a_plan_key_that_exists_is_a_conflict(ask, pro):
    response = ask("POST", "/plans", {"key": "pro", "name": "Another"})

    assert problems(response, 409) == {"key": "already_exists"}
    assert response.json()["code"] == "already_exists"


def test_a_plan_that_makes_no_sense_is_refused_with_its_fields(ask):
    response = ask("POST", "/plans", {"key": "a b", "name": "", "currency": "XXX", "color": "red"})

    assert problems(response) == {"color": "unknown_field"}
    assert set(problems(ask("POST", "/plans", {"key": "a b", "name": ""}))) == {"key", "name"}
    assert set(problems(ask("POST", "/plans", {"key": "p", "name": "P", "currency": "XXX"}))) == {"currency"}


def test_the_version_of_the_contract_is_taken_and_answered(ask, pro):
    created = ask("POST", "/plans/pro/versions", EXAMPLE)

    shown = {
        "plan": "pro",
        "version": 1,
        "status": "draft",
        "published_at": None,
        "retired_at": None,
        **EXAMPLE,
        "base_fee": "20",
        "prices": [
            {
                **EXAMPLE["prices"][0],
                "minimum_amount": None,
                "maximum_amount": None,
                "match": [
                    {"where": {"model": "large-2"}, "unit_amount": "2.5"},
                    {"where": {"model": ["mini", "nano"]}, "unit_amount": "0.05"},
                ],
            },
        ],
    }
    assert created.status_code == 201
    assert created.json() == shown
    assert ask("GET", "/plans/pro/versions/1").json() == shown
    assert ask("GET", "/plans/pro/versions").json()["data"] == [shown]


def test_an_empty_version_takes_the_defaults(ask, pro):
    shown = ask("POST", "/plans/pro/versions", {}).json()

    assert (shown["interval"], shown["interval_count"], shown["base_fee"], shown["postpaid"]) == ("month", 1, "0", True)


def test_amounts_may_be_numbers_and_are_read_exactly(ask, pro):
    body = json.dumps(EXAMPLE).replace('"0.15"', "0.100000000001")

    shown = ask("POST", "/plans/pro/versions", body).json()

    assert shown["prices"][0]["unit_amount"] == "0.100000000001"


def test_minimums_trial_and_credits_are_kept_as_sent(ask, pro):
    rows = {**GRADUATED, "minimum_amount": "3", "match": [{**BY_TIERS, "minimum_amount": "5"}]}
    credits = [{"unit": "credits", "amount": "1", "every": "month", "rollover_max": "5", "priority": 10}]
    sent = {"interval": "year", "trial_days": 14, "minimum_spend": "10", "credits": credits, "prices": [rows]}

    shown = ask("POST", "/plans/pro/versions", sent).json()

    assert (shown["trial_days"], shown["minimum_spend"], shown["credits"]) == (14, "10", credits)
    assert shown["prices"][0]["minimum_amount"] == "3"
    assert shown["prices"][0]["match"][0]["minimum_amount"] == "5"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trial_days": -1}, "trial_days"),
        ({"trial_days": 731}, "trial_days"),
        ({"minimum_spend": "-1"}, "minimum_spend"),
        ({"interval": "week", "credits": [{"amount": "1", "every": "month"}]}, "credits.0.every"),
        ({"credits": [{"amount": "1", "rollover_max": "-5"}]}, "credits.0.rollover_max"),
        ({"prices": [{**EXAMPLE["prices"][0], "minimum_amount": "-1"}]}, "prices.0.minimum_amount"),
        (
            {"prices": [{**GRADUATED, "match": [{**BY_TIERS, "minimum_amount": 5, "maximum_amount": 4}]}]},
            "prices.0.match.0.maximum_amount",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(ask, pro, change, field):
    assert list(problems(ask("POST", "/plans/pro/versions", {**EXAMPLE, **change}))) == [field]


@pytest.mark.parametrize(
    "amounts",
    [
        {"scheme": "per_unit", "unit_amount": "1.5"},
        {"scheme": "graduated", "tiers": TIERS},
        {"scheme": "volume", "tiers": TIERS},
        {"scheme": "package", "package_size": "100", "package_amount": "7"},
        {"scheme": "percentage", "rate": "2.9", "fixed_amount": "0.3"},
    ],
)
def test_every_scheme_is_taken_and_answered(ask, pro, amounts):
    row = {name: value for name, value in amounts.items() if name != "scheme"}
    price = {
        "key": "calls",
        "meter": "calls",
        "unit": "USD",
        "per": "1",
        "included": "3",
        "minimum_amount": None,
        "maximum_amount": "99",
        **amounts,
        "match": [{"where": {"model": "large"}, **row, "included": "2", "maximum_amount": "50"}],
    }

    shown = ask("POST", "/plans/pro/versions", {"prices": [price]}).json()

    assert shown["prices"] == [price]
    assert ask("PATCH", "/plans/pro/versions/1", {"base_fee": "1"}).json()["prices"] == [price]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tiers": None}, {"tiers": "missing_field"}),
        ({"unit_amount": "1"}, {"unit_amount": "invalid_field"}),
        ({"scheme": "package"},
         {"package_size": "missing_field", "package_amount": "missing_field", "tiers": "invalid_field"}),
        ({"tiers": TIERS[:1]}, {"tiers.0.up_to": "invalid_field"}),
        ({"tiers": [{"unit_amount": 1}]}, {"tiers.0.up_to": "missing_field"}),
        ({"tiers": [None]}, {"tiers.0": "invalid_field"}),
        ({"tiers": TIERS[1:] * 101}, {"tiers": "invalid_field"}),
        ({"scheme": "free"}, {"scheme": "invalid_field"}),
        ({"match": [{"where": {"model": "a"}, "unit_amount": 1}]},
         {"match.0.tiers": "missing_field", "match.0.unit_amount": "invalid_field"}),
    ],
)  # fmt: skip
def test_a_row_takes_what_its_scheme_takes(ask, pro, change, expected):
    response = ask("POST", "/plans/pro/versions", {"prices": [{**GRADUATED, **change}]})

    assert problems(response) == {f"prices.0.{field}": code for field, code in expected.items()}


@pytest.mark.parametrize("neutral", [{"trial_days": "0"}, {"credits": [{"amount": "1", "rollover_max": 0}]}])
def test_neutral_values_may_be_written_as_one_likes(ask, pro, neutral):
    assert ask("POST", "/plans/pro/versions", {**EXAMPLE, **neutral}).status_code == 201


@pytest.mark.parametrize(
    ("price", "field"),
    [
        ({"meter": "nope"}, "meter"),
        ({"unit": "EUR"}, "unit"),
        ({"per": "0"}, "per"),
        ({"unit_amount": None}, "unit_amount"),
        ({"unit_amount": "NaN"}, "unit_amount"),
        ({"unit_amount": "0.0000000000001"}, "unit_amount"),
        ({"match": [{"where": "large", "unit_amount": 1}]}, "match.0.where"),
        ({"match": [{"where": {"model": "a"}}]}, "match.0.unit_amount"),
        ({"match": [{"where": {"model": "a"}, "unit_amount": 1}, {"where": {"user": 1}, "unit_amount": 1}]},
         "match.1.where"),
        ({"match": [{"where": {"model": "a"}, "unit_amount": 1}, {"where": {"model": ["a"]}, "unit_amount": 1}]},
         "match.1.where"),
    ],
)  # fmt: skip
def test_a_price_that_makes_no_sense_is_refused_with_its_path(ask, pro, price, field):
    response = ask("POST", "/plans/pro/versions", {"prices": [{**EXAMPLE["prices"][0], **price}]})

    assert set(problems(response)) == {f"prices.0.{field}"}


@pytest.mark.parametrize("body", ["[]", '"x"', "null", '{"prices": {}}', '{"prices": [1]}', '{"credits": null}', "{"])
def test_a_body_of_another_shape_is_refused(ask, pro, body):
    assert ask("POST", "/plans/pro/versions", body).status_code == 400
    assert not PlanVersion.objects.exists()


def test_a_draft_changes_field_by_field(ask, pro):
    ask("POST", "/plans/pro/versions", EXAMPLE)
    calls = {"key": "calls", "meter": "calls", "unit": "credits", "unit_amount": "1"}

    shown = ask("PATCH", "/plans/pro/versions/1", {"prices": [calls]}).json()

    assert [price["key"] for price in shown["prices"]] == ["calls"]
    assert (shown["base_fee"], shown["overage"]) == ("20", EXAMPLE["overage"])
    assert ask("GET", "/plans/pro/versions/1").json() == shown


def test_a_change_that_makes_no_sense_is_refused(ask, pro):
    ask("POST", "/plans/pro/versions", EXAMPLE)

    assert problems(ask("PATCH", "/plans/pro/versions/1", {"version": 2})) == {"version": "unknown_field"}
    assert problems(ask("PATCH", "/plans/pro/versions/1", {"base_fee": "-1"})) == {"base_fee": "invalid_field"}
    missing = {"prices": [{"key": "x", "meter": "calls", "unit": "USD"}]}
    assert problems(ask("PATCH", "/plans/pro/versions/1", missing)) == {"prices.0.unit_amount": "missing_field"}
    assert ask("PATCH", "/plans/pro/versions/1", []).status_code == 400


def test_a_published_version_is_frozen(ask, pro):
    ask("POST", "/plans/pro/versions", EXAMPLE)

    published = ask("POST", "/plans/pro/versions/1/publish", {"at": "2099-01-01T00:00:00+01:00"})

    assert published.status_code == 200
    assert (published.json()["status"], published.json()["published_at"]) == ("published", "2098-12-31T23:00:00Z")
    for method, path in (("PATCH", "/plans/pro/versions/1"), ("POST", "/plans/pro/versions/1/publish")):
        refused = ask(method, path, {})
        assert (refused.status_code, refused.json()["code"]) == (409, "version_published")


def test_a_version_is_not_published_in_the_past(ask, pro):
    ask("POST", "/plans/pro/versions", EXAMPLE)

    refused = ask("POST", "/plans/pro/versions/1/publish", {"at": "2026-01-01T00:00:00Z"})

    assert problems(refused) == {"at": "invalid_field"}
    assert ask("GET", "/plans/pro/versions/1").json()["status"] == "draft"


def test_a_version_is_retired_once_it_is_published(ask, pro):
    ask("POST", "/plans/pro/versions", EXAMPLE)
    assert ask("POST", "/plans/pro/versions/1/retire", {}).json()["code"] == "version_not_published"

    ask("POST", "/plans/pro/versions/1/publish", {})
    retired = ask("POST", "/plans/pro/versions/1/retire", {}).json()

    assert (retired["status"], retired["retired_at"] is not None) == ("retired", True)


def test_publishing_twice_with_one_idempotency_key_answers_the_same(ask, pro):
    ask("POST", "/plans/pro/versions", EXAMPLE)

    first, second = (ask("POST", "/plans/pro/versions/1/publish", {}, **{"Idempotency-Key": "once"}) for _ in range(2))

    assert (first.status_code, first.json()) == (second.status_code, second.json())


@pytest.mark.parametrize("path", ["nope/versions", "a%20b/versions", "pro/versions/7", "pro/versions/99999999999"])
def test_what_does_not_exist_is_not_found(ask, pro, path):
    response = ask("GET", f"/plans/{path}")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("prices", [1, 2])
def test_listing_versions_costs_the_same_however_many_there_are(ask, pro, prices, django_assert_num_queries):
    calls = {"key": "calls", "meter": "calls", "unit": "credits", "unit_amount": "1"}
    for _ in range(prices):
        ask("POST", "/plans/pro/versions", {**EXAMPLE, "prices": [*EXAMPLE["prices"], calls][:prices]})

    with django_assert_num_queries(8):  # key, plan, versions and the five things they say
        ask("GET", "/plans/pro/versions")


def test_reading_and_writing_need_their_scopes(ask, globex):
    _, reader = make_api_key(Scope.BILLING_READ)
    _, writer = make_api_key(Scope.BILLING_WRITE)
    _, own = make_api_key(customer=globex)
    plan = {"key": "pro", "name": "Pro"}

    assert [ask("GET", "/plans", key=key).status_code for key in (reader, writer, own)] == [200, 403, 403]
    assert [ask("POST", "/plans", plan, key=key).status_code for key in (reader, own, writer)] == [403, 403, 201]
    assert Plan.objects.count() == 1


# --- simulations --------------------------------------------------------------------------------------------

STAIRS = {
    "unit": "USD",
    "scheme": "graduated",
    "tiers": [
        {"up_to": "10", "unit_amount": "1.5"},
        {"up_to": "110", "unit_amount": "1"},
        {"up_to": None, "unit_amount": "0.5"},
    ],
}


def test_a_simulation_shows_its_arithmetic(ask):
    answer = ask("POST", "/price-simulations", {"price": STAIRS, "quantity": "111"}).json()

    assert (answer["amount"], answer["unit"]) == ("115.5", "USD")
    assert answer["breakdown"][0] == {
        "where": {},
        "tier": 1,
        "kind": "usage",
        "quantity": "10",
        "unit_amount": "1.5",
        "flat_amount": "0",
        "amount": "15",
    }
    assert answer["explanation"] == "10 x 1.5 + 100 x 1 + 1 x 0.5"


def test_a_simulation_does_not_charge_what_was_used_before(ask):
    answer = ask("POST", "/price-simulations", {"price": STAIRS, "quantity": 1, "prior_quantity": 110}).json()

    assert answer["amount"] == "0.5"


def test_minimum_and_maximum_apply_in_a_simulation(ask):
    flat = {"unit": "credits", "unit_amount": "1", "minimum_amount": "5", "maximum_amount": "8"}

    amounts = [
        ask("POST", "/price-simulations", {"price": flat, "quantity": quantity}).json()["amount"]
        for quantity in ("1", "6", "9")
    ]

    assert amounts == ["5", "6", "8"]


def test_a_simulation_takes_quantities_by_dimension_values(ask):
    price = {
        "key": "input",
        "meter": "nowhere",
        "unit": "USD",
        "unit_amount": "1",
        "match": [{"where": {"model": ["a", "b"], "region": None}, "unit_amount": "3"}],
    }
    used = [
        {"where": {"model": "a"}, "quantity": "2"},
        {"where": {"model": "a", "region": "eu"}, "quantity": "1"},
    ]

    answer = ask("POST", "/price-simulations", {"price": price, "quantities": used}).json()

    assert answer["amount"] == "7"
    assert [row["where"] for row in answer["breakdown"]] == [{}, {"model": ["a", "b"], "region": None}]


def test_a_percentage_counts_its_events(ask):
    price = {"unit": "USD", "scheme": "percentage", "rate": "2.9", "fixed_amount": "0.3"}

    answer = ask("POST", "/price-simulations", {"price": price, "quantity": "100", "events": 3}).json()

    assert answer["amount"] == "3.8"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"price": STAIRS}, "quantity"),
        ({"quantity": 1}, "price"),
        ({"price": STAIRS, "quantity": "-1"}, "quantity"),
        ({"price": STAIRS, "quantity": 1, "quantities": []}, "quantity"),
        ({"price": {**STAIRS, "per": 0}, "quantity": 1}, "price.per"),
        ({"price": {**STAIRS, "tiers": []}, "quantity": 1}, "price.tiers"),
        ({"price": {**STAIRS, "scheme": "package"}, "quantity": 1}, "price.package_amount"),
        ({"price": {**STAIRS, "match": [{**BY_TIERS, "where": {"model": []}}]}, "quantity": 1}, "price.match.0.where"),
    ],
)
def test_a_simulation_that_makes_no_sense_is_refused_with_its_field(ask, body, field):
    assert field in problems(ask("POST", "/price-simulations", body))
