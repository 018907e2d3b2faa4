"""Subscriptions over HTTP: change, cancel, resume, and what the list says of them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from accounts.models import Customer
from billing.pricing.spec import PriceSpec
from tests.factories import bearer, make_api_key, make_meter, make_plan, make_version

URL = "/api/v1/subscriptions"
NOW = datetime(2026, 6, 16, 0, 7, tzinfo=UTC)


@pytest.fixture
def plans(db):
    make_meter("searches", aggregation="count", event_type="search")
    price = PriceSpec("searches", meter="searches", unit="USD", unit_amount=Decimal(1))
    return [make_version(make_plan(key), prices=(price,)) for key in ("small", "large")]


@pytest.fixture
def ask(client, plans, globex, monkeypatch):
    _, secret = make_api_key()

    def ask(method, path="", body=None, at=NOW):
        monkeypatch.setattr("billing.cycle.subscriptions_api.now", lambda *_: at)
        return getattr(client, method)(URL + path, body, content_type="application/json", **bearer(secret))

    return ask


@pytest.fixture
def started(ask):
    body = {"customer": "globex", "plan": "small", "starts_at": "2026-06-01T00:00:00Z"}
    answer = ask("post", "", body)
    assert answer.status_code == 201
    return answer.json()


def test_a_new_subscription_says_where_it_stands(started):
    segment = {
        "plan": "small",
        "version": 1,
        "starts_at": "2026-06-01T00:00:00Z",
        "ends_at": "2026-07-01T00:00:00Z",
        "is_trial": False,
    }
    assert started | {"id": ""} == {
        "id": "",
        "customer": "globex",
        "plan": "small",
        "version": 1,
        "status": "active",
        "starts_at": "2026-06-01T00:00:00Z",
        "ends_at": None,
        "trial_ends_at": None,
        "anchor_day": 1,
        "anchor_month": None,
        "beside": None,
        "current_period": {
            "starts_at": "2026-06-01T00:00:00Z",
            "ends_at": "2026-07-01T00:00:00Z",
            "segments": [segment],
        },
        "scheduled_change": None,
    }


def test_an_add_on_names_what_it_is_added_to(ask, started):
    make_version(make_plan("extra", is_add_on=True), base_fee=Decimal(5))

    added = ask("post", "", {"customer": "globex", "plan": "extra", "beside": started["id"]}).json()

    assert added["beside"] == started["id"]
    assert added["current_period"]["ends_at"] == started["current_period"]["ends_at"]
    for wrong in ({}, {"beside": "sub_nobody"}):
        refused = ask("post", "", {"customer": "globex", "plan": "extra", **wrong})
        assert [error["field"] for error in refused.json()["errors"]] == ["beside"]


def test_a_change_now_answers_with_both_segments(ask, started):
    answer = ask("post", f"/{started['id']}/change", {"plan": "large", "when": "now"})

    assert answer.status_code == 200
    found = answer.json()
    assert found["plan"] == "large"
    assert [(one["plan"], one["starts_at"]) for one in found["current_period"]["segments"]] == [
        ("small", "2026-06-01T00:00:00Z"),
        ("large", "2026-06-16T00:00:00Z"),
    ]


def test_a_change_at_the_period_end_is_scheduled(ask, started):
    found = ask("post", f"/{started['id']}/change", {"plan": "large", "version": 1, "when": "period_end"}).json()

    assert found["plan"] == "small"
    assert found["scheduled_change"] == {"plan": "large", "version": 1, "at": "2026-07-01T00:00:00Z"}
    assert ask("get").json()["data"] == [found]


def test_a_cancellation_waits_and_is_taken_back(ask, started):
    cancelled = ask("post", f"/{started['id']}/cancel", {"when": "period_end"}).json()
    assert (cancelled["status"], cancelled["ends_at"]) == ("active", "2026-07-01T00:00:00Z")

    resumed = ask("post", f"/{started['id']}/resume").json()
    assert resumed == started

    again = ask("post", f"/{started['id']}/resume")
    assert (again.status_code, again.json()["code"]) == (409, "not_cancelled")


def test_a_cancellation_now_ends_it(ask, started):
    cancelled = ask("post", f"/{started['id']}/cancel", {"when": "now"}).json()

    assert (cancelled["status"], cancelled["ends_at"]) == ("ended", "2026-06-16T00:00:00Z")
    assert cancelled["current_period"] is None
    again = ask("post", f"/{started['id']}/cancel", {"when": "now"})
    assert (again.status_code, again.json()["code"]) == (409, "subscription_ended")


def test_one_that_starts_later_is_scheduled(ask):
    later = (NOW + timedelta(days=3)).isoformat()

    assert ask("post", "", {"customer": "globex", "plan": "small", "starts_at": later}).json()["status"] == "scheduled"


@pytest.mark.parametrize(
    ("act", "body", "field"),
    [
        ("change", {"plan": "large"}, "when"),
        ("change", {"when": "now"}, "plan"),
        ("change", {"plan": "none", "when": "now"}, "plan"),
        ("change", {"plan": "large", "version": 9, "when": "now"}, "version"),
        ("change", {"plan": "large", "when": "later"}, "when"),
        ("cancel", {}, "when"),
        ("cancel", {"when": "now", "why": "?"}, "why"),
    ],
)
def test_bad_input_is_refused_with_the_field(ask, started, act, body, field):
    answer = ask("post", f"/{started['id']}/{act}", body)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_subscription_that_is_not_there_is_not_found(ask):
    assert ask("post", "/sub_none/cancel", {"when": "now"}).status_code == 404


@pytest.mark.parametrize("customers", [1, 3])
def test_the_list_asks_the_same_however_long_it_is(ask, plans, customers, django_assert_num_queries):
    for number in range(customers):
        Customer.objects.create(key=f"c{number}", name="C")
        ask("post", "", {"customer": f"c{number}", "plan": "small"})

    with django_assert_num_queries(4):  # key, subscriptions, open periods, plan segments
        assert len(ask("get").json()["data"]) == customers
