"""At most so many values of a dimension count by themselves; more count under (other), and nothing is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts.models import Customer
from billing.cycle.verify import differences
from billing.metering import capping, queries, services, uniques
from billing.metering.correcting import amend_event, void_event
from billing.metering.counter_models import DimensionUse
from billing.metering.receipts import receipt
from billing.pricing.spec import MatchSpec, PriceSpec
from tests.factories import event, fold, ingest, make_meter, make_plan, make_version

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def two_values(settings):
    settings.DIMENSION_VALUES = 2


@pytest.fixture
def tokens(acme):
    return make_meter("tokens", dimensions=["user"])


def used(customer, meter, *, start=AT - DAY, end=AT + DAY):
    """user -> quantity"""
    found = queries.series_totals(customer, edges=[start, end], meter_ids=[meter.pk])[0]
    return {total.dimensions.get("user"): total.quantity for total in found}


def send(customer, *events, at=AT):
    ingest(*events, at=at)
    fold(customer, at=at)


def test_what_exceeds_the_limit_counts_under_other(acme, tokens):
    send(acme, event("a", tokens=1, user="ann"), event("b", tokens=2, user="ben"), event("c", tokens=4))
    send(acme, event("d", tokens=8, user="cid"), event("e", tokens=16, user="dan"), event("f", tokens=32, user="ann"))

    assert used(acme, tokens) == {"ann": 33, "ben": 2, None: 4, "(other)": 24}
    [capped] = queries.capped(acme, tokens, starts_at=AT, ends_at=AT + DAY)
    assert (capped.dimension, capped.values, capped.capped_at) == ("user", 2, AT)


def test_one_fold_does_not_exceed_the_limit_either(acme, tokens):
    send(acme, *(event(f"e{number}", tokens=1, user=f"u{number}") for number in range(9)))

    assert sorted(used(acme, tokens).values()) == [1, 1, 7]
    assert "(other)" in used(acme, tokens)


def test_another_month_and_another_customer_begin_anew(acme, globex, tokens):
    events = [event(f"e{number}", tokens=1, user=f"u{number}") for number in range(3)]
    send(acme, *events)
    send(globex, event("g", "globex", tokens=1, user="u9"))
    later = datetime(2026, 12, 1, 9, tzinfo=UTC)
    send(acme, event("z", tokens=1, user="u9"), at=later)

    assert used(globex, tokens) == {"u9": 1}
    assert used(acme, tokens, start=later, end=later + DAY) == {"u9": 1}


def test_other_dimensions_of_the_set_stay(acme):
    tokens = make_meter("tokens", dimensions=["model", "user"])
    send(acme, *(event(f"e{number}", tokens=1, model='la"rge', user=f"u{number}") for number in range(4)))

    found = queries.series_totals(acme, edges=[AT, AT + DAY], meter_ids=[tokens.pk])[0]
    assert {total.dimensions["model"] for total in found} == {'la"rge'}
    assert sum(total.quantity for total in found if total.dimensions["user"] == "(other)") == 2


def test_a_value_that_a_price_names_counts_by_itself(acme, tokens):
    match = (MatchSpec(where={"user": ["vip", "max"]}, unit_amount=2), MatchSpec(where={"user": None}, unit_amount=3))
    make_version(make_plan(), prices=(PriceSpec(key="p", meter="tokens", unit="USD", match=match),))

    send(acme, *(event(f"e{number}", tokens=1, user=f"u{number}") for number in range(3)))
    send(acme, event("v", tokens=5, user="vip"), event("m", tokens=7, user="max"))

    assert used(acme, tokens)["vip"] == 5
    assert used(acme, tokens)["max"] == 7
    assert used(acme, tokens)["(other)"] == 1


def test_a_value_named_too_late_counts_by_itself_from_the_next_quarter_hour_on(acme, tokens):
    send(acme, event("a", tokens=1, user="u1"), event("b", tokens=1, user="u2"), event("c", tokens=1, user="vip"))
    services.name_values(named_by="budget", namings=[(tokens.pk, "user", "vip")])
    send(acme, event("d", tokens=2, user="vip"))
    later = AT + QUARTER
    send(acme, event("e", tokens=4, user="vip", timestamp=later), event("f", tokens=8, user="u4"), at=later)

    assert used(acme, tokens) == {"u1": 1, "u2": 1, "(other)": 11, "vip": 4}
    for event_id in ("c", "d", "e"):
        void_event(source="default", event_id=event_id, at=later)
    fold(acme, at=later)
    assert used(acme, tokens) == {"u1": 1, "u2": 1, "(other)": 8}


def test_corrections_take_from_the_set_that_the_event_was_counted_in(acme, tokens):
    send(acme, event("a", tokens=1, user="ann"), event("b", tokens=2, user="ben"))
    send(acme, event("c", tokens=4, user="cid"), event("d", tokens=8, user="dan"))

    void_event(source="default", event_id="c", at=AT)
    amend_event(source="default", event_id="a", properties={"tokens": 3, "user": "eve"}, at=AT)
    amend_event(source="default", event_id="d", properties={"tokens": 5, "user": "ben"}, at=AT)
    fold(acme, at=AT)

    assert used(acme, tokens) == {"ben": 7, "(other)": 3}
    assert receipt("default", "a").fed[0].dimensions == {"user": "(other)"}
    assert not list(differences())


def test_the_greatest_value_under_other_is_found_again_after_a_void(acme):
    peak = make_meter("peak", aggregation="max", value="tokens", dimensions=["user"])
    send(acme, event("a", tokens=1, user="ann"), event("b", tokens=2, user="ben"))
    send(acme, *(event(f"e{number}", tokens=number, user=f"u{number}") for number in range(5, 9)))
    void_event(source="default", event_id="e8", at=AT)
    fold(acme, at=AT)

    assert used(acme, peak) == {"ann": 1, "ben": 2, "(other)": 7}
    assert not list(differences())


def test_different_values_are_counted_under_other_too(acme):
    people = make_meter("people", aggregation="unique", value="person", dimensions=["user"])
    send(acme, event("a", person="x", user="ann"), event("b", person="x", user="ben"))
    send(acme, event("c", person="x", user="cid"), event("d", person="y", user="dan"), event("e", person="y", user="e"))

    [other] = [
        one
        for one in queries.series_totals(acme, edges=[AT, AT + DAY], meter_ids=[people.pk])[0]
        if one.dimensions["user"] == "(other)"
    ]
    found = uniques.distinct(acme, edges=[AT, AT + DAY], meter_id=people.pk, labels={other.set_id: 1})
    assert found == [{1: 2}]


def test_stored_events_that_are_counted_again_keep_to_the_limit(acme):
    tokens = make_meter("tokens")
    send(acme, *(event(f"e{number}", tokens=1, user=f"u{number}") for number in range(5)))
    services.update_meter(meter=tokens, dimensions=["user"], at=AT)
    while services.backfill(at=AT):
        pass
    fold(acme, at=AT)

    found = used(acme, tokens)
    assert found.pop("(other)") == 3
    assert list(found.values()) == [1, 1]


def test_a_lower_limit_later_changes_nothing_that_is_counted(acme, tokens, settings):
    send(acme, event("a", tokens=1, user="ann"), event("b", tokens=2, user="ben"))
    settings.DIMENSION_VALUES = 1
    send(acme, event("c", tokens=4, user="cid"))
    settings.DIMENSION_VALUES = 10
    send(acme, event("d", tokens=8, user="cid"), event("e", tokens=16, user="ben"))

    assert used(acme, tokens) == {"ann": 1, "ben": 18, "(other)": 12}


def test_what_a_name_takes_back_is_released(acme, tokens):
    services.name_values(named_by="budget 1", namings=[(tokens.pk, "user", "vip"), (tokens.pk, "user", None)])
    services.name_values(named_by="budget 1", namings=[(tokens.pk, "user", "max")])
    send(acme, *(event(f"e{number}", tokens=1, user=f"u{number}") for number in range(3)))
    send(acme, event("v", tokens=5, user="vip"), event("m", tokens=7, user="max"))

    assert used(acme, tokens)["(other)"] == 6
    assert used(acme, tokens)["max"] == 7


class AnyOrder(TestCase):
    """Whatever comes, is taken back and is named in whatever order: sums hold and sets stay few."""

    @hypothesis(max_examples=40)
    @given(st.data())
    def test_sums_hold(self, data):
        with transaction.atomic():
            customer = Customer.objects.create(key=f"c{Customer.objects.count()}", name="C")
            meter = make_meter("tokens", dimensions=["user"])
            sent: dict[str, int] = {}
            named: set[str] = set()
            at = AT
            for number in range(data.draw(st.integers(1, 12))):
                at = AT + QUARTER * data.draw(st.integers(0, 3))
                match data.draw(st.sampled_from(["send", "send", "void", "name", "fold"])):
                    case "send":
                        user = f"u{data.draw(st.integers(0, 5))}"
                        ingest(
                            event(f"e{number}", customer.key, tokens=1 + number, user=user, timestamp=at), at=AT + DAY
                        )
                        sent[f"e{number}"] = 1 + number
                    case "void" if sent:
                        gone = data.draw(st.sampled_from(sorted(sent)))
                        void_event(source="default", event_id=gone, at=at)
                        del sent[gone]
                    case "name":
                        user = f"u{data.draw(st.integers(0, 5))}"
                        capping.name("budget", [(meter.pk, "user", user)])
                        named.add(user)
                    case "fold":
                        fold(customer, at=at)
            fold(customer, at=at)

            found = queries.series_totals(customer, edges=[AT, AT + DAY], meter_ids=[meter.pk])[0]
            assert sum(one.quantity for one in found) == sum(sent.values())
            assert all(one.quantity > 0 for one in found)
            assert not list(differences())
            kept = DimensionUse.objects.filter(customer=customer).values_list("values", flat=True)
            assert all(values <= 2 + len(named) for values in kept)
            transaction.set_rollback(True)
