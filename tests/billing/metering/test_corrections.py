"""Voids and amendments: appended, counted once, and as exact as if the event had never said anything else."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import partial, reduce
from uuid import uuid4

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts.models import Customer
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.metering import correcting, corrections, queries, services, uniques
from billing.metering.corrections import UnknownEvent
from billing.metering.models import EventCorrection, EventIdentity, UsageEvent
from tests.billing.metering.test_concurrency import at_once
from tests.factories import bearer, event, fold, ingest, make_api_key, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
LATER = AT + timedelta(hours=1)
DAY = timedelta(days=1)


def void(event_id, source="default", **fields):
    return correcting.void_event(source=source, event_id=event_id, **{"at": LATER, **fields})


def amend(event_id, source="default", **properties):
    return correcting.amend_event(source=source, event_id=event_id, properties=properties, at=LATER)


def counted(customer, meter):
    """(model -> quantity, events)"""
    fold(customer, at=LATER)
    found = queries.totals(customer, starts_at=AT - DAY, ends_at=AT + DAY, meter_ids=[meter.pk])
    return {total.dimensions.get("model"): (total.quantity, total.events) for total in found}


class TestCorrecting:
    @pytest.fixture(autouse=True)
    def tokens(self, acme):
        self.customer, self.meter = acme, make_meter(dimensions=["model"])

    def test_a_void_event_counts_for_nothing_and_its_id_stays_taken(self):
        ingest(event("a", tokens=2, model="m"), event("b", tokens=3, model="m"), at=AT)
        assert counted(self.customer, self.meter) == {"m": (5, 2)}

        word = void("a", reason="sent twice")

        assert (word.kind, word.reason, word.recorded_at) == ("void", "sent twice", LATER)
        assert counted(self.customer, self.meter) == {"m": (3, 1)}
        assert ingest(event("a", tokens=2, model="m"), at=LATER).duplicate == 1
        assert EventIdentity.objects.get(pk=word.identity).permanent

    def test_an_amended_event_counts_as_what_it_says_now(self):
        ingest(event("a", tokens=2, model="m"), at=AT)

        amend("a", tokens=Decimal("7.50"), model="n")
        assert counted(self.customer, self.meter) == {"n": (Decimal("7.5"), 1)}
        amend("a", model="n")
        assert counted(self.customer, self.meter) == {}
        amend("a", tokens=1)
        assert counted(self.customer, self.meter) == {None: (1, 1)}
        assert UsageEvent.objects.get().properties == {"tokens": 2, "model": "m"}

    def test_repeating_a_correction_changes_nothing(self):
        ingest(event("a", tokens=2), event("b", tokens=3), at=AT)

        assert amend("a", tokens=5) == amend("a", tokens=Decimal("5.0"))
        assert void("b") == void("b", reason="again")
        assert amend("a", tokens=5).reason == ""

        assert EventCorrection.objects.count() == 2
        assert counted(self.customer, self.meter) == {None: (5, 1)}

    def test_amending_to_what_was_sent_is_no_correction(self):
        ingest(event("a", tokens=2), at=AT)

        assert amend("a", tokens=2) is None
        assert not EventCorrection.objects.exists()

    def test_a_void_event_cannot_be_amended(self):
        ingest(event("a", tokens=2), at=AT)
        void("a")

        with pytest.raises(Conflict) as refused:
            amend("a", tokens=3)
        assert refused.value.code == "event_void"

    def test_an_event_whose_row_is_archived_is_too_old(self):
        ingest(event("a", tokens=2), at=AT)
        with transaction.atomic(using="default"):
            EventIdentity.objects.update(recorded_at=AT - DAY)  # as if the row lay elsewhere

        with pytest.raises(Conflict) as refused:
            void("a")
        assert refused.value.code == "too_old"

    def test_an_unknown_event_is_unknown(self):
        with pytest.raises(UnknownEvent):
            void("a")

    @pytest.mark.parametrize("value", [-1, "x", True, "1e19"])
    def test_an_amendment_is_judged_as_an_event_is(self, value):
        ingest(event("a", tokens=2), at=AT)

        with pytest.raises(ValidationError, match="tokens"):
            amend("a", tokens=value)
        with pytest.raises(ValidationError, match="at most 50"):
            amend("a", **{f"p{n}": n for n in range(51)})
        assert not EventCorrection.objects.exists()

    def test_an_event_that_waits_is_corrected_before_it_counts(self):
        ingest(event("a", "globex", tokens=2), event("b", "globex", tokens=3), at=AT)
        void("a")
        amend("b", tokens=9)
        globex = Customer.objects.create(key="globex", name="Globex")

        assert services.replay_unmatched(customer_keys=["globex"], at=LATER) == 2

        assert counted(globex, self.meter) == {None: (9, 1)}

    def test_taking_back_what_decided_counts_its_quarter_hour_again(self):
        most = make_meter("most", aggregation="max", value="tokens", dimensions=["model"])
        last = make_meter("last", aggregation="latest", value="tokens")
        later = AT + timedelta(minutes=20)
        ingest(*(event(f"e{n}", tokens=n, timestamp=AT + timedelta(seconds=n)) for n in range(5)), at=later)
        ingest(event("f", tokens=3, timestamp=later), at=later)
        assert (counted(self.customer, most), counted(self.customer, last)) == ({None: (4, 6)}, {None: (3, 6)})

        void("e4")
        void("f")

        assert (counted(self.customer, most), counted(self.customer, last)) == ({None: (3, 4)}, {None: (3, 4)})
        amend("e3", tokens=1, model="m")
        assert counted(self.customer, most) == {None: (2, 3), "m": (1, 1)}
        assert list(differences()) == []

    def test_a_void_that_is_folded_with_its_event_leaves_nothing(self):
        most = make_meter("most", aggregation="max", value="tokens")
        ingest(event("a", tokens=8), event("b", tokens=5), at=AT)
        void("a")

        assert counted(self.customer, most) == {None: (5, 1)}


class TestApi:
    @pytest.fixture(autouse=True)
    def sent(self, client, acme):
        make_meter()
        ingest(event("a", tokens=2), event("b", tokens=3), at=AT)
        self.client, self.key = client, bearer(make_api_key()[1])

    def post(self, what, **body):
        return self.client.post(f"/api/v1/events/{what}", body, content_type="application/json", **self.key)

    def test_a_void_and_its_repeat_answer_the_same(self):
        first, again = self.post("void", id="a", reason="twice"), self.post("void", source="default", id="a")

        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json() == again.json()
        assert first.json() | {"recorded_at": ""} == {
            "source": "default",
            "id": "a",
            "status": "void",
            "reason": "twice",
            "recorded_at": "",
        }

    def test_amendments_answer_and_are_listed_beside_what_was_sent(self):
        assert self.post("amend", id="b", properties={"tokens": 4.5}).json()["status"] == "amended"
        assert self.post("amend", id="b", properties={"tokens": 4.5}).json()["status"] == "amended"
        assert self.post("amend", id="a", properties={"tokens": 2}).json()["status"] == "unchanged"

        listed = self.client.get("/api/v1/events", {"customer": "acme"}, **self.key).json()["data"]
        rows = {row["id"]: row for row in listed}
        assert rows["a"]["corrections"] == []
        assert rows["b"]["properties"] == {"tokens": 3}
        assert [word["properties"] for word in rows["b"]["corrections"]] == [{"tokens": 4.5}]

    @pytest.mark.parametrize(
        ("what", "body", "status", "code"),
        [
            ("void", {}, 400, "missing_field"),
            ("void", {"id": "nobody"}, 404, "not_found"),
            ("void", {"id": "a", "properties": {}}, 400, "unknown_field"),
            ("amend", {"id": "a"}, 400, "missing_field"),
            ("amend", {"id": "a", "properties": {"tokens": "x"}}, 400, "invalid_value"),
            ("amend", {"id": "a", "properties": {"n": {"deep": [1] * 5000}}}, 400, "too_large"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, what, body, status, code):
        answer = self.post(what, **body)

        assert (answer.status_code, answer.json()["code"]) == (status, code)

    def test_a_void_event_cannot_be_amended(self):
        self.post("void", id="a")
        answer = self.post("amend", id="a", properties={})

        assert (answer.status_code, answer.json()["code"]) == (409, "event_void")


def test_corrections_at_once_and_with_folds_count_once(committed):
    acme = Customer.objects.create(key="acme", name="Acme")
    meter, most = make_meter(), make_meter("most", aggregation="max", value="tokens")
    ingest(*(event(f"e{n}", tokens=n) for n in range(40)), at=AT)

    def void_all():
        return [void(f"e{n}") for n in range(0, 40, 2)]

    def amend_all():
        for n in range(39, -1, -1):
            try:
                amend(f"e{n}", tokens=100 + n)
            except Conflict:
                continue

    def fold_on():
        for _ in range(20):
            fold(acme, at=LATER)

    at_once(void_all, void_all, amend_all, fold_on)

    assert counted(acme, meter) == {None: (sum(100 + n for n in range(1, 40, 2)), 20)}
    assert counted(acme, most) == {None: (139, 20)}


METERS = {"tokens": "sum", "calls": "count", "most": "max", "last": "latest", "users": "unique"}
properties = st.fixed_dictionaries(
    {},
    optional={
        "tokens": st.integers(0, 50) | st.decimals(0, 10**18, places=12).map(str),
        "model": st.sampled_from(["m", "n"]),
        "ok": st.booleans(),
    },
)
instants = st.integers(0, 200).map(lambda n: AT - n * timedelta(minutes=4))
acts = st.lists(
    st.tuples(st.just("send"), st.integers(0, 12), instants, properties)
    | st.tuples(st.just("void"), st.integers(0, 12))
    | st.tuples(st.just("amend"), st.integers(0, 12), properties)
    | st.tuples(st.just("fold"), st.integers(-60, 8)),  # quarter hours later: those that have ended are summed up
    max_size=40,
)


class CountersAreSumsOverWhatHolds(TestCase):
    """After any events, voids and amendments, folded at any time."""

    @hypothesis(max_examples=60, deadline=None)
    @given(acts=acts)
    def test_counters(self, acts):
        acme = Customer.objects.create(key="acme", name="Acme")
        filters = [{"property": "ok", "op": "ne", "value": False}]
        meters = {
            key: make_meter(
                key, aggregation=kind, value="" if kind == "count" else "tokens", dimensions=["model"], filters=filters
            )
            for key, kind in METERS.items()
        }
        with transaction.atomic():
            services.claim(customer_id=acme.pk)
            services.track(customer_id=acme.pk, starts_at=AT - DAY, ends_at=AT + DAY)
        holds = {}
        for what, *said in acts:
            do(acme, holds, what, *said)
        fold(acme, at=LATER)

        ids = {meter.pk: key for key, meter in meters.items()}
        for edges in ([AT - DAY, AT + DAY], [AT - DAY, AT, AT + DAY]):
            found = {}
            for one in [one for part in queries.series_totals(acme, edges=edges, meter_ids=list(ids)) for one in part]:
                if ids[one.meter_id] != "users":
                    found.setdefault((ids[one.meter_id], one.dimensions.get("model")), []).append(one)
            assert {key: sum(one.events for one in parts) for key, parts in found.items()} == {
                key: len(values) for key, values in fed(holds).items()
            }
        total = queries.totals(acme, starts_at=AT - DAY, ends_at=AT + DAY, meter_ids=list(ids))
        whole = {"tokens": partial(reduce, Context(prec=60).add), "calls": len, "most": max, "last": lambda v: v[-1]}
        assert {
            (ids[one.meter_id], one.dimensions.get("model")): one.quantity
            for one in total
            if ids[one.meter_id] != "users"
        } == {(key, model): whole[key](values) for (key, model), values in fed(holds).items()}
        users = {one.set_id: 0 for one in total if ids[one.meter_id] == "users"}
        [[members]] = uniques.newcomers(
            acme, edges=[AT - DAY, AT + DAY], asked=[uniques.Asked(meters["users"].pk, 0, 1, users)]
        )
        said = {
            str(one["tokens"]) for _, one in holds.values() if one and "tokens" in one and one.get("ok") is not False
        }
        assert members.get(0, 0) == len(said)
        assert list(differences()) == []


def do(acme, holds, what, number=0, *said):
    if what == "fold":
        fold(acme, at=LATER + number * timedelta(minutes=15))
    elif what == "send":
        instant, properties = said
        ingest(event(f"e{number}", timestamp=instant, properties=properties), at=AT)
        holds.setdefault(number, (instant, properties))
    elif number in holds:
        instant, properties = holds[number]
        if what == "void":
            void(f"e{number}")
            holds[number] = (instant, None)
        elif properties is not None:
            amend(f"e{number}", **said[0])
            holds[number] = (instant, said[0])


def fed(holds):
    """(meter, model) -> values by time."""
    values = defaultdict(list)
    for _, (_, said) in sorted(holds.items(), key=lambda item: (item[1][0], f"e{item[0]}")):
        if said is not None and said.get("ok") is not False:
            values["calls", said.get("model")].append(1)
            if "tokens" in said:
                for meter in ("tokens", "most", "last"):
                    values[meter, said.get("model")].append(Decimal(said["tokens"]))
    return dict(values)


def test_an_event_is_found_without_reading_the_others(committed):
    Customer.objects.create(key="acme", name="Acme")
    ingest(event("a"), at=AT)

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {corrections._COUNTED}", [uuid4(), AT])
        plan = "\n".join(row for (row,) in cursor.fetchall())
    assert "recorded_at" in plan
    assert "Seq Scan on billing_usageevent" not in plan
