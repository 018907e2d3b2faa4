"""Customers over HTTP."""

import pytest

from accounts.models import Customer
from billing import clock
from billing.metering.models import UnmatchedEvent, UsageEvent
from tests.factories import bearer, event, ingest, make_api_key, make_meter

pytestmark = pytest.mark.django_db

BODY = {
    "key": "acme",
    "name": "Acme",
    "currency": "EUR",
    "timezone": "Europe/Berlin",
    "email": "ap@acme.test",
    "test_clock": None,
}


@pytest.fixture
def api(client):
    _, secret = make_api_key()

    def ask(method, path, body=None):
        content = {} if body is None else {"data": body, "content_type": "application/json"}
        return getattr(client, method)(f"/api/v1/{path}", **content, **bearer(secret))

    return ask


def refusal(response):
    body = response.json()
    return response.status_code, body["code"], [error["field"] for error in body["errors"]]


def test_a_customer_is_made_read_and_listed(api):
    made = api("post", "customers", BODY)
    assert made.status_code == 201
    assert made.json() == BODY | {"created_at": made.json()["created_at"]}
    assert api("get", "customers/acme").json() == made.json()
    assert api("get", "customers").json() == {"data": [made.json()], "next_cursor": None}


def test_the_shortest_customer_pays_in_dollars_by_utc(api):
    made = api("post", "customers", {"key": "acme", "name": "Acme"}).json()
    assert (made["currency"], made["timezone"], made["email"]) == ("USD", "UTC", "")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": "a b"}, "invalid_field"),
        ({"key": None}, "invalid_field"),
        ({"name": ""}, "invalid_field"),
        ({"name": "x" * 201}, "invalid_field"),
        ({"name": "a\ud800"}, "malformed"),
        ({"currency": "usd"}, "invalid_field"),
        ({"currency": "XXX"}, "invalid_field"),
        ({"timezone": "Mars/Base"}, "invalid_field"),
        ({"timezone": "../../etc/passwd"}, "invalid_field"),
        ({"email": "nobody"}, "invalid_field"),
        ({"test_clock": "clk_1"}, "invalid_field"),
        ({"id": 7}, "unknown_field"),
    ],
)
def test_a_wrong_customer_is_refused_by_the_name_of_the_field(api, change, code):
    fields = [] if code == "malformed" else list(change)
    assert refusal(api("post", "customers", BODY | change)) == (400, code, fields)
    assert not Customer.objects.exists()


def test_a_key_is_taken_once(api):
    api("post", "customers", BODY)
    assert refusal(api("post", "customers", BODY | {"name": "Other"})) == (409, "already_exists", ["key"])


def test_events_that_waited_for_a_customer_are_counted_when_it_is_made(api):
    make_meter()
    ingest(event("e1", tokens=3), at=clock.now())
    assert (UsageEvent.objects.count(), UnmatchedEvent.objects.count()) == (0, 1)
    api("post", "customers", BODY)
    assert (UsageEvent.objects.count(), UnmatchedEvent.objects.count()) == (1, 0)


def test_what_is_not_sent_stays(api, acme):
    changed = api("patch", "customers/acme", {"timezone": "Asia/Kathmandu"}).json()
    assert (changed["timezone"], changed["name"], changed["email"]) == ("Asia/Kathmandu", "Acme", "ap@acme.test")


@pytest.mark.parametrize("field", ["key", "currency", "created_at"])
def test_key_and_currency_stay(api, acme, field):
    assert refusal(api("patch", "customers/acme", {field: "EUR"})) == (400, "unknown_field", [field])


@pytest.mark.parametrize("key", ["nobody", "a%00b", "%F0%9F%92%A9", "a" * 400])
def test_an_unknown_customer_is_not_found(api, key):
    assert refusal(api("get", f"customers/{key}")) == (404, "not_found", [])
