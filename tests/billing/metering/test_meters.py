"""Meters take effect at once, and what waited for them is counted once."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from accounts.models import Customer
from billing.metering import counting, services
from billing.metering.models import UnmatchedEvent, UsageDelta, UsageEvent
from tests.factories import event, ingest, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
CALLS = {"key": "calls", "event_type": "llm.completion", "aggregation": "count"}


@pytest.mark.django_db
class TestReplay:
    def test_a_new_meter_counts_what_waited_for_it(self, acme):
        ingest(event("a"), event("b"), event("c", type="other"), at=AT)

        meter = services.create_meter(**CALLS, at=LATER)

        assert [(delta.meters, delta.events) for delta in UsageDelta.objects.all()] == [([meter.pk], [2])]
        assert [one.recorded_at for one in UsageEvent.objects.all()] == [AT, AT]
        assert [one.event_id for one in UnmatchedEvent.objects.all()] == ["c"]
        assert services.replay_unmatched(at=LATER) == 0
        assert ingest(event("a"), at=LATER).duplicate == 1

    def test_a_new_customer_gets_what_waited_for_it(self, acme):
        services.create_meter(**CALLS, at=AT)
        ingest(event("a", "globex"), event("b", "globex", type="other"), at=AT)
        Customer.objects.create(key="globex", name="Globex")

        assert services.replay_unmatched(customer_keys=["globex"], at=LATER) == 1

        assert UsageEvent.objects.get().customer.key == "globex"
        assert [one.reason for one in UnmatchedEvent.objects.all()] == ["no_meter"]

    def test_the_sweeper_finds_what_nobody_replayed(self, acme):
        ingest(event("a"), event("b", "nobody"), at=AT)
        make_meter()  # behind the service's back

        assert services.replay_unmatched(at=LATER) == 1
        assert services.replay_unmatched(at=LATER) == 0

    def test_a_value_that_the_new_meter_cannot_take_stays_visible(self, acme):
        ingest(event("a", tokens="many"), event("b", tokens=2), at=AT)

        services.create_meter(key="t", event_type="llm.completion", aggregation="sum", value="tokens", at=LATER)

        assert UsageDelta.objects.get().quantities == [2]
        assert [(one.event_id, one.reason) for one in UnmatchedEvent.objects.all()] == [("a", "invalid_value")]
        assert services.replay_unmatched(at=LATER) == 0

    def test_replayed_events_keep_every_digit(self, acme):
        ingest(event("a", tokens=Decimal("0.123456789012")), at=AT)

        services.create_meter(key="t", event_type="llm.completion", aggregation="sum", value="tokens", at=LATER)

        assert UsageDelta.objects.get().quantities == [Decimal("0.123456789012")]


SAID = {"status": "ok", "code": 200, "ratio": Decimal("0.5"), "big": "1e3", "flag": True, "deep": {"a": {"b": 7}}}


@pytest.mark.parametrize(
    ("property_", "op", "value", "holds"),
    [
        ("status", "eq", "ok", True),
        ("status", "ne", "ok", False),
        ("missing", "eq", "ok", False),
        ("missing", "ne", "ok", True),
        ("code", "eq", 200, True),
        ("code", "in", ["200"], True),
        ("flag", "eq", True, True),
        ("flag", "eq", 1, False),
        ("code", "in", [200, 201], True),
        ("code", "nin", [200, 201], False),
        ("missing", "nin", ["x"], True),
        ("deep.a.b", "gte", 7, True),
        ("deep.a.c", "gte", 7, False),
        ("status.x", "exists", True, False),
        ("deep.a", "exists", True, True),
        ("missing", "exists", False, True),
        ("ratio", "lt", "0.5", False),
        ("ratio", "lte", "0.5", True),
        ("big", "gt", 999, True),
        ("status", "gt", 0, False),
    ],
)
def test_filters(property_, op, value, holds):
    filter_ = {"property": property_, "op": op, "value": value}

    assert counting.problem(filter_) is None
    assert counting.compiled(**filter_)(SAID) is holds


def test_a_path_is_taken_apart_unless_a_property_has_its_very_name():
    assert counting.lookup({"a": {"b": 1}}, "a.b") == 1
    assert counting.lookup({"a": {"b": 1}, "a.b": 2}, "a.b") == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (5, "5"),
        (Decimal("1.5"), "1.5"),
        (True, "true"),
        (None, None),
        ({"b": 1, "a": []}, '{"a":[],"b":1}'),
    ],
)
def test_dimension_values_are_text(value, text):
    assert counting.text_of(value) == text
