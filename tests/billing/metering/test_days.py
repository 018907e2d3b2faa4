"""Days hold the quarter hours that have ended. Answers are the same before and after, whatever comes late."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction

from accounts.models import Customer
from billing.cycle.verify import differences
from billing.metering import queries, services, uniques
from billing.metering.ahead import read_series_ahead
from billing.metering.counter_models import DayMember, UsageDay
from billing.metering.models import Watermark
from billing.reads import shared
from tests.billing.metering.test_concurrency import at_once
from tests.billing.metering.test_corrections import amend, void
from tests.factories import event, fold, ingest, make_meter

TODAY = datetime(2026, 11, 23, tzinfo=UTC)
AT = TODAY.replace(hour=10)
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
DAYS = [TODAY + n * DAY for n in range(-2, 4)]
HALVES = sorted({*DAYS, *(day - DAY / 2 for day in DAYS[1:])})  # no range is a whole day
KINDS = {"tokens": "sum", "calls": "count", "most": "max", "last": "latest", "users": "unique"}


@pytest.fixture
def meters():
    return {
        key: make_meter(key, aggregation=kind, value="" if kind == "count" else "tokens", dimensions=["model"])
        for key, kind in KINDS.items()
    }


def said(customer, meters, edges):
    """By day: meter -> quantity and events; and how many members each day has, and has that no earlier one had."""
    ids = {meter.pk: key for key, meter in meters.items()}
    series = queries.series_totals(customer, edges=edges, meter_ids=list(ids))
    sets = {one.set_id: 0 for totals in series for one in totals if ids[one.meter_id] == "users"}
    pk = meters["users"].pk
    asked = [uniques.Asked(pk, 0, len(edges) - 1, sets)]
    new = uniques.newcomers(customer, edges=edges, asked=asked)[0]
    found = [{ids[one.meter_id]: (one.quantity, one.events) for one in totals} for totals in series]
    return found, uniques.distinct(customer, edges=edges, meter_id=pk, labels=sets), new


def read_ahead(customer, meters, edges):
    with shared():
        read_series_ahead([(customer.pk, edges)])
        return queries.series_totals(customer, edges=edges, meter_ids=[one.pk for one in meters.values()])


def agrees(customer, meters):
    """What days say is what their halves say, which are read from buckets; and what is read for many is the same."""
    ids = [one.pk for one in meters.values()]
    days = queries.series_totals(customer, edges=DAYS, meter_ids=ids)
    halves = queries.series_totals(customer, edges=HALVES, meter_ids=ids)
    events = [sum(one.events for one in totals) for totals in days]
    assert events == [sum(one.events for half in halves[n : n + 2] for one in half) for n in range(0, len(halves), 2)]
    for edges in (DAYS, HALVES):
        assert read_ahead(customer, meters, edges) == queries.series_totals(customer, edges=edges, meter_ids=ids)
    assert list(differences(customer)) == []


def summed_up():
    return sorted({*UsageDay.objects.values_list("day", flat=True), *DayMember.objects.values_list("day", flat=True)})


def test_whoever_sends_nothing_any_more_is_answered_from_buckets(acme, meters):
    ingest(event("a", tokens=3), event("b", tokens=5), at=AT)
    fold(acme, at=AT)

    found, members, new = said(acme, meters, DAYS)
    assert summed_up() == []
    assert found[2] == {"tokens": (8, 2), "calls": (2, 2), "most": (5, 2), "last": (5, 2), "users": (0, 2)}
    assert [found[n] for n in (0, 1, 3, 4)] == [{}, {}, {}, {}]
    assert (members, new) == ([{}, {}, {0: 2}, {}, {}], [{}, {}, {0: 2}, {}, {}])
    agrees(acme, meters)


@pytest.mark.parametrize("later", [QUARTER, DAY, 3 * DAY])
def test_a_day_says_the_same_once_it_is_summed_up(acme, meters, later):
    ingest(event("y", tokens=3, timestamp=AT - DAY), event("a", tokens=3), event("b", tokens=5), at=AT)
    fold(acme, at=AT)
    before = said(acme, meters, DAYS)
    assert summed_up() == [(TODAY - DAY).date()]  # that one came late

    for _ in range(2):
        fold(acme, at=AT + later)

        assert summed_up() == [(TODAY - DAY).date(), TODAY.date()]
        assert said(acme, meters, DAYS) == before
    agrees(acme, meters)


def test_a_day_grows_by_the_quarter_hours_that_end(acme, meters):
    def stored():
        return list(UsageDay.objects.filter(meter__key="tokens").values_list("quantity", "events"))

    for number in range(3):
        at = AT + number * QUARTER
        ingest(event(str(number), tokens=2**number, timestamp=at), at=at)
        fold(acme, at=at)
        assert stored() == [(2**number - 1, number)] * (number > 0)
        assert said(acme, meters, DAYS)[0][2]["tokens"] == (2 ** (number + 1) - 1, number + 1)
    agrees(acme, meters)


@pytest.mark.parametrize("later", [QUARTER, DAY])
def test_what_comes_late_or_is_taken_back_changes_a_day_that_was_summed_up(acme, meters, later):
    ingest(event("a", tokens=3), event("b", tokens=5), event("c", tokens=7), at=AT)
    fold(acme, at=AT)
    fold(acme, at=AT + later)

    ingest(event("late", tokens=4, timestamp=AT + timedelta(minutes=10)), at=AT + later)
    void("c")
    amend("a", tokens=6)
    fold(acme, at=AT + later)

    found, members, _ = said(acme, meters, DAYS)
    assert summed_up() == [TODAY.date()]
    assert found[2] == {"tokens": (15, 3), "calls": (3, 3), "most": (6, 3), "last": (4, 3), "users": (0, 3)}
    assert members[2] == {0: 3}
    agrees(acme, meters)


def test_what_is_sent_for_tomorrow_is_summed_up_with_tomorrow(acme, meters):
    at = TODAY + DAY - timedelta(minutes=1)
    ingest(event("a", tokens=3, timestamp=at), event("ahead", tokens=5, timestamp=TODAY + DAY), at=at)
    fold(acme, at=at)
    fold(acme, at=at + timedelta(minutes=2))
    assert summed_up() == [TODAY.date()]

    fold(acme, at=at + DAY + timedelta(minutes=2))
    assert summed_up() == [TODAY.date(), (TODAY + DAY).date()]
    agrees(acme, meters)


def test_an_added_dimension_splits_days_that_were_summed_up(acme):
    meter = make_meter("tokens")
    meters = {"tokens": meter}
    ingest(event("a", tokens=3, model="m"), event("b", tokens=5, model="n"), at=AT)
    fold(acme, at=AT + DAY)
    ingest(event("c", tokens=7, model="m"), at=AT + DAY)
    fold(acme, at=AT + DAY)

    services.update_meter(meter=meter, dimensions=["model"], at=AT + DAY)
    while services.backfill(at=AT + DAY):
        pass
    fold(acme, at=AT + DAY)

    [totals] = queries.series_totals(acme, edges=[TODAY, TODAY + DAY], meter_ids=[meter.pk])
    assert {one.dimensions["model"]: one.quantity for one in totals} == {"m": 3, "n": 5}
    agrees(acme, meters)


def test_a_correction_leaves_what_has_not_ended_to_its_buckets(acme, meters):
    ingest(event("a", tokens=3), event("b", tokens=5, timestamp=AT + QUARTER), at=AT + QUARTER)
    fold(acme, at=AT + QUARTER)

    void("a")
    fold(acme, at=AT + QUARTER)

    assert said(acme, meters, DAYS)[0][2]["most"] == said(acme, meters, DAYS)[0][2]["last"] == (5, 1)
    agrees(acme, meters)


def test_an_earlier_instant_takes_nothing_back(acme, meters):
    ingest(event("a", tokens=3), at=AT)
    fold(acme, at=AT)
    fold(acme, at=AT + 2 * DAY)
    ingest(event("b", tokens=5, timestamp=AT + DAY), at=AT + DAY)
    fold(acme, at=AT + DAY)

    assert Watermark.objects.get(pk=acme.pk).summed_before == AT + 2 * DAY
    assert summed_up() == [TODAY.date(), (TODAY + DAY).date()]
    agrees(acme, meters)


class TestAtOnce:
    """Real commits and real threads."""

    @pytest.fixture
    def customer(self, committed):
        return Customer.objects.create(key="acme", name="Acme")

    def test_an_event_that_comes_while_its_quarter_hour_is_summed_up_is_added(self, customer, meters):
        ingest(event("a", tokens=3), at=AT)
        fold(customer, at=AT)

        with transaction.atomic():
            services.claim(customer_id=customer.pk)
            services.fold(customer_id=customer.pk, at=AT + DAY)
            late = threading.Thread(target=send, args=[event("late", tokens=5, timestamp=AT)])
            late.start()
            late.join()
        assert said(customer, meters, DAYS)[0][2]["tokens"] == (3, 1)
        fold(customer, at=AT + DAY)

        assert said(customer, meters, DAYS)[0][2]["tokens"] == (8, 2)
        agrees(customer, meters)

    def test_folds_at_once_sum_each_quarter_hour_up_once(self, customer, meters):
        ingest(*(event(f"e{n}", tokens=n, timestamp=AT - DAY) for n in range(9)), at=AT - DAY)
        fold(customer, at=AT - DAY)

        def on():
            for _ in range(5):
                fold(customer, at=AT + DAY)

        at_once(on, on, lambda: send(*(event(f"late{n}", tokens=n, timestamp=AT - DAY) for n in range(9))))
        fold(customer, at=AT + DAY)

        assert said(customer, meters, DAYS)[0][1]["tokens"] == (72, 18)
        agrees(customer, meters)

    def test_an_answer_meanwhile_has_each_day_once(self, customer, meters):
        first = AT - 30 * DAY
        for n in range(30):
            ingest(event(f"e{n}", tokens=1, timestamp=first + n * DAY), at=AT)
        fold(customer, at=first)  # so that none is summed up yet
        done = threading.Event()

        def sum_up():
            try:
                for n in range(31):
                    fold(customer, at=first + n * DAY)
            finally:
                done.set()

        def look():
            edges, ids, seen = [TODAY - 31 * DAY, TODAY + DAY], [meters["tokens"].pk], set()
            while not (done.is_set() and seen):
                seen |= {one.quantity for one in queries.series_totals(customer, edges=edges, meter_ids=ids)[0]}
            return seen

        assert at_once(sum_up, look)[1] == {30}
        assert len(summed_up()) == 30


def send(*events):
    try:
        ingest(*events, at=AT + DAY)
    finally:
        connection.close()
