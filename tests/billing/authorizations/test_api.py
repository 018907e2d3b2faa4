"""Holds over HTTP, as a gateway sees them."""

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import Customer, Scope, TestClock
from billing.authorizations.models import Authorization, HoldAccount
from billing.cycle.services import tick
from billing.metering.models import UsageEvent
from tests.billing.authorizations.conftest import START, give, make_house, stop_at
from tests.factories import bearer, event, make_api_key

pytestmark = pytest.mark.django_db
PATH = "/api/v1/authorizations"


@pytest.fixture
def house(acme):
    return make_house(acme)


@pytest.fixture
def post(client):
    operator = make_api_key()[1]

    def post(path: str, body: object = None, secret: str = operator, **headers: str):
        headers |= bearer(secret)["headers"]
        return client.post(path, body, content_type="application/json", headers=headers)

    return post


@pytest.fixture
def hold(house, post):
    """The id of an open hold of 10 of 100 credits."""
    give(house, 100)
    return post(PATH, {"customer": "acme", "unit": "credits", "amount": "10"}).json()["id"]


def search(event_id: str, n: object = 1, **fields: object) -> dict[str, object]:
    return event(event_id, type="search", n=n, **fields)


def now() -> datetime:
    return datetime.now(UTC)


def test_what_a_call_will_take_is_held(house, post, client):
    give(house, 100)

    response = post(PATH, {"customer": "acme", "usage": [{"meter": "searches", "quantity": "12.5"}]})

    answer = response.json()
    assert response.status_code == 201
    assert (answer["decision"], answer["unit"], answer["amount"], answer["available_after"]) == (
        "allow",
        "credits",
        "12.5",
        "87.5",
    )
    expires_in = datetime.fromisoformat(answer["expires_at"]) - now()
    assert timedelta(seconds=290) < expires_in <= timedelta(seconds=300)
    [balance] = client.get("/api/v1/customers/acme/credits", **bearer(make_api_key()[1])).json()["data"]
    assert (balance["balance"], balance["reserved"], balance["available"]) == ("100", "12.5", "87.5")


def test_a_denial_says_why(house, post):
    response = post(PATH, {"customer": "acme", "unit": "credits", "amount": 1})

    assert response.status_code == 402
    assert (response.json()["decision"], response.json()["reason"]) == ("deny", "credit_exhausted")


def test_a_stop_names_its_budget(house, post):
    budget = stop_at(house, 200, percent=50)

    response = post(PATH, {"customer": "acme", "unit": "USD", "amount": "100.01"})

    assert response.status_code == 402
    answer = response.json()
    assert answer["reason"] == "budget_stop"
    assert answer["budget"] == {
        "id": budget.public_id,
        "name": budget.name,
        "unit": "USD",
        "amount": "200",
        "stop_at_percent": "50",
        "limit": "100",
        "used": "0",
        "reserved": "0",
        "used_percent": "0",
    }


def test_usage_in_two_units_is_held_in_both(house, post):
    give(house, 100)
    usage = [{"meter": "searches", "quantity": 3}, {"meter": "work", "quantity": 4, "properties": {"model": "large"}}]

    answer = post(PATH, {"customer": "acme", "usage": usage}).json()

    assert answer["holds"] == [
        {"unit": "credits", "amount": "3", "available_after": "97"},
        {"unit": "USD", "amount": "4", "available_after": None},
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "usage"),
        ({"unit": "credits"}, "amount"),
        ({"amount": "1"}, "unit"),
        ({"unit": "credits", "amount": "1", "usage": [{"meter": "searches", "quantity": 1}]}, "usage"),
        ({"unit": "credits", "amount": "0"}, "amount"),
        ({"unit": "credits", "amount": "NaN"}, "amount"),
        ({"unit": "credits", "amount": "1", "ttl_seconds": 0}, "ttl_seconds"),
        ({"unit": "credits", "amount": "1", "ttl_seconds": 90_000}, "ttl_seconds"),
        ({"usage": []}, "usage"),
        ({"usage": [{"meter": "nothing", "quantity": 1}]}, "usage.0.meter"),
        ({"usage": [{"meter": "searches", "quantity": -1}]}, "usage.0.quantity"),
        ({"unit": "credits", "amount": "1", "surprise": 1}, "surprise"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(house, post, body, field):
    response = post(PATH, {"customer": "acme", **body})

    assert response.status_code == 400, response.content
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_capture_with_events_records_them_and_ends_the_hold(house, hold, post):
    response = post(
        f"{PATH}/{hold}/capture", {"events": [search("a", 7), {"id": "b", "type": "search", "properties": {"n": 2}}]}
    )

    answer = response.json()
    assert response.status_code == 200, answer
    assert (answer["is_open"], answer["ended_by"], answer["is_reserved"]) == (False, "capture", True)
    assert answer["events"]["accepted"] == 2
    assert HoldAccount.objects.get().reserved == 10
    tick(at=now())
    assert HoldAccount.objects.get().reserved == 0
    assert post(PATH, {"customer": "acme", "unit": "credits", "amount": "1"}).json()["available_after"] == "90"


def test_capture_without_events_ends_the_hold(hold, post):
    response = post(f"{PATH}/{hold}/capture")

    assert (response.status_code, response.json()["ended_by"]) == (200, "capture")
    assert HoldAccount.objects.get().reserved == 0


def test_a_capture_with_an_event_that_cannot_be_taken_records_nothing_and_leaves_the_hold_open(hold, post):
    response = post(f"{PATH}/{hold}/capture", {"events": [search("a"), search("b", n=-1)]})

    assert (response.status_code, response.json()["code"]) == (400, "invalid_events")
    assert [error["field"] for error in response.json()["errors"]] == ["events.1.properties"]
    assert not UsageEvent.objects.exists()
    assert Authorization.objects.get().ended_at is None


@pytest.mark.parametrize(
    ("events", "field"),
    [
        ([], "events"),
        ("all", "events"),
        ([1], "events.0"),
        ([{"id": "a", "type": "search", "customer": "globex"}], "events.0.customer"),
        ([{"id": "a", "type": "search", "authorization": "x"}], "events.0.authorization"),
    ],
)
def test_a_capture_says_what_is_wrong_with_its_events(hold, post, events, field):
    response = post(f"{PATH}/{hold}/capture", {"events": events})

    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("body", [[], "null"])
def test_a_capture_takes_an_object_and_nothing_else(hold, post, body):
    assert post(f"{PATH}/{hold}/capture", body).status_code == 400
    assert Authorization.objects.get().ended_at is None


def test_release_gives_the_hold_back_once(hold, post):
    assert post(f"{PATH}/{hold}/release").json()["ended_by"] == "release"
    assert HoldAccount.objects.get().reserved == 0

    again = post(f"{PATH}/{hold}/release")

    assert (again.status_code, again.json()["code"]) == (409, "authorization_not_open")
    assert post(f"{PATH}/{hold}/capture", {"events": [search("late")]}).status_code == 409
    assert not UsageEvent.objects.exists()


def test_an_event_that_names_a_hold_ends_it(hold, post, client):
    sent = post("/api/v1/events", [search("a", 9, authorization=hold), search("b", 1, authorization=hold)])

    assert sent.json()["accepted"] == 2
    assert sent.json()["results"] == [
        {"index": 1, "id": "b", "status": "accepted", "warning": "authorization_not_open"}
    ]
    shown = client.get(f"{PATH}/{hold}", **bearer(make_api_key()[1])).json()
    assert (shown["is_open"], shown["ended_by"], shown["is_reserved"]) == (False, "event", True)


def test_a_repeated_question_with_its_key_holds_once(house, post):
    give(house, 100)
    body = {"customer": "acme", "unit": "credits", "amount": "60"}

    first = post(PATH, body, **{"Idempotency-Key": "k1"})
    again = post(PATH, body, **{"Idempotency-Key": "k1"})

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert HoldAccount.objects.get().reserved == 60


def test_a_denial_is_not_stored_so_that_the_same_question_may_be_allowed_later(house, post):
    body = {"customer": "acme", "unit": "credits", "amount": "60"}
    assert post(PATH, body, **{"Idempotency-Key": "k1"}).status_code == 402
    give(house, 100)

    assert post(PATH, body, **{"Idempotency-Key": "k1"}).status_code == 201


def test_unknown_customers_and_authorizations_are_not_found(house, post):
    assert post(PATH, {"customer": "nobody", "unit": "credits", "amount": "1"}).status_code == 404
    assert post(f"{PATH}/auth_nothing/release").status_code == 404
    assert post(f"{PATH}/auth_nothing/capture").status_code == 404


def test_events_of_a_capture_need_the_right_to_send_events(house, post):
    give(house, 100, at=START)
    _, secret = make_api_key(Scope.BILLING_WRITE)
    held = post(PATH, {"customer": "acme", "unit": "credits", "amount": "1"}, secret).json()["id"]

    assert post(f"{PATH}/{held}/capture", {"events": [search("a")]}, secret).status_code == 403
    assert post(f"{PATH}/{held}/capture", None, secret).status_code == 200


def test_a_hold_of_a_sandbox_lives_in_its_time(house, post, client):
    clock = post("/api/v1/test-clocks", {"now": "2026-03-02T00:00:00Z"}).json()["id"]
    Customer.objects.update(test_clock=TestClock.objects.get(public_id=clock))
    give(house, 100)
    body = {"customer": "acme", "unit": "credits", "amount": "60"}
    first = post(PATH, body).json()
    assert first["expires_at"] == "2026-03-02T00:05:00Z"
    assert post(PATH, body).status_code == 402

    sent = search("a", 5, authorization=first["id"], timestamp="2026-03-02T00:00:00Z")
    assert "warning" not in str(post("/api/v1/events", sent).json())
    post(f"/api/v1/test-clocks/{clock}/advance", {"to": "2026-03-02T00:01:00Z"})
    assert post(PATH, body).json()["available_after"] == "35"
    post(f"/api/v1/test-clocks/{clock}/advance", {"to": "2026-03-02T01:00:00Z"})

    assert HoldAccount.objects.get().reserved == 0
    assert list(Authorization.objects.order_by("id").values_list("ended_by", flat=True)) == ["event", "expiry"]
