"""Usage minute by minute, for two days: the same events as in the quarter hours."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts.models import Customer, TestClock
from billing.metering import minutes, queries, services
from billing.metering.correcting import amend_event, void_event
from billing.metering.counter_models import MinuteMember, UsageMinute
from billing.periods import quarter_floor
from tests.factories import event, fold, ingest, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def used(customer, meter, *, start=AT - HOUR, end=AT + HOUR):
    """minutes since AT -> quantity, and the total"""
    found = minutes.series(customer, meter, starts_at=start, ends_at=end)
    return {(at - AT) // MINUTE: quantity for at, quantity in found.quantities.items()}, found.total


@pytest.fixture
def tokens(acme):
    return make_meter("tokens", dimensions=["model"])


def send(customer, *events, at=AT):
    ingest(*events, at=at)
    fold(customer, at=at)


def at_minute(event_id, minute, seconds=0, **fields):
    return event(event_id, timestamp=AT + minute * MINUTE + timedelta(seconds=seconds), **fields)


def test_each_minute_has_its_own_of_all_dimensions(acme, tokens):
    send(
        acme, at_minute("a", 0, 0, tokens=1, model="m"), at_minute("b", 0, 59.9, tokens=2), at_minute("c", 1, tokens=4)
    )
    send(acme, at_minute("d", 1, tokens=8, model="m"), at_minute("e", -1, tokens=16))

    assert used(acme, tokens) == ({-1: 16, 0: 3, 1: 12}, 31)
    assert used(acme, tokens, start=AT, end=AT + MINUTE) == ({0: 3}, 3)


def test_corrections_reach_the_minute(acme, tokens):
    send(acme, at_minute("a", 0, tokens=1), at_minute("b", 0, tokens=2), at_minute("c", 1, tokens=4))
    void_event(source="default", event_id="c", at=AT)
    amend_event(source="default", event_id="a", properties={"tokens": 5}, at=AT)
    fold(acme, at=AT)

    assert used(acme, tokens) == ({0: 7}, 7)


def test_what_decides_in_a_minute_is_found_again(acme):
    peak = make_meter("peak", aggregation="max", value="tokens", dimensions=["model"])
    last = make_meter("last", aggregation="latest", value="tokens")
    send(acme, at_minute("a", 0, 1, tokens=5), at_minute("b", 0, 2, tokens=9, model="m"), at_minute("c", 1, tokens=7))
    assert used(acme, peak) == ({0: 9, 1: 7}, 9)
    assert used(acme, last) == ({0: 9, 1: 7}, 7)

    void_event(source="default", event_id="b", at=AT)
    void_event(source="default", event_id="c", at=AT)
    fold(acme, at=AT)

    assert used(acme, peak) == ({0: 5}, 5)
    assert used(acme, last) == ({0: 5}, 5)


def test_different_values_are_counted_once_a_minute_and_once_in_all(acme):
    people = make_meter("people", aggregation="unique", value="person", dimensions=["model"])
    send(acme, at_minute("a", 0, person="x"), at_minute("b", 0, person="x", model="m"), at_minute("c", 1, person="x"))
    send(acme, at_minute("d", 1, person="y"))
    assert used(acme, people) == ({0: 1, 1: 2}, 2)

    void_event(source="default", event_id="d", at=AT)
    fold(acme, at=AT)
    assert used(acme, people) == ({0: 1, 1: 1}, 1)


def test_a_meter_that_comes_later_has_the_minutes_of_stored_events(acme, tokens):
    old = at_minute("old", -60 * 50, tokens=1)
    send(acme, old, at_minute("a", 0, tokens=1), at_minute("b", 2, tokens=2))
    later = services.create_meter(key="later", event_type="llm.completion", aggregation="sum", value="tokens", at=AT)
    while services.backfill(at=AT):
        pass
    fold(acme, at=AT)

    assert used(acme, later, start=AT - 72 * HOUR) == ({0: 1, 2: 2}, 3)


def test_late_events_are_counted_in_minutes_for_two_days(acme, tokens):
    send(acme, at_minute("a", 0, tokens=1), at=AT + 48 * HOUR)
    send(acme, at_minute("b", 0, tokens=2), at=AT + 50 * HOUR)

    assert used(acme, tokens) == ({0: 1}, 1)


def test_old_minutes_are_forgotten_and_the_counters_stay(acme, tokens):
    people = make_meter("people", aggregation="unique", value="tokens")
    send(acme, at_minute("a", 0, tokens=1))
    send(acme, at_minute("b", 60, tokens=2), at=AT + HOUR)

    services.purge_minutes(at=AT + 49 * HOUR + MINUTE)

    assert set(UsageMinute.objects.values_list("starts_at", flat=True)) == {AT + HOUR}
    assert set(MinuteMember.objects.values_list("starts_at", flat=True)) == {AT + HOUR}
    [total] = queries.totals(acme, starts_at=AT, ends_at=AT + 2 * HOUR, meter_ids=[tokens.pk])
    assert total.quantity == 3
    assert people


def test_minutes_of_a_sandbox_are_forgotten_by_its_own_clock(db, tokens):
    clock = TestClock.objects.create(now=AT)
    sandbox = Customer.objects.create(key="sandbox", name="Sandbox", test_clock=clock)
    ingest(at_minute("a", 0, tokens=1, customer="sandbox"), at=AT)
    fold(sandbox, at=AT)

    services.purge_minutes(at=AT + 400 * 24 * HOUR)
    assert used(sandbox, tokens) == ({0: 1}, 1)

    TestClock.objects.update(now=AT + 50 * HOUR)
    services.purge_minutes(at=AT + 400 * 24 * HOUR)
    assert used(sandbox, tokens) == ({}, 0)


class AnyOrder(TestCase):
    """However events come and are taken back, the minutes of a quarter hour add up to it."""

    @hypothesis(max_examples=40)
    @given(st.lists(st.tuples(st.integers(0, 44), st.sampled_from(["send", "void", "fold"])), max_size=15))
    def test_minutes_add_up(self, steps):
        with transaction.atomic():
            customer = Customer.objects.create(key="c", name="C")
            tokens = make_meter("tokens", dimensions=["model"])
            sent: dict[str, int] = {}
            for number, (minute, step) in enumerate(steps):
                if step == "send":
                    sent[f"e{number}"] = 1 + number
                    ingest(
                        at_minute(f"e{number}", minute, tokens=1 + number, customer="c", model=f"m{minute % 2}"),
                        at=AT + HOUR,
                    )
                elif step == "void" and sent:
                    void_event(source="default", event_id=sent.popitem()[0], at=AT + HOUR)
                else:
                    fold(customer, at=AT + HOUR)
            fold(customer, at=AT + HOUR)

            quarters: dict[datetime, int] = defaultdict(int)
            for at, quantity in minutes.series(customer, tokens, starts_at=AT, ends_at=AT + HOUR).quantities.items():
                quarters[quarter_floor(at)] += quantity
            edges = [AT + timedelta(minutes=15) * number for number in range(5)]
            series = queries.series_totals(customer, edges=edges, meter_ids=[tokens.pk])
            counted = {edge: sum(one.quantity for one in row) for edge, row in zip(edges, series, strict=False) if row}
            assert quarters == counted
            transaction.set_rollback(True)
