"""Stored events are counted with meters that come, or change, after them: each once, while events come."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts.models import Customer
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.metering import backfilling, queries, services, tasks
from billing.metering.models import Backfill
from billing.metering.services import MeterIsCounted
from tests.billing.metering.test_concurrency import at_once
from tests.billing.metering.test_corrections import amend, void
from tests.factories import bearer, event, fold, ingest, make_api_key, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def create(key="late", aggregation="sum", value="tokens", **fields):
    value = "" if aggregation == "count" else value
    return services.create_meter(
        key=key, event_type="llm.completion", aggregation=aggregation, value=value, at=AT, **fields
    )


def work_through():
    while services.backfill(at=AT):
        pass


def counted(customer, meter):
    """(dimensions -> quantity, events)"""
    fold(customer, at=AT)
    found = queries.totals(customer, starts_at=AT - DAY, ends_at=AT + DAY, meter_ids=[meter.pk])
    return {tuple(sorted(total.dimensions.items())): (total.quantity, total.events) for total in found}


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(backfilling, "PAGE", 2)


@pytest.mark.usefixtures("pages")
class TestBackfill:
    @pytest.fixture(autouse=True)
    def tokens(self, acme, globex):
        self.acme, self.meter = acme, make_meter()

    def test_a_later_meter_counts_what_was_stored_page_by_page(self, globex):
        ingest(*(event(f"e{n}", tokens=n) for n in range(5)), event("g", "globex", tokens=7), at=AT)
        late = create()
        assert counted(self.acme, late) == {}

        assert services.backfill(at=AT)
        assert Backfill.objects.get().percent < 100
        ingest(event("after", tokens=100), at=AT)
        work_through()

        assert counted(self.acme, late) == counted(self.acme, self.meter) == {(): (110, 6)}
        assert counted(globex, late) == {(): (7, 1)}
        done = Backfill.objects.get()
        assert (done.percent, done.events, done.finished_at) == (100, 6, AT)

    def test_an_added_dimension_counts_what_was_stored_again(self):
        ingest(*(event(f"e{n}", tokens=n, model="m" if n % 2 else "n") for n in range(6)), at=AT)
        most = make_meter("most", aggregation="max", value="tokens")

        for meter in (self.meter, most):
            services.update_meter(meter=meter, dimensions=["model"], at=AT)
        ingest(event("after", tokens=10, model="m"), at=AT)
        work_through()

        assert counted(self.acme, self.meter) == {(("model", "m"),): (19, 4), (("model", "n"),): (6, 3)}
        assert counted(self.acme, most) == {(("model", "m"),): (10, 4), (("model", "n"),): (4, 3)}

    def test_what_was_counted_otherwise_changes_in_no_other_way(self):
        ingest(event("a", tokens=1), at=AT)
        services.update_meter(meter=self.meter, dimensions=["model"], at=AT)

        with pytest.raises(Conflict) as running:
            services.update_meter(meter=self.meter, dimensions=["model", "key"], at=AT)
        work_through()
        with pytest.raises(MeterIsCounted):
            services.update_meter(meter=self.meter, value="other", at=AT)

        assert running.value.code == "backfill_running"

    def test_a_removed_dimension_merges_what_was_stored(self):
        services.update_meter(meter=self.meter, dimensions=["model", "key"], at=AT)
        most = make_meter("most", aggregation="max", value="tokens", dimensions=["model", "key"])
        people = make_meter("people", aggregation="unique", value="tokens", dimensions=["model", "key"])
        ingest(*(event(f"e{n}", tokens=n, model="m", key=f"k{n % 3}") for n in range(6)), at=AT)
        fold(self.acme, at=AT)

        for meter in (self.meter, most, people):
            services.update_meter(meter=meter, dimensions=["model"], at=AT)
        ingest(event("after", tokens=10, model="m", key="k1"), at=AT)
        work_through()
        void("e5")

        assert counted(self.acme, self.meter) == {(("model", "m"),): (20, 6)}
        assert counted(self.acme, most) == {(("model", "m"),): (10, 6)}
        assert counted(self.acme, people) == {(("model", "m"),): (0, 6)}
        assert list(differences()) == []

    def test_a_dimension_stays_while_something_names_it(self):
        services.update_meter(meter=self.meter, dimensions=["model", "key"], at=AT)
        services.name_values(named_by="plan pro version 3", namings=[(self.meter.pk, "key", None)])

        with pytest.raises(Conflict, match="because plan pro version 3 names it") as refused:
            services.update_meter(meter=self.meter, dimensions=["model"], at=AT)
        assert (refused.value.code, refused.value.field) == ("dimension_named", "dimensions")
        services.update_meter(meter=self.meter, dimensions=["key"], at=AT)
        with pytest.raises(Conflict) as gone:
            services.name_values(named_by="budget", namings=[(self.meter.pk, "model", "m")])
        assert gone.value.code == "no_such_dimension"
        services.name_values(named_by="plan pro version 3", namings=[])
        assert services.update_meter(meter=self.meter, dimensions=[], at=AT).dimensions == []

    def test_corrections_on_both_sides_of_the_cursor_count_once(self):
        ingest(*(event(f"e{n}", tokens=n, timestamp=AT - timedelta(minutes=60 - n)) for n in range(6)), at=AT)
        late = create(dimensions=["model"])
        services.backfill(at=AT)  # e0 and e1 are counted

        void("e0")
        amend("e1", tokens=50, model="m")
        void("e4")
        amend("e5", tokens=60)
        work_through()

        assert counted(self.acme, late) == {(): (65, 3), (("model", "m"),): (50, 1)}
        assert counted(self.acme, self.meter) == {(): (115, 4)}

    def test_a_value_that_a_later_meter_cannot_take_is_not_counted(self):
        ingest(event("a", tokens=1, words="many"), event("b", tokens=2, words=3), at=AT)
        late = create(value="words")
        work_through()
        void("a")

        assert counted(self.acme, late) == {(): (3, 1)}

    def test_a_meter_that_follows_a_deleted_one_counts_what_was_stored(self):
        idle = create("idle", filters=[{"property": "model", "op": "eq", "value": "other"}])
        ingest(event("a", tokens=1), event("b", tokens=2), at=AT)
        services.delete_meter(meter=idle)
        late = create()
        void("a")
        work_through()

        assert counted(self.acme, late) == counted(self.acme, self.meter) == {(): (2, 1)}

    def test_a_meter_without_stored_events_has_nothing_to_work_through(self):
        create()

        assert not Backfill.objects.exists()
        assert services.backfill(at=AT) is False

    def test_the_task_works_it_through_and_the_api_says_how_far(self, client):
        ingest(*(event(f"e{n}", tokens=n) for n in range(5)), at=AT)
        create()
        tasks.backfill()

        _, secret = make_api_key()
        shown = client.get("/api/v1/meters/late", **bearer(secret)).json()["backfill"]
        assert (shown["percent"], shown["events"]) == (100, 5)
        assert shown["finished_at"] is not None


def test_a_meter_made_and_changed_while_events_come_counts_each_once(committed, pages):
    acme = Customer.objects.create(key="acme", name="Acme")
    first = make_meter()
    ingest(*(event(f"old{n}", tokens=1, model="m") for n in range(30)), at=AT)
    done = threading.Event()

    def send(name):
        for n in range(25):
            ingest(*(event(f"{name}{n}-{m}", tokens=1, model="m") for m in range(4)), at=AT)

    def change():
        try:
            late = create(dimensions=["model"])
            services.update_meter(meter=first, dimensions=["model"], at=AT)
            work_through()
            return late
        finally:
            done.set()

    def work():
        while not done.is_set():
            services.backfill(at=AT)
            fold(acme, at=AT)

    def correct():
        for n in range(0, 30, 3):
            void(f"old{n}")

    *_, late = at_once(lambda: send("a"), lambda: send("b"), work, work, correct, change)
    work_through()

    assert counted(acme, late) == counted(acme, first) == {(("model", "m"),): (220, 220)}


properties = st.fixed_dictionaries(
    {}, optional={"tokens": st.integers(0, 9), "model": st.sampled_from(["m", "n"]), "key": st.integers(0, 1)}
)
instants = st.integers(0, 100).map(lambda n: AT - n * timedelta(minutes=7))
acts = st.lists(
    st.tuples(st.just("send"), st.integers(0, 15), instants, properties)
    | st.tuples(st.just("void"), st.integers(0, 15))
    | st.tuples(st.just("amend"), st.integers(0, 15), properties)
    | st.tuples(st.just("create"), st.sampled_from(["sum", "count", "max", "latest"]))
    | st.tuples(st.just("toggle"), st.sampled_from(["model", "key"]))
    | st.sampled_from([("page",), ("page",), ("fold",)]),
    max_size=60,
)


class EveryMeterCountsWhatHolds(TestCase):
    """Whenever it was made, and whatever happened meanwhile, it counts as one that was there from the start."""

    @hypothesis(max_examples=60, deadline=None)
    @given(acts=acts)
    def test_counters(self, acts):
        backfilling.PAGE, page = 3, backfilling.PAGE
        try:
            self.run_acts(acts)
        finally:
            backfilling.PAGE = page

    def run_acts(self, acts):
        acme = Customer.objects.create(key="acme", name="Acme")
        meters, sent = [make_meter("first", value="tokens")], {}
        with transaction.atomic():
            services.claim(customer_id=acme.pk)
            services.track(customer_id=acme.pk, starts_at=AT - DAY, ends_at=AT + DAY)
        for what, *said in acts:
            match what:
                case "send":
                    number, instant, properties = said
                    ingest(event(f"e{number}", timestamp=instant, properties=properties), at=AT)
                    sent.setdefault(number, properties)
                case "void" if said[0] in sent:
                    void(f"e{said[0]}")
                    sent[said[0]] = None
                case "amend" if sent.get(said[0]) is not None:
                    amend(f"e{said[0]}", **said[1])
                case "create":
                    meters.append(create(f"m{len(meters)}", said[0]))
                case "toggle":
                    self.toggle(meters, said[0])
                case "page":
                    services.backfill(at=AT)
                case "fold":
                    fold(acme, at=AT)
        work_through()
        fold(acme, at=AT)

        # Each meter against a twin that is made now, so that it counts everything by backfilling alone.
        for meter in meters:
            meter.refresh_from_db()
            twin = create(f"twin-{meter.key}", meter.aggregation, dimensions=meter.dimensions)
            work_through()
            assert counted(acme, meter) == counted(acme, twin)
        assert list(differences()) == []

    def toggle(self, meters, name):
        """The first meter that may change gets the dimension, or loses it."""
        for number, meter in enumerate(meters):
            meter.refresh_from_db()
            if not backfilling.unfinished([meter.pk]):
                dimensions = sorted({*meter.dimensions} ^ {name})
                meters[number] = services.update_meter(meter=meter, dimensions=dimensions, at=AT)
                return
