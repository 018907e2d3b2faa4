"""Counters are the sums over the events, however these came."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import partial, reduce
from itertools import pairwise

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts.models import Customer
from billing.cycle.verify import differences
from billing.metering import queries, services, uniques
from billing.metering.ahead import read_series_ahead
from billing.metering.counter_models import UsageDay
from billing.metering.models import UsageDelta
from billing.metering.uniques import Asked
from billing.reads import shared
from tests.factories import event, fold, ingest, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)


def counted(totals):
    """(model -> quantity, events) of one meter's totals."""
    return {total.dimensions.get("model"): (total.quantity, total.events) for total in totals}


@pytest.fixture
def tokens(acme):
    return make_meter("tokens", dimensions=["model"])


def test_folding_twice_changes_nothing(acme, tokens):
    ingest(event("a", tokens=2, model="m"), event("b", tokens=3, model="m"), event("c", tokens=5), at=AT)

    assert fold(acme, at=AT)
    assert not fold(acme, at=AT)

    found = queries.totals(acme, starts_at=AT, ends_at=AT + DAY, meter_ids=[tokens.pk])
    assert counted(found) == {"m": (5, 2), None: (5, 1)}
    assert not UsageDelta.objects.exists()


def test_a_count_counts_events_and_filters_hold(acme):
    calls = make_meter(
        "calls",
        aggregation="count",
        dimensions=["model"],
        filters=[{"property": "ok", "op": "eq", "value": True}],
    )
    ingest(event("a", ok=True), event("b", ok=False), event("c"), event("d", ok=True, model=4), at=AT)
    fold(acme, at=AT)

    found = queries.totals(acme, starts_at=AT, ends_at=AT + DAY, meter_ids=[calls.pk])
    assert counted(found) == {None: (1, 1), "4": (1, 1)}


def test_a_tracked_period_holds_what_came_before_and_after(acme, tokens):
    ingest(event("a", tokens=1), event("b", tokens=10, timestamp=AT - DAY), at=AT)
    fold(acme, at=AT)
    with transaction.atomic():
        services.claim(customer_id=acme.pk)
        for _ in range(2):
            services.track(customer_id=acme.pk, starts_at=AT, ends_at=AT + DAY)
    ingest(event("c", tokens=2), event("d", tokens=20, timestamp=AT - timedelta(microseconds=1)), at=AT)
    fold(acme, at=AT)

    found = queries.totals(acme, starts_at=AT, ends_at=AT + DAY, meter_ids=[tokens.pk])
    assert counted(found) == {None: (3, 2)}
    assert counted(queries.series_totals(acme, edges=[AT, AT + DAY], meter_ids=[tokens.pk])[0]) == counted(found)


def test_a_day_holds_quarter_hours_that_have_ended_and_what_comes_late_for_them(acme, tokens):
    def stored():
        return list(UsageDay.objects.values_list("day", "quantity", "events"))

    def shown():
        found = queries.series_totals(acme, edges=[AT - DAY, AT + DAY], meter_ids=[tokens.pk])[0]
        return counted(found)[None]

    ingest(event("a", tokens=1), event("b", tokens=2), at=AT)
    fold(acme, at=AT)
    assert (stored(), shown()) == ([], (3, 2))

    fold(acme, at=AT + DAY)
    assert (stored(), shown()) == ([(AT.date(), 3, 2)], (3, 2))

    ingest(event("late", tokens=4, timestamp=AT), event("later", tokens=8, timestamp=AT + DAY), at=AT + DAY)
    fold(acme, at=AT + DAY)
    assert (stored(), shown()) == ([(AT.date(), 7, 3)], (7, 3))
    assert list(differences()) == []


def test_a_tracked_period_without_usage_is_empty(acme, tokens):
    with transaction.atomic():
        services.claim(customer_id=acme.pk)
        services.track(customer_id=acme.pk, starts_at=AT, ends_at=AT + DAY)

    assert queries.totals(acme, starts_at=AT, ends_at=AT + DAY, meter_ids=[tokens.pk]) == []


def test_everything_acknowledged_before_the_stamp_is_counted(acme, tokens):
    fresh = queries.counted_through(acme)
    ingest(event("a", tokens=1), at=AT)
    waiting = queries.counted_through(acme)
    fold(acme, at=AT + 900 * DAY)

    assert waiting == acme.created_at
    assert queries.counted_through(acme) >= fresh


def test_a_tick_claims_the_dirty_customer_counted_longest_ago(acme, globex, tokens):
    ingest(event("a", tokens=1), at=AT)
    fold(acme, at=AT)
    ingest(event("b", tokens=1), event("c", "globex", tokens=1), at=AT)

    with transaction.atomic():
        assert services.claim_next(skip=[], most=1) == [globex.pk]
        assert services.claim_next(skip=[], most=9) == [globex.pk, acme.pk]
        assert services.claim_next(skip=[globex.pk], most=9) == [acme.pk]
        assert services.claim_next(skip=[acme.pk, globex.pk], most=9) == []
        services.fold(customer_id=acme.pk, at=AT)
        services.fold(customer_id=globex.pk, at=AT)
        assert services.claim_next(skip=[], most=9) == []


def test_publishing_moves_the_version(acme):
    assert queries.freshness(acme).version == 0
    with transaction.atomic():
        services.claim(customer_id=acme.pk)
        services.publish(customer_id=acme.pk)
    assert queries.freshness(acme).version == 1


quarters = st.integers(-35 * 96 + 1, 0).map(lambda n: AT + n * timedelta(minutes=15))
amounts = st.decimals(0, 10**18, places=12) | st.integers(0, 1000)
moments = quarters | st.just(AT + DAY)  # when a fold takes place: it sums up the quarter hours that have ended
items = st.fixed_dictionaries(
    {
        "id": st.integers(0, 40).map(str),
        "source": st.sampled_from(["a", "b"]),
        "timestamp": st.datetimes(AT.replace(tzinfo=None) - 34 * DAY, AT.replace(tzinfo=None), timezones=st.just(UTC)),
        "properties": st.fixed_dictionaries(
            {},
            optional={
                "tokens": amounts.map(str),
                "user": st.sampled_from(["u", "v", "w", 1, "1", True]),
                "model": st.sampled_from(["m", "n"]),
                "key": st.integers(0, 2),
            },
        ),
    }
)


class CountersAreSumsOverEvents(TestCase):
    """For every meter, dimension set and range, after any batches folded at any time."""

    @hypothesis(max_examples=25, deadline=None)
    @given(
        batches=st.lists(st.lists(items, max_size=40), max_size=4),
        folds=st.lists(st.none() | moments, min_size=4, max_size=4),
        edges=st.lists(quarters, min_size=2, max_size=5, unique=True).map(sorted),
    )
    def test_counters(self, batches, folds, edges):
        acme = Customer.objects.create(key="acme", name="Acme")
        meters = {
            "tokens": make_meter("tokens", dimensions=["model", "key"]),
            "calls": make_meter("calls", aggregation="count", dimensions=["model"]),
            "most": make_meter("most", aggregation="max", value="tokens", dimensions=["model", "key"]),
            "last": make_meter("last", aggregation="latest", value="tokens", dimensions=["model"]),
        }
        with transaction.atomic():
            services.claim(customer_id=acme.pk)
            services.track(customer_id=acme.pk, starts_at=edges[0], ends_at=edges[-1])
        first = {}
        for batch, folded in zip(batches, folds, strict=False):
            ingest(*({**item, "type": "llm.completion", "customer": "acme"} for item in batch), at=AT)
            for item in batch:
                first.setdefault((item["source"], item["id"]), item)
            if folded is not None:
                fold(acme, at=folded)
        fold(acme, at=AT)

        wanted = [expected(first.values(), *pair) for pair in pairwise(edges)]
        ids = {meter.pk: key for key, meter in meters.items()}
        series = queries.series_totals(acme, edges=edges, meter_ids=list(ids))
        assert [found(one, ids) for one in series] == wanted
        with shared():
            read_series_ahead([(acme.pk, edges)])
            assert queries.series_totals(acme, edges=edges, meter_ids=list(ids)) == series
        total = queries.totals(acme, starts_at=edges[0], ends_at=edges[-1], meter_ids=list(ids))
        assert found(total, ids) == expected(first.values(), edges[0], edges[-1])
        assert list(differences()) == []

    @hypothesis(max_examples=25, deadline=None)
    @given(
        batches=st.lists(st.lists(items, max_size=40), max_size=4),
        folds=st.lists(moments, min_size=4, max_size=4),
        edges=st.lists(quarters, min_size=2, max_size=5, unique=True).map(sorted),
        tracked=st.booleans(),
    )
    def test_members(self, batches, folds, edges, tracked):
        acme = Customer.objects.create(key="acme", name="Acme")
        users = make_meter("users", aggregation="unique", value="user", dimensions=["model"])
        first = {}
        for number, batch in enumerate(batches):
            ingest(*({**item, "type": "llm.completion", "customer": "acme"} for item in batch), at=AT)
            for item in batch:
                first.setdefault((item["source"], item["id"]), item)
            fold(acme, at=folds[number])
            if tracked and number == 0:
                with transaction.atomic():
                    services.claim(customer_id=acme.pk)
                    services.track(customer_id=acme.pk, starts_at=edges[0], ends_at=edges[-1])

        sets = {
            one.set_id: one.dimensions
            for one in queries.totals(acme, starts_at=edges[0], ends_at=edges[-1], meter_ids=[users.pk])
        }
        by_model = {set_id: ["m", "n", None].index(one.get("model")) for set_id, one in sets.items()}
        assert uniques.distinct(acme, edges=edges, meter_id=users.pk, labels=by_model) == [
            {label: len(seen) for label, seen in members(first.values(), *pair).items()} for pair in pairwise(edges)
        ]
        asked = [
            Asked(users.pk, 0, len(edges) - 1, by_model),
            Asked(users.pk, 0, len(edges) - 1, dict.fromkeys(sets, 7)),
        ]
        apart, together = uniques.newcomers(acme, edges=edges, asked=asked)
        whole = members(first.values(), edges[0], edges[-1])
        assert sum(map(Counter, apart), Counter()) == {label: len(seen) for label, seen in whole.items()}
        assert sum(one.get(7, 0) for one in together) == len(set().union(*whole.values()))
        assert list(differences()) == []


def members(events, start, end):
    """Number of the model -> the users seen with it."""
    seen = defaultdict(set)
    for one in events:
        said = one["properties"]
        if start <= one["timestamp"] < end and "user" in said:
            seen[["m", "n", None].index(said.get("model"))].add(str(said["user"]).replace("True", "true"))
    return seen


def found(totals, ids):
    return {(ids[one.meter_id], frozenset(one.dimensions.items())): (one.quantity, one.events) for one in totals}


def expected(events, start, end):
    values = defaultdict(list)
    for one in sorted(events, key=lambda one: (one["timestamp"], one["source"], one["id"])):
        if start <= one["timestamp"] < end:
            said = one["properties"]
            fed = [("calls", ["model"], Decimal(1))]
            if "tokens" in said:
                fed.append(("tokens", ["model", "key"], Decimal(said["tokens"])))
                fed.append(("most", ["model", "key"], Decimal(said["tokens"])))
                fed.append(("last", ["model"], Decimal(said["tokens"])))
            for meter, names, quantity in fed:
                key = (meter, frozenset((name, str(said[name])) for name in names if name in said))
                values[key].append(quantity)
    add = partial(reduce, Context(prec=60).add)
    whole = {"tokens": add, "calls": add, "most": max, "last": lambda found: found[-1]}
    return {key: (whole[key[0]](found), len(found)) for key, found in values.items()}
