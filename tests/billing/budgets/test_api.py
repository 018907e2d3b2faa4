"""Budgets and alerts over HTTP, as programs see them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.budgets.models import Budget
from billing.notifications import services as notifications
from tests.billing.budgets.conftest import make_budget, spend, subscribe, watch
from tests.factories import bearer, make_api_key

BUDGETS = "/api/v1/budgets"
ALERTS = "/api/v1/alerts"
NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)


@pytest.fixture
def operator(db) -> str:
    return make_api_key()[1]


@pytest.fixture
def customer_key(acme) -> str:
    return make_api_key(customer=acme)[1]


@pytest.fixture
def ask(client, operator):
    """`ask("post", path, body)` as the operator, or with another secret."""

    def ask(method: str, path: str, body: object = None, secret: str = operator):
        return getattr(client, method)(path, data=body, content_type="application/json", **bearer(secret))

    return ask


@pytest.fixture
def current(acme, work):
    """Acme, in a billing period that began ten days ago."""
    subscribe(acme, datetime.now(UTC) - timedelta(days=10))
    return acme


def body(**changes: object) -> dict[str, object]:
    return {"customer": "acme", "name": "Production", "amount": "2000", "recipients": ["ops@acme.test"], **changes}


def refused_fields(response) -> list[str]:
    assert response.status_code == 400, response.content
    return [error["field"] for error in response.json()["errors"]]


def test_a_budget_is_made_and_read_back(acme, ask):
    thresholds = [{"basis": "actual", "percent": "80"}, {"amount": 1900.50}]

    made = ask("post", BUDGETS, body(unit="USD", thresholds=thresholds))

    assert made.status_code == 201, made.content
    answer = made.json()
    assert answer == ask("get", f"{BUDGETS}/{answer['id']}").json()
    ids = [threshold.pop("id") for threshold in answer["thresholds"]]
    assert all(one.startswith("thr_") for one in ids)
    assert answer.pop("id").startswith("bud_")
    assert answer.pop("created_at").endswith("Z")
    assert answer == {
        "customer": "acme",
        "name": "Production",
        "period": "billing_period",
        "basis": "spend",
        "unit": "USD",
        "amount": "2000",
        "scope": {},
        "stop_at_percent": None,
        "thresholds": [{"basis": "actual", "percent": "80"}, {"basis": "actual", "amount": "1900.5"}],
        "recipients": ["ops@acme.test"],
    }


def test_a_budget_needs_little_more_than_an_amount(acme, ask):
    answer = ask("post", BUDGETS, {"customer": "acme", "amount": 100}).json()

    assert (answer["unit"], answer["recipients"]) == ("USD", ["owners"])
    assert [threshold["percent"] for threshold in answer["thresholds"]] == ["50", "80", "100"]


def test_thresholds_keep_their_id_when_they_are_sent_with_it(acme, ask):
    made = ask("post", BUDGETS, body()).json()
    thresholds = [{**made["thresholds"][1], "percent": "85"}, {"percent": "95"}]

    changed = ask("patch", f"{BUDGETS}/{made['id']}", {"thresholds": thresholds, "amount": "2500"}).json()

    assert changed["amount"] == "2500"
    assert changed["thresholds"][0] == {"id": made["thresholds"][1]["id"], "basis": "actual", "percent": "85"}
    assert changed["thresholds"][1]["percent"] == "95"
    assert changed["recipients"] == made["recipients"]


def test_where_a_budget_stops_is_set_changed_and_removed(acme, ask):
    made = ask("post", BUDGETS, body(stop_at_percent="120.5")).json()
    path = f"{BUDGETS}/{made['id']}"
    assert made["stop_at_percent"] == "120.5"

    assert ask("patch", path, {"stop_at_percent": 100}).json()["stop_at_percent"] == "100"
    assert ask("patch", path, {"name": "Staging"}).json()["stop_at_percent"] == "100"
    assert ask("patch", path, {"stop_at_percent": None}).json()["stop_at_percent"] is None


@pytest.mark.parametrize("percent", ["0", "-1", "1000.01", "33.333"])
def test_a_stop_is_a_percent_like_any_other(acme, ask, percent):
    assert refused_fields(ask("post", BUDGETS, body(stop_at_percent=percent))) == ["stop_at_percent"]


def test_a_deleted_budget_is_gone(acme, ask):
    made = ask("post", BUDGETS, body()).json()

    assert ask("delete", f"{BUDGETS}/{made['id']}").status_code == 204
    assert ask("get", f"{BUDGETS}/{made['id']}").status_code == 404
    assert ask("get", f"{BUDGETS}?customer=acme").json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("period", {"period": "week"}),
        ("basis", {"basis": "quantity"}),
        ("basis", {"basis": "credit_balance"}),
        ("scope", {"scope": {"meter": "tokens"}}),
        ("scope", {"scope": {"where": {"model": "large-2"}}}),
        ("thresholds.0.basis", {"thresholds": [{"basis": "forecast", "percent": "100"}]}),
        ("thresholds.0.below", {"thresholds": [{"below": "100"}]}),
        ("thresholds.0.spike", {"thresholds": [{"spike": {"factor": "3"}}]}),
    ],
)
def test_what_is_not_available_yet_is_refused_by_name(acme, ask, field, changes):
    response = ask("post", BUDGETS, body(**changes))

    assert refused_fields(response) == [field]
    assert "not available yet" in response.json()["errors"][0]["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"period": "billing_period"},
        {"basis": "spend"},
        {"scope": {}},
        {"scope": {"where": {}}},
        {"stop_at_percent": None},
        {"thresholds": [{"basis": "actual", "percent": "80"}]},
    ],
)
def test_what_says_no_more_than_is_available_is_taken(acme, ask, changes):
    assert ask("post", BUDGETS, body(**changes)).status_code == 201


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("amount", {"amount": "0"}),
        ("amount", {"amount": "NaN"}),
        ("amount", {"amount": None}),
        ("period", {"period": "fortnight"}),
        ("period", {"period": None}),
        ("unit", {"unit": "bananas"}),
        ("colour", {"colour": "red"}),
        ("id", {"id": "bud_mine"}),
        ("thresholds", {"thresholds": {"percent": "80"}}),
        ("thresholds.0.percent", {"thresholds": [{"percent": "0"}]}),
        ("thresholds.0.percent", {"thresholds": [{"percent": "1e-400"}]}),
        ("thresholds.1", {"thresholds": [{"percent": "80"}, {"percent": 80}]}),
        ("thresholds.0.id", {"thresholds": [{"id": "thr_other", "percent": "80"}]}),
        ("recipients", {"recipients": ["everyone"]}),
        ("recipients", {"recipients": []}),
        ("recipients.0", {"recipients": [{"email": "ops@acme.test"}]}),
    ],
)
def test_bad_input_is_refused_by_its_field(acme, ask, field, changes):
    assert refused_fields(ask("post", BUDGETS, body(**changes))) == [field]
    assert not Budget.objects.exists()


def test_an_unknown_customer_is_not_found(ask):
    assert ask("post", BUDGETS, body(customer="nobody")).status_code == 404


@pytest.mark.parametrize("change", [{"customer": "globex"}, {"unit": "EUR"}])
def test_a_budget_stays_with_its_customer_and_unit(acme, globex, ask, change):
    made = ask("post", BUDGETS, body()).json()

    assert refused_fields(ask("patch", f"{BUDGETS}/{made['id']}", change)) == list(change)


# --- keys of customers ----------------------------------------------------------------------------------------


def test_a_customers_key_may_make_read_change_and_delete_its_budgets(acme, alice, ask, customer_key):
    made = ask("post", BUDGETS, body(recipients=["owners"]), customer_key).json()
    path = f"{BUDGETS}/{made['id']}"

    assert ask("get", path, None, customer_key).json() == made
    assert ask("patch", path, {"amount": "3000"}, customer_key).json()["amount"] == "3000"
    assert ask("delete", path, None, customer_key).status_code == 204


def test_a_customers_key_sees_no_other_customer(acme, globex, ask, customer_key):
    theirs = f"{BUDGETS}/{make_budget(globex).public_id}"

    assert ask("get", theirs, None, customer_key).status_code == 404
    assert ask("patch", theirs, {"amount": "1"}, customer_key).status_code == 404
    assert ask("delete", theirs, None, customer_key).status_code == 404
    assert ask("post", f"{theirs}/test", None, customer_key).status_code == 404
    assert ask("post", BUDGETS, body(customer="globex"), customer_key).status_code == 404
    assert ask("get", f"{BUDGETS}?customer=globex", None, customer_key).status_code == 404
    assert ask("get", f"{ALERTS}?customer=globex", None, customer_key).status_code == 404
    assert ask("get", BUDGETS, None, customer_key).json()["data"] == []
    assert Budget.objects.get().amount == 2000


def test_a_customers_key_may_not_name_a_stranger(acme, ask, customer_key):
    assert refused_fields(ask("post", BUDGETS, body(recipients=["eve@evil.test"]), customer_key)) == ["recipients"]


# --- alerts ---------------------------------------------------------------------------------------------------


def test_an_alert_says_what_was_crossed_and_who_was_told(subscribed, ask, mail_server):
    budget = make_budget(subscribed)
    spend(subscribed, "1604.20")
    watch(subscribed, as_of=NOW)
    notifications.deliver(at=NOW)

    alerts = {one["threshold"]["percent"]: one for one in ask("get", f"{ALERTS}?customer=acme").json()["data"]}

    alert = alerts["80"]
    assert alert["deliveries"] == alerts["50"]["deliveries"]
    [delivery] = alert.pop("deliveries")
    assert (delivery["channel"], delivery["recipient"], delivery["status"]) == ("email", "finance@acme.test", "sent")
    assert delivery["sent_at"].startswith("2026-11-15T12:00:0")
    assert alert.pop("id").startswith("alert_")
    assert alert.pop("threshold")["id"] == budget.thresholds.get(percent=80).public_id
    assert alert == {
        "customer": "acme",
        "budget": budget.public_id,
        "direction": "fired",
        "period_start": "2026-10-31T23:00:00Z",
        "period_end": "2026-11-30T23:00:00Z",
        "value": "1604.2",
        "limit": "2000",
        "as_of": "2026-11-15T12:00:00Z",
        "created_at": "2026-11-15T12:00:00Z",
    }


def test_alerts_are_asked_for_by_state(subscribed, ask):
    make_budget(subscribed)
    spend(subscribed, 1000)
    watch(subscribed)

    assert len(ask("get", f"{ALERTS}?state=fired").json()["data"]) == 1
    assert ask("get", f"{ALERTS}?state=resolved").json()["data"] == []
    assert refused_fields(ask("get", f"{ALERTS}?state=ringing")) == ["state"]


@pytest.mark.parametrize("alerts", [1, 3])
def test_listing_alerts_costs_the_same_however_many_there_are(subscribed, ask, django_assert_num_queries, alerts):
    make_budget(subscribed)
    for dollars in (1000, 600, 400)[:alerts]:
        spend(subscribed, dollars)
        watch(subscribed)
    ask("get", ALERTS)

    with django_assert_num_queries(3):  # the key, the alerts, their messages
        assert len(ask("get", ALERTS).json()["data"]) == alerts


def test_a_test_mail_is_sent_to_every_recipient(subscribed, ask, operator):
    made = ask("post", BUDGETS, body(recipients=["ops@acme.test", "finance@acme.test"])).json()

    answer = ask("post", f"{BUDGETS}/{made['id']}/test")

    assert answer.status_code == 202
    assert answer.json() == {"recipients": ["finance@acme.test", "ops@acme.test"]}


def test_a_test_without_a_subscription_is_a_conflict(acme, ask):
    made = ask("post", BUDGETS, body()).json()

    answer = ask("post", f"{BUDGETS}/{made['id']}/test")

    assert (answer.status_code, answer.json()["code"]) == (409, "no_subscription")


# --- forecast -------------------------------------------------------------------------------------------------


def test_a_forecast_says_so_when_there_is_not_enough_data(current, ask):
    budget = make_budget(current)

    [forecast] = ask("get", "/api/v1/customers/acme/forecast").json()["data"]

    assert "Not enough data yet" in forecast.pop("method")
    assert forecast == {
        "unit": "USD",
        "expected": None,
        "low": None,
        "high": None,
        "enough_data": False,
        "budgets": [{"id": budget.public_id, "crosses_at": None}],
    }


def test_a_forecast_says_where_the_period_ends_and_when_a_budget_is_reached(current, ask):
    make_budget(current, amount=Decimal(51))
    for days in range(5, 0, -1):
        spend(current, 10, at=datetime.now(UTC) - timedelta(days=days))

    [forecast] = ask("get", "/api/v1/customers/acme/forecast").json()["data"]

    assert forecast["enough_data"] is True
    assert Decimal(forecast["low"]) < Decimal(forecast["expected"]) < Decimal(forecast["high"])
    assert forecast["budgets"][0]["crosses_at"].endswith("Z")


def test_without_a_subscription_there_is_nothing_to_forecast(acme, ask, customer_key):
    assert ask("get", "/api/v1/customers/acme/forecast", None, customer_key).json() == {"data": []}
    assert ask("get", "/api/v1/customers/globex/forecast", None, customer_key).status_code == 404
