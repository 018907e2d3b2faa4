"""What becomes of each item of a request."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection

from billing.metering import ingesting
from billing.metering.identity import member_digest
from billing.metering.ingesting import Ending
from billing.metering.models import EventIdentity, RefusedItems, UnmatchedEvent, UsageDelta, UsageEvent
from tests.factories import event, ingest, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
FEW, MANY = 3, 60  # either side of the bound between one statement and COPY

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def tokens(acme):
    return make_meter("tokens", dimensions=["model"])


def statuses(answer):
    return {result["index"]: result["status"] for result in answer.as_dict()["results"]}


@pytest.mark.parametrize("size", [FEW, MANY])
def test_new_events_are_stored_with_what_they_add(acme, tokens, size):
    answer = ingest(*(event(f"e{n}", tokens=n, model="large") for n in range(size)), at=AT)

    assert answer.as_dict() == {
        "accepted": size,
        "duplicate": 0,
        "conflict": 0,
        "unmatched": 0,
        "rejected": 0,
        "results": [],
    }
    assert UsageEvent.objects.filter(customer=acme).count() == EventIdentity.objects.count() == size
    deltas = UsageDelta.objects.filter(customer=acme, meters=[tokens.pk], starts_at=AT, dimensions='{"model":"large"}')
    assert sum(sum(delta.quantities) for delta in deltas) == sum(range(size))
    assert sum(sum(delta.events) for delta in deltas) == size


@pytest.mark.parametrize("filler", [0, MANY])
def test_meters_with_the_same_dimensions_are_changed_by_one_row(acme, tokens, filler):
    calls = make_meter("calls", aggregation="count", dimensions=["model"])
    seats = make_meter("seats", aggregation="unique", value="seat", dimensions=["model"])
    level = make_meter("level", aggregation="latest", dimensions=["model"])
    alone = make_meter("alone", aggregation="count", filters=[{"property": "model", "op": "exists"}])
    odd = event('a"\\{,}', source='NULL"\\', tokens="1.50", seat="NULL", level=7, model="large")

    ingest(odd, *(event(f"f{n}", "unknown") for n in range(filler)), at=AT)

    other, together = UsageDelta.objects.order_by("-dimensions")
    assert (together.meters, other.meters) == ([tokens.pk, calls.pk, seats.pk, level.pk], [alone.pk])
    assert together.quantities == [Decimal("1.5"), 1, 0, 7]
    assert together.events == [1, 1, 1, 1]
    assert (together.ranks[:3], other.ranks, other.members) == ([None, None, None], None, None)
    assert together.ranks[3].endswith('NULL"\\\x01a"\\{,}')
    assert [member and member.hex for member in together.members] == [None, None, member_digest("NULL"), None]


def test_what_is_asked_all_the_time_is_planned_once(monkeypatch):
    monkeypatch.setattr(connection.connection, "prepare_threshold", 1)

    for size in (1, FEW, 2, FEW):
        ingest(*(event(f"{size}-{n}", customer="unknown" if n else "acme") for n in range(size)), at=AT)

    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements ORDER BY statement")
        prepared = [statement.split()[0] for (statement,) in cursor.fetchall()]
    assert sorted(prepared) == ["SELECT", "SELECT", "SELECT", "WITH"]
    assert (UsageEvent.objects.count(), UnmatchedEvent.objects.count()) == (3, 3)


@pytest.mark.parametrize("size", [FEW, MANY])
def test_an_event_is_read_back_as_it_was_sent(size):
    said = {"model": "a\\b\tc\n\u2028é😀", "tokens": "1.50", "deep": {"list": [1, Decimal("0.25"), None, True]}}
    odd = event("id\\1 \u202e", source="so\\urce", properties=said, timestamp="2026-11-23T09:59:59.123456789+01:00")
    body = json.dumps([odd] + [event(f"e{n}") for n in range(size - 1)], default=float).encode()

    ingesting.ingest(body=body, content_type="application/json", api_key=None, at=AT)

    stored = UsageEvent.objects.get(event_id="id\\1 \u202e")
    assert stored.source == "so\\urce"
    assert stored.properties == said
    assert stored.occurred_at == datetime(2026, 11, 23, 8, 59, 59, 123456, tzinfo=UTC)
    assert stored.recorded_at == AT


@pytest.mark.parametrize("size", [FEW, MANY])
def test_a_repeat_is_a_duplicate_and_another_payload_a_conflict(size):
    events = [event(f"e{n}", tokens=1) for n in range(size)]
    ingest(*events, at=AT)

    answer = ingest(*events[:-1], event(f"e{size - 1}", tokens=2), event("new", tokens=5), at=AT)

    assert (answer.accepted, answer.duplicate, answer.conflict) == (1, size - 1, 1)
    assert statuses(answer)[size - 1] == "conflict"
    assert sum(sum(delta.quantities) for delta in UsageDelta.objects.all()) == size + 5


@pytest.mark.parametrize("filler", [0, MANY])
def test_inside_one_batch_the_first_wins(filler):
    batch = [event("a", tokens=1), event("a", tokens=1), event("a", tokens=2), event("b", tokens=4)]

    answer = ingest(*batch, *(event(f"f{n}") for n in range(filler)), at=AT)

    assert statuses(answer) == {1: "duplicate", 2: "conflict"}
    assert sum(sum(delta.quantities) for delta in UsageDelta.objects.all()) == 5


@pytest.mark.parametrize("filler", [0, MANY])
def test_what_is_stored_wins_over_the_first_of_a_batch(filler):
    ingest(event("a", tokens=2), at=AT)

    answer = ingest(event("a", tokens=1), event("a", tokens=2), *(event(f"f{n}") for n in range(filler)), at=AT)

    assert statuses(answer) == {0: "conflict", 1: "duplicate"}


def test_the_same_id_of_another_source_is_another_event():
    answer = ingest(event("a"), event("a", source="b"), event("A"), event("é"), event("e\u0301"), at=AT)

    assert answer.accepted == 5


def test_the_payload_is_the_same_whatever_the_order_of_keys_and_the_form_of_numbers():
    def sent(properties):
        body = b'[{"id":"a","type":"t","customer":"acme","properties":%b}]' % properties
        return ingesting.ingest(body=body, content_type="application/json", api_key=None, at=AT)

    sent(b'{"x":1.50,"y":{"b":100,"a":0}}')

    assert sent(b'{"y":{"a":-0.0,"b":1e2},"x":15E-1}').duplicate == 1
    assert sent(b'{"x":"1.5","y":{"b":100,"a":0}}').conflict == 1


def test_a_repeat_without_timestamp_is_a_duplicate_later_too():
    ingest(event("a"), at=AT)

    assert ingest(event("a"), at=AT + timedelta(hours=1)).duplicate == 1
    assert ingest(event("a", timestamp="2026-11-23T10:00:00Z"), at=AT).conflict == 1


def test_one_bad_item_spoils_no_other():
    answer = ingest(event("a"), {"id": 7}, event("b"), at=AT)

    assert (answer.accepted, answer.rejected) == (2, 1)
    assert answer.results == [
        {
            "index": 1,
            "id": None,
            "status": "rejected",
            "code": "invalid_field",
            "field": "id",
            "detail": "id: Send a string of 1 to 255 characters without control characters.",
        }
    ]


def test_refused_items_are_kept_as_a_count_with_a_sample():
    ingest({"id": "a", "source": "gw"}, {"id": "b", "source": "gw"}, event("c", tokens=-1), at=AT)

    kept = {row.code: row for row in RefusedItems.objects.all()}
    assert (kept["missing_field"].source, kept["missing_field"].items) == ("gw", 2)
    assert json.loads(kept["missing_field"].sample) == {"id": "a", "source": "gw"}
    assert (kept["invalid_value"].source, kept["invalid_value"].items) == ("default", 1)


@pytest.mark.parametrize("value", [-1, "-0.001", "x", "", True, [], {}, "NaN", "Infinity", "1e19", "0.0000000000001"])
def test_a_value_that_is_no_amount_refuses_the_item(value):
    answer = ingest(event("a", tokens=value), at=AT)

    assert [result["code"] for result in answer.results] == ["invalid_value"]
    assert not EventIdentity.objects.exists()


@pytest.mark.parametrize("value", [0, "12", "1e18", "0.000000000001", 1.5, "-0"])
def test_a_decimal_of_zero_or_more_is_counted_exactly(value):
    ingest(event("a", tokens=value), at=AT)

    assert UsageDelta.objects.get().quantities == [Decimal(str(value))]


@pytest.mark.parametrize("size", [FEW, MANY])
def test_a_number_no_meter_takes_refuses_as_a_value_and_is_stored_otherwise(size):
    bad = b'{"id": "a", "type": "llm.completion", "customer": "acme", "properties": {"tokens": 1e400}}'
    good = b'{"id": "b", "type": "llm.completion", "customer": "acme", "properties": {"other": -1e400}}'
    filler = [json.dumps(event(f"f{n}")).encode() for n in range(size)]

    answer = ingesting.ingest(
        body=b"[%b]" % b",".join([bad, good, *filler]), content_type="application/json", api_key=None, at=AT
    )

    assert [(result["index"], result["code"]) for result in answer.results] == [(0, "invalid_value")]
    assert UsageEvent.objects.get(event_id="b").properties["other"] == -(10**400)


def test_an_absent_or_null_value_feeds_nothing():
    answer = ingest(event("a"), event("b", tokens=None), at=AT)

    assert answer.accepted == 2
    assert not UsageDelta.objects.exists()


def test_a_filtered_event_is_accepted_and_its_value_not_judged(tokens):
    make_meter("ok", filters=[{"property": "status", "op": "eq", "value": "ok"}])

    assert ingest(event("a", status="failed", ok="nonsense"), at=AT).accepted == 1


def test_unmatched_events_are_stored_and_say_what_they_lack():
    answer = ingest(event("a", "nobody"), event("b", type="unheard.of"), at=AT)

    assert answer.unmatched == 2
    assert [result["reason"] for result in answer.results] == ["unknown_customer", "no_meter"]
    assert UnmatchedEvent.objects.count() == EventIdentity.objects.count() == 2
    assert ingest(event("a", "nobody"), at=AT).duplicate == 1


def test_the_authorizations_that_stored_events_name_are_told():
    sent = event("a", authorization="auth_1"), event("b", "nobody", authorization="auth_2"), event("c")
    answer = ingest(*sent, at=AT)

    assert (answer.accepted, answer.unmatched) == (2, 1)
    assert answer.endings == [Ending(0, "a", "acme", "auth_1"), Ending(1, "b", "nobody", "auth_2")]
    assert ingest(*sent, at=AT).endings == []


@pytest.mark.parametrize(
    ("timestamp", "code"),
    [
        ("2026-11-23T10:05:00Z", None),
        ("2026-11-23T10:05:00.000001Z", "timestamp_in_future"),
        ("9999-12-31T23:59:59-14:00", "timestamp_in_future"),
        ("2026-10-19T10:00:00Z", None),
        ("2026-10-19T09:59:59.999999Z", "timestamp_too_old"),
        ("0001-01-01T00:00:00+14:00", "timestamp_too_old"),
        ("2026-11-23T10:00:00", "timestamp_without_offset"),
        ("2026-11-23T23:59:00+14:00", None),
        ("2026-11-22T22:00:00-12:00", None),
        ("2026-11-23T09:59:60Z", "invalid_field"),
        ("2026-11-23T24:00:00Z", "invalid_field"),
        ("2026-11-23T10:00:00+00:60", "invalid_field"),
        ("2026-11-23T10:00:00.123456\u0667Z", "invalid_field"),  # an Arabic digit
        ("2026-11-23t10:05:00.0000009z", None),
        ("2026-11-23T10:05:00.0000009-00:00", None),
        ("2026-11-23T10:05:00.0000010+00:00", "timestamp_in_future"),
        ("2026-11-23", "invalid_field"),
        ("infinity", "invalid_field"),
        (1_763_892_000, "invalid_field"),
    ],
)
def test_timestamps(timestamp, code):
    answer = ingest(event("a", timestamp=timestamp), at=AT)

    assert [result["code"] for result in answer.results] == ([code] if code else [])


def test_backfill_takes_old_events_and_keeps_their_identities_for_ever():
    assert ingest(event("a", timestamp="2023-11-16T18:17:03Z"), at=AT, backfill=True).accepted == 1
    assert EventIdentity.objects.get().permanent
