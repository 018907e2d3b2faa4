"""A receipt leads from an event to its meters, lines, price version and ledger, and to nobody else's."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.cycle.services import advance
from billing.metering.correcting import amend_event, void_event
from billing.metering.models import EventIdentity
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, PriceSpec
from tests.factories import bearer, event, ingest, make_api_key, make_meter, make_plan, make_subscription, make_version

D = Decimal
START = datetime(2026, 11, 1, tzinfo=UTC)
AT = START + timedelta(days=3)
TIERS = (Tier(D(10), D(1)), Tier(None, D("0.5")))


@pytest.fixture
def db(committed):
    """Everything is committed: which posting counted an event is known by who sees whose commits."""


@pytest.fixture
def ask(client, globex):
    for key, kind in {"tokens": "sum", "calls": "count", "seats": "max", "users": "unique"}.items():
        value = {"count": "", "sum": "tokens", "max": "tokens", "unique": "user"}[kind]
        make_meter(key, aggregation=kind, value=value, dimensions=["model"])
    prices = (
        PriceSpec("tokens", "tokens", "USD", D(2), match=(MatchSpec({"model": "large"}, D(3)),)),
        PriceSpec("calls", "calls", "credits", scheme="graduated", tiers=TIERS),
        PriceSpec("seats", "seats", "USD", D(5)),
        PriceSpec("users", "users", "USD", D(7)),
    )
    version = make_version(make_plan(), prices=prices, credits=(CreditSpec("credits", D(5)),))
    make_subscription(globex, version, START)
    sent = [event(f"e{n}", "globex", tokens=n, user=n % 2, timestamp=AT) for n in range(12)]
    ingest(*sent, event("large", "globex", tokens=4, model="large", user="x", timestamp=AT), at=AT)
    advance(customer_id=globex.pk, at=AT)

    def get(event_id, key=None, **more):
        return client.get("/api/v1/events/receipt", {"id": event_id, **more}, **bearer(key or make_api_key()[1]))

    return get


def lines(answer):
    return {(meter["meter"], line["row"]): line for meter in answer["meters"] for line in meter["lines"]}


def test_a_receipt_names_meters_lines_price_version_and_ledger(ask):
    answer = ask("large").json()

    assert (answer["status"], answer["corrections"], answer["properties"]["tokens"]) == ("counted", [], 4)
    assert [(one["meter"], one["quantity"], one["dimensions"]) for one in answer["meters"]] == [
        ("tokens", "4", {"model": "large"}),
        ("calls", "1", {"model": "large"}),
        ("seats", "4", {"model": "large"}),
        ("users", "1", {"model": "large"}),
    ]
    assert {one["bucket_start"] for one in answer["meters"]} == {"2026-11-04T00:00:00Z"}
    tokens, calls = lines(answer)["tokens", 1], lines(answer)["calls", 0]
    assert (tokens["amount"], tokens["share"], tokens["share_kind"], tokens["explanation"]) == (
        "12",
        "12",
        "exact",
        "4 x 3",
    )
    assert (tokens["plan"], tokens["version"], tokens["decides"]) == ("pro", 1, None)
    assert (calls["quantity"], calls["amount"], calls["share_kind"]) == ("13", "11.5", "average")
    assert Decimal(calls["share"]) == Decimal("0.884615384615")
    assert len(calls["transactions"]) == 1


def test_a_receipt_names_the_postings_that_took_the_event_into_account_and_no_others(ask, globex):
    first = lines(ask("e3").json())["tokens", 0]["transactions"]
    ingest(event("later", "globex", tokens=1, timestamp=AT), at=AT)
    advance(customer_id=globex.pk, at=AT)
    [later] = lines(ask("later").json())["tokens", 0]["transactions"]
    assert lines(ask("e3").json())["tokens", 0]["transactions"] == first
    assert later not in first

    amend_event(source="default", event_id="e3", properties={"tokens": 30, "user": 1}, reason="test", at=AT)
    advance(customer_id=globex.pk, at=AT)
    said = lines(ask("e3").json())["tokens", 0]["transactions"]
    assert said[:1] == first
    assert len(said) == 2
    assert lines(ask("later").json())["tokens", 0]["transactions"] == [later]


def test_of_what_does_not_add_up_an_event_decides_or_not(ask):
    found = {name: lines(ask(name).json()) for name in ("e11", "e10", "large")}

    assert {name: one["seats", 0]["decides"] for name, one in found.items()} == {
        "e11": True,
        "e10": False,
        "large": False,
    }
    assert {name: one["users", 0]["decides"] for name, one in found.items()} == {
        "e11": False,
        "e10": False,
        "large": True,
    }
    assert found["e11"]["seats", 0]["share"] is None


def test_a_void_event_feeds_nothing_and_an_unpriced_one_has_no_lines(ask, acme):
    void_event(source="default", event_id="e3", reason="test", at=AT)
    ingest(event("a", tokens=1), event("b", "nobody"), at=AT)

    void, unpriced, unmatched = (ask(name).json() for name in ("e3", "a", "b"))

    assert (void["status"], void["meters"], void["corrections"][0]["reason"]) == ("void", [], "test")
    assert [one["lines"] for one in unpriced["meters"]] == [[], [], []]
    assert (unmatched["status"], unmatched["meters"], unmatched["as_of"]) == ("unmatched", [], None)


def test_a_receipt_is_its_customers_own(ask, acme, globex):
    theirs, others = (make_api_key(customer=customer)[1] for customer in (globex, acme))

    assert ask("e3", theirs).status_code == 200
    assert (ask("e3", others).status_code, ask("nobody", others).status_code) == (404, 404)


def test_an_archived_event_is_gone(ask):
    EventIdentity.objects.update(recorded_at=START)

    answer = ask("e3")
    assert (answer.status_code, answer.json()["code"]) == (410, "event_archived")
    assert ask("nobody").status_code == 404
