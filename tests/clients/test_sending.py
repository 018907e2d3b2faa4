"""What the client sends, when, and what it does with each answer."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from threading import Thread
from uuid import UUID

import pytest
from headroom_client import Client
from headroom_client.sending import STATUSES

from tests.clients import fake
from tests.clients.conftest import record

LONG = 20.0


def test_an_event_arrives_by_itself(server, connect):
    client = connect()
    event_id = client.record(type="search.query", customer="acme", properties={"engine": "web"})

    deadline = time.monotonic() + LONG
    while event_id not in server.stored and time.monotonic() < deadline:
        time.sleep(0.01)

    event = server.stored[event_id]
    assert (event["type"], event["customer"], event["source"]) == ("search.query", "acme", "default")
    assert event["properties"] == {"engine": "web"}
    assert datetime.fromisoformat(event["timestamp"]).utcoffset() == timedelta(0)
    assert UUID(event_id).version == 4


def test_a_request_is_compressed_and_carries_the_key(server, connect):
    record(client := connect(), "a")

    assert client.flush(LONG)
    [request] = server.requests
    assert request.path == "/api/v1/events"
    assert request.headers["Authorization"] == "Bearer hr_key"
    assert request.headers["Content-Encoding"] == "gzip"
    assert request.headers["Content-Type"] == "application/json"


def test_batches_are_full_by_count_and_a_flush_sends_the_rest(server, connect):
    client = connect(max_events=3, max_age=60)
    record(client, *"abcdefg")

    assert client.flush(LONG)
    assert [event_id for ids in server.sent for event_id in ids] == [*"abcdefg"]
    assert max(map(len, server.sent)) == 3


def test_batches_are_full_by_bytes(server, connect):
    client = connect(max_bytes=1_000, max_age=60)
    record(client, *"abcdefgh", text="x" * 300)

    assert client.flush(LONG)
    assert [event_id for ids in server.sent for event_id in ids] == [*"abcdefgh"]
    assert max(map(len, server.sent)) == 2


def test_numbers_instants_and_ids_of_your_own_are_kept(server, connect):
    client = connect(source="gateway-1")
    berlin = timezone(timedelta(hours=1))
    client.record(
        id="a",
        type="t",
        customer="acme",
        timestamp=datetime(2026, 11, 23, 11, 0, tzinfo=berlin),
        properties={"cost": Decimal("1E+3"), "exact": Decimal("0.10"), "at": datetime(2026, 1, 1, tzinfo=UTC)},
        authorization="auth_1",
    )
    client.record(id="b", type="t", customer="acme", source="elsewhere", timestamp="2026-11-23T10:00:00Z")

    assert client.flush(LONG)
    assert server.stored["a"] == {
        "id": "a",
        "source": "gateway-1",
        "type": "t",
        "customer": "acme",
        "timestamp": "2026-11-23T11:00:00+01:00",
        "properties": {"cost": "1000", "exact": "0.10", "at": "2026-01-01T00:00:00+00:00"},
        "authorization": "auth_1",
    }
    assert (server.stored["b"]["source"], server.stored["b"]["timestamp"]) == ("elsewhere", "2026-11-23T10:00:00Z")


def test_properties_are_taken_as_they_are_at_the_call(server, connect):
    client = connect(max_age=60)
    properties = {"tokens": 1}
    client.record(id="a", type="t", customer="acme", properties=properties)
    properties["tokens"] = 2

    assert client.flush(LONG)
    assert server.stored["a"]["properties"] == {"tokens": 1}


LOOP: dict[str, object] = {}
LOOP["self"] = LOOP


@pytest.mark.parametrize(
    "value",
    [object(), float("nan"), float("inf"), {1, 2}, b"x", LOOP, pytest.param(10**5000, id="5,000 digits")],
)
def test_what_is_no_json_is_dropped_and_said_and_harms_nothing(server, connect, rejections, value):
    client = connect()
    record(client, "bad", value=value)
    record(client, "good")

    assert client.flush(LONG)
    assert list(server.stored) == ["good"]
    [rejection] = rejections
    assert (rejection.status, rejection.code, rejection.event["id"]) == ("dropped", "not_json", "bad")
    assert client.stats().dropped == 1


def test_a_lone_surrogate_reaches_the_server_as_json(server, connect):
    record(client := connect(), "a", text="\ud800 ü")

    assert client.flush(LONG)
    assert server.stored["a"]["properties"] == {"text": "\ud800 ü"}


# --- failures that pass -------------------------------------------------------------------------------------------


def test_a_busy_server_gets_the_same_events_in_order_no_sooner_than_it_asked(server, connect):
    server.faults = [fake.busy_for_a_second, fake.busy_for_a_second]
    client = connect(max_events=2, max_age=60)
    record(client, *"abcd")

    assert client.flush(LONG)
    assert server.sent == [["a", "b"], ["a", "b"], ["a", "b"], ["c", "d"]]
    first, second, third, _ = [request.at for request in server.requests]
    assert second - first >= 1
    assert third - second >= 1
    assert client.stats().accepted == 4


def test_a_lost_answer_leads_to_duplicates_and_to_nothing_doubled(server, connect):
    server.faults = [fake.cut_after_storing]
    client = connect(max_events=2)
    record(client, *"ab")

    assert client.flush(LONG)
    assert server.sent == [["a", "b"], ["a", "b"]]
    assert (client.stats().accepted, client.stats().duplicate) == (0, 2)


def test_a_server_that_hangs_is_asked_again(server, connect):
    server.faults = [fake.hang]
    client = connect(timeout=0.3)
    record(client, "a")

    assert client.flush(LONG)
    assert server.sent == [["a"], ["a"]]


NO_ANSWERS = {
    "another's page": fake.answer(200, b"<h1>Sign in to the airport</h1>"),
    "another's JSON": fake.answer(200, b"[]", "application/json"),
    "for no event": fake.answer(200, json.dumps({**dict.fromkeys(STATUSES, 0), "results": []}).encode()),
    "redirect": fake.answer(302, b"", Location="/elsewhere"),
    "400 of a proxy": fake.answer(400, b"<h1>Bad Request (400)</h1>"),
    "401": fake.answer(401, b'{"code": "unauthenticated", "detail": "No such key."}', "application/problem+json"),
    "403": fake.answer(403, b"no"),
    "404": fake.answer(404, b"no"),
    "429 until then": fake.answer(429, b"", Retry_After="Mon, 23 Nov 2026 10:00:00 GMT"),
    "502 until soon": fake.answer(502, b"no", Retry_After="soon"),
}


@pytest.mark.parametrize("fault", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_about_the_events_loses_none(server, connect, rejections, fault):
    server.faults = [fault]
    record(client := connect(), "a")

    assert client.flush(LONG)
    assert server.sent == [["a"], ["a"]]
    assert list(server.stored) == ["a"]
    assert rejections == []


# --- events that are refused --------------------------------------------------------------------------------------


def test_a_refused_event_is_told_once_and_never_sent_again(server, connect, rejections):
    server.refuse = lambda event: event["id"] == "b"
    client = connect(max_events=3)
    record(client, *"abc")

    assert client.flush(LONG)
    assert server.sent == [["a", "b", "c"]]
    [rejection] = rejections
    assert (rejection.status, rejection.code, rejection.detail) == ("rejected", "invalid_value", "No number.")
    assert rejection.event["id"] == "b"
    assert (client.stats().accepted, client.stats().rejected) == (2, 1)


def test_a_conflict_is_told(server, connect, rejections):
    client = connect()
    record(client, "a", tokens=1)
    record(client, "a", tokens=2)

    assert client.flush(LONG)
    assert [(rejection.status, rejection.event["properties"]) for rejection in rejections] == [
        ("conflict", {"tokens": 2})
    ]


def test_a_callback_that_fails_stops_nothing(server, connect):
    def fail(rejection: object) -> None:
        raise RuntimeError("mine")

    server.refuse = lambda event: event["id"] == "a"
    client = connect(on_rejected=fail, max_events=1)
    record(client, "a", "b")

    assert client.flush(LONG)
    assert list(server.stored) == ["b"]


def test_a_body_that_is_too_large_for_a_proxy_is_halved(server, connect, rejections):
    server.always = fake.at_most(2)
    client = connect(max_events=7, max_age=60)
    record(client, *"abcdefg")

    assert client.flush(LONG)
    assert list(server.stored) == [*"abcdefg"]
    assert rejections == []
    assert client.stats().accepted == 7


def test_an_event_that_spoils_its_body_is_found_and_refused_alone(server, connect, rejections):
    server.always = fake.poisoned_by("d")
    client = connect(max_events=7, max_age=60)
    record(client, *"abcdefg")

    assert client.flush(LONG)
    assert list(server.stored) == [*"abcefg"]
    assert [(rejection.code, rejection.event["id"]) for rejection in rejections] == [("malformed", "d")]


# --- limits, threads, the end -------------------------------------------------------------------------------------


def test_memory_is_bounded_and_what_does_not_fit_is_dropped_and_said(server, connect, rejections):
    server.always = fake.busy_for_a_second
    client = connect(memory_bytes=3_000)
    record(client, *map(str, range(100)))

    dropped = [rejection.event["id"] for rejection in rejections]
    assert {rejection.code for rejection in rejections} == {"queue_full"}
    assert client.stats().pending == client.stats().recorded == 100 - len(dropped)

    server.always = None
    assert client.flush(LONG)
    assert sorted([*server.stored, *dropped], key=int) == [*map(str, range(100))]


def test_an_event_larger_than_a_batch_is_dropped(server, connect, rejections):
    record(client := connect(max_bytes=1_000), "a", text="x" * 1_000)
    record(client, "b")

    assert client.flush(LONG)
    assert [rejection.code for rejection in rejections] == ["too_large"]
    assert list(server.stored) == ["b"]


def test_threads_share_a_client(server, connect, tmp_path):
    client = connect(spool=tmp_path, max_events=50, max_age=0.01)
    threads = [
        Thread(target=record, args=(client, *(f"{thread}-{number}" for number in range(200)))) for thread in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert client.flush(LONG)
    sent = [event_id for ids in server.sent for event_id in ids]
    assert len(sent) == len(set(sent)) == len(server.stored) == 1600
    assert client.stats().accepted == 1600


def test_closing_sends_what_is_left_and_later_events_are_dropped(server, rejections):
    with Client(server.url, "hr_key", max_age=60, proxies={}, on_rejected=rejections.append) as client:
        record(client, "a", "b")

    assert server.sent == [["a", "b"]]
    record(client, "c")
    assert [rejection.code for rejection in rejections] == ["closed"]
    assert client.close()


def test_closing_wakes_a_client_that_waits_for_its_next_attempt(server, connect):
    server.faults = [fake.unavailable] * 3
    record(client := connect(), "a")
    while len(server.sent) < 3:
        time.sleep(0.01)

    assert client.close(timeout=LONG)
    assert list(server.stored) == ["a"]


def test_closing_without_a_server_says_what_is_lost(server, connect, caplog):
    server.always = fake.hang
    record(client := connect(max_age=0), "a", "b")

    assert not client.close(timeout=0.2)
    assert "2 events not answered: 0 wait on disk, 2 are lost" in caplog.text


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"url": "billing.example.com"}, "url"),
        ({"url": "ftp://billing.example.com"}, "url"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": "hr_1\nX: y"}, "api_key"),
        ({"max_events": 0}, "max_events"),
        ({"max_events": 1001}, "max_events"),
    ],
)
def test_settings_that_cannot_work_are_said_at_once(settings, field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        Client(**{"url": "http://127.0.0.1", "api_key": "hr_key"} | settings)
