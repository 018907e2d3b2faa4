"""Events and meters over HTTP."""

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import Scope
from billing.metering.models import UsageEvent
from tests.factories import bearer, event, fold, ingest, make_api_key, make_meter

pytestmark = pytest.mark.django_db
EVENTS = "/api/v1/events"
TOKENS = {
    "key": "input_tokens",
    "name": "Input tokens",
    "unit": "token",
    "event_type": "llm.completion",
    "aggregation": "sum",
    "value": "input_tokens",
    "dimensions": ["model", "api_key", "user"],
    "filters": [{"property": "status", "op": "in", "value": ["ok"]}],
}


@pytest.fixture
def operator():
    return bearer(make_api_key()[1])


@pytest.fixture
def send(client, acme, operator):
    """Post a body; a str or bytes goes as it is."""

    def post(body, path=EVENTS, content_type="application/json", headers=None):
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        headers = {**operator["headers"], **(headers or {})}
        return client.post(path, data, content_type=content_type, headers=headers)

    return post


def test_one_event_a_list_and_an_array_are_the_same(send):
    make_meter()
    for number, body in enumerate([event("a"), {"events": [event("b")]}, [event("c")]], start=1):
        answer = send(body)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
        assert UsageEvent.objects.count() == number


def test_cloudevents_are_taken_with_their_extensions(send, client, operator):
    make_meter("tokens", event_type="ai.call")
    cloud = {
        "specversion": "1.0",
        "id": "c1",
        "source": "/gateway",
        "type": "ai.call",
        "subject": "acme",
        "time": "2026-11-23T10:00:00Z",
        "datacontenttype": "application/json",
        "traceparent": "00-ab",
        "data": {"tokens": "1.5", "share": 0.25},
    }
    one = send(cloud, f"{EVENTS}?backfill=true", "application/cloudevents+json")
    more = send([cloud, cloud | {"id": "c2"}], f"{EVENTS}?backfill=true", "application/cloudevents-batch+json")

    assert (one.json()["accepted"], more.json()["accepted"], more.json()["duplicate"]) == (1, 1, 1)
    stored = client.get(f"{EVENTS}?customer=acme&limit=1&type=ai.call", **operator)
    assert json.loads(stored.content)["data"][0]["properties"] == {"tokens": "1.5", "share": 0.25}
    assert stored.json()["data"][0]["extensions"] == {"traceparent": "00-ab"}
    assert stored.json()["next_cursor"]


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"specversion": "0.3"}, "invalid_field", "specversion"),
        ({"specversion": None}, "missing_field", "specversion"),
        ({"subject": None}, "missing_field", "subject"),
        ({"time": 5}, "invalid_field", "time"),
        ({"data": "text"}, "invalid_field", "data"),
        ({"data_base64": "AA=="}, "unknown_field", "data_base64"),
        ({"extra": {"no": "object"}}, "invalid_field", "extra"),
        ({"datacontenttype": "text/xml"}, "invalid_field", "datacontenttype"),
    ],
)
def test_what_is_wrong_with_a_cloudevent_is_named_by_its_own_words(send, change, code, field):
    cloud = {"specversion": "1.0", "id": "c1", "source": "/gateway", "type": "ai.call", "subject": "acme"}
    (result,) = send(cloud | change, content_type="application/cloudevents+json").json()["results"]

    assert (result["id"], result["code"], result["field"]) == ("c1", code, field)


@pytest.mark.parametrize("content_type", ["application/json", "application/cloudevents+json"])
def test_a_field_whose_name_cannot_be_stored_spoils_no_other_item(send, content_type):
    good = {"id": "good", "source": "s", "type": "ai.call"}
    good |= {"specversion": "1.0", "subject": "acme"} if "cloud" in content_type else {"customer": "acme"}
    answer = send([good | {"id": "bad", "\0": 1}, good], content_type=content_type).json()

    assert (answer["rejected"], answer["results"][0]["code"]) == (1, "unknown_field")
    assert answer["accepted"] + answer["unmatched"] == 1


def test_a_gzip_body_is_taken(send):
    body = gzip.compress(json.dumps([event(f"e{n}") for n in range(500)]).encode())

    assert send(body, headers={"Content-Encoding": "gzip"}).json()["unmatched"] == 500


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b" ", {}, 400, "malformed"),
        (b"{", {}, 400, "malformed"),
        (b"5", {}, 400, "malformed"),
        (b"[NaN]", {}, 400, "malformed"),
        (b'[{"id": "\xff"}]', {}, 400, "malformed"),
        (b'{"events": {}}', {}, 400, "malformed"),
        (b'{"events": [], "more": 1}', {}, 400, "unknown_field"),
        (b"[" * 40 + b"]" * 40, {}, 400, "malformed"),
        (b"[" * 1_000_000, {}, 400, "malformed"),
        (b'{"id": "a", "properties": ' + b'{"a":' * 32 + b"1" + b"}" * 33, {}, 400, "malformed"),
        (b"[" + b"1," * 1000 + b"1]", {}, 413, "too_many_events"),
        (b" " * (5 * 1024 * 1024) + b"[]", {}, 413, "too_large"),
        (gzip.compress(bytes(6_000_000)), {"Content-Encoding": "gzip"}, 413, "too_large"),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400, "malformed"),
        (gzip.compress(b"[]")[:-4], {"Content-Encoding": "gzip"}, 400, "malformed"),
        (b"[]", {"Content-Encoding": "br"}, 415, "unsupported_media_type"),
        (b"[]", {"Transfer-Encoding": "chunked"}, 411, "length_required"),
    ],
)
def test_a_body_that_cannot_be_read_stores_nothing(send, body, headers, status, code):
    answer = send(body, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_another_content_type_is_refused_with_the_remedy(send):
    answer = send(b"id=1", content_type="application/x-www-form-urlencoded")

    assert (answer.status_code, answer.json()["detail"]) == (415, "Send Content-Type: application/json.")


def test_an_empty_list_is_answered(send):
    assert send([]).json() == {
        "accepted": 0,
        "duplicate": 0,
        "conflict": 0,
        "unmatched": 0,
        "rejected": 0,
        "results": [],
    }


def test_events_need_their_scope_and_backfill_another(client, acme):
    writer = bearer(make_api_key(Scope.EVENTS_WRITE)[1])
    reader = bearer(make_api_key(Scope.BILLING_READ)[1])
    own = bearer(make_api_key(customer=acme)[1])

    def status(path, key):
        return client.post(path, "[]", content_type="application/json", **key).status_code

    assert status(EVENTS, {}) == 401
    assert status(EVENTS, reader) == status(EVENTS, own) == 403
    assert status(EVENTS, writer) == 200
    assert status(f"{EVENTS}?backfill=true", writer) == 403
    assert status(f"{EVENTS}?backfill=maybe", writer) == 400


def test_a_customers_key_sees_its_own_events_only(client, acme, globex):
    make_meter()
    at = datetime.now(UTC)
    ingest(event("a", tokens=1), event("b", "globex", tokens=1), at=at)
    own = bearer(make_api_key(customer=acme)[1])

    assert [row["id"] for row in client.get(EVENTS, **own).json()["data"]] == ["a"]
    assert client.get(f"{EVENTS}?customer=globex", **own).status_code == 404
    assert client.get("/api/v1/unmatched", **own).status_code == 403
    assert client.get("/api/v1/refused", **own).status_code == 403


def test_events_are_listed_by_time_and_type_page_by_page(client, operator, acme):
    make_meter()
    make_meter("calls", event_type="other", aggregation="count")
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    stamps = [at - n * timedelta(minutes=1) for n in range(5)]
    ingest(*(event(f"e{n}", timestamp=stamp.isoformat()) for n, stamp in enumerate(stamps)), at=at)
    ingest(event("x", type="other"), at=at)
    url = f"{EVENTS}?customer=acme&type=llm.completion&from=2026-11-23T09:57:00Z&to=2026-11-23T10:00:00Z&limit=2"

    page = client.get(url, **operator).json()
    rest = client.get(f"{url}&cursor={page['next_cursor']}", **operator).json()

    assert [row["id"] for row in page["data"] + rest["data"]] == ["e1", "e2", "e3"]
    assert rest["next_cursor"] is None
    assert client.get(EVENTS, **operator).json()["code"] == "missing_field"


def test_unmatched_and_refused_are_listed(send, client, operator):
    send([event("a", "nobody", tokens=1.5), {"id": "b"}, {"id": "c"}])
    send([{"id": "d"}])

    (lost,) = client.get("/api/v1/unmatched?reason=unknown_customer", **operator).json()["data"]
    (refused,) = client.get("/api/v1/refused", **operator).json()["data"]

    assert (lost["customer"], lost["id"], lost["properties"]) == ("nobody", "a", {"tokens": 1.5})
    assert (refused["code"], refused["count"], json.loads(refused["sample"])) == ("missing_field", 3, {"id": "d"})


def test_a_meter_is_made_read_listed_and_renamed(send, client, operator):
    made = send(TOKENS, "/api/v1/meters")

    assert made.status_code == 201
    assert made.json() == TOKENS | {"created_at": made.json()["created_at"], "backfill": None}
    assert client.get("/api/v1/meters", **operator).json()["data"] == [made.json()]
    changed = client.patch("/api/v1/meters/input_tokens", {"name": "In"}, content_type="application/json", **operator)
    assert changed.json() == made.json() | {"name": "In"}
    assert send(TOKENS, "/api/v1/meters").json()["code"] == "already_exists"
    assert client.get("/api/v1/meters/other", **operator).status_code == 404
    assert client.get("/api/v1/meters/%00", **operator).status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key": "a b"}, "key"),
        ({"aggregation": "median"}, "aggregation"),
        ({"value": None}, "value"),
        ({"aggregation": "count"}, "value"),
        ({"dimensions": ["a", "a"]}, "dimensions"),
        ({"dimensions": ["model", "group_by"]}, "dimensions"),
        ({"filters": [{"property": "a", "op": "like", "value": "x"}]}, "filters.0.op"),
        ({"filters": [{"property": "a", "op": "in", "value": "x"}]}, "filters"),
        ({"filters": [{"property": "a", "op": "gt", "value": "x"}]}, "filters"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_meter_that_makes_no_sense_is_refused_by_field(send, change, field):
    answer = send(TOKENS | change, "/api/v1/meters")

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_what_gives_counted_events_their_meaning_is_frozen(client, operator, acme):
    make_meter("tokens", dimensions=["model"])
    at = datetime.now(UTC)

    def change(**fields):
        return client.patch("/api/v1/meters/tokens", fields, content_type="application/json", **operator)

    assert change(value="total").status_code == 200
    assert change(value="tokens").status_code == 200
    ingest(event("a", tokens=1), at=at)
    assert change(value="total").json()["code"] == "frozen"
    fold(acme, at=at)
    for fields in ({"aggregation": "count", "value": None}, {"event_type": "x"}, {"filters": []}):
        answer = change(**fields)
        expected = 200 if fields == {"filters": []} else 409  # no filters is what it has
        assert answer.status_code == expected, fields
    assert change(unit="tok", name="T").status_code == 200
