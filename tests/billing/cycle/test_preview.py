"""What a version would have charged for real usage, beside what the present one asks: to the cent, and read-only."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.cycle.preview import percent, preview, preview_everyone
from billing.periods import Interval
from billing.pricing import agreements
from billing.pricing.queries import spec_of
from billing.pricing.services import create_version
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec
from tests.factories import (
    bearer,
    event,
    fold,
    ingest,
    make_api_key,
    make_meter,
    make_plan,
    make_subscription,
    make_version,
)

D = Decimal
START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
TOKENS = PriceSpec("tokens", "tokens", "USD", D(2), match=(MatchSpec({"model": "large"}, D(5)),))
CALLS = PriceSpec("calls", "calls", "credits", D(1))
TERMS = {
    "base_fee": D(20),
    "prices": (TOKENS, CALLS),
    "credits": (CreditSpec("credits", D(10)),),
    "overage": (OverageSpec("credits", D("0.5")),),
}


@pytest.fixture
def version(db):
    make_meter("tokens", dimensions=["model"])
    make_meter("calls", aggregation="count", event_type="call")
    return make_version(make_plan(), **TERMS)


def use(customer, *, at=START + timedelta(days=2), tokens=0, large=0, calls=0):
    name = f"{customer.key}-{at:%d%H%M}"
    sent = [event(f"{name}-c{n}", customer.key, type="call", timestamp=at.isoformat()) for n in range(calls)]
    for model, quantity in (("small", tokens), ("large", large)):
        if quantity:
            sent.append(
                event(f"{name}-{model}", customer.key, timestamp=at.isoformat(), model=model, tokens=str(quantity))
            )
    ingest(*sent, at=NOW)
    fold(customer, at=NOW)


@pytest.fixture
def subscribed(globex, version):
    make_subscription(globex, version, START, anchor_day=1)
    use(globex, tokens=10, large=4, calls=14)
    return globex


def ask(customer, spec, interval=None):
    return preview(customer, spec, "USD", interval, at=NOW)


def test_it_charges_what_the_present_version_does_when_nothing_changes(subscribed, version):
    found = ask(subscribed, spec_of(version))

    assert found.now is not None
    assert found.now.amount == found.then.amount == 20 + 10 * 2 + 4 * 5 + 4 * D("0.5")
    assert found.difference == 0


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"base_fee": D(25)}, 5),
        ({"prices": (replace(TOKENS, unit_amount=D(1)), CALLS)}, -10),
        ({"prices": (replace(TOKENS, match=()), CALLS)}, -12),
        ({"prices": (replace(TOKENS, included=D(4)), CALLS)}, -8),
        ({"prices": (replace(TOKENS, minimum_amount=D(30)), CALLS)}, 10),
        ({"prices": (replace(TOKENS, maximum_amount=D(15)), CALLS)}, -5),
        ({"prices": (TOKENS,)}, -2),
        ({"credits": (CreditSpec("credits", D(14)),)}, -2),
        ({"credits": (CreditSpec("USD", D(30)),)}, -30 + 5),
        ({"overage": (OverageSpec("credits", D(1)),)}, 2),
        ({"minimum_spend": D(100)}, 38),
    ],
)
def test_every_term_counts(subscribed, version, change, difference):
    assert ask(subscribed, replace(spec_of(version), **change)).difference == difference


def agree(customer, version, amount="0.5", **dates):
    return agreements.override_price(
        customer=customer,
        price=version.prices.get(key="tokens"),
        row=None,
        amounts=MatchSpec({}, D(amount)),
        at=START,
        **dates,
    )


def test_what_was_agreed_with_the_customer_counts_on_both_sides_where_it_is_carried_over(subscribed, version):
    agree(subscribed, version)

    kept = ask(subscribed, replace(spec_of(version), base_fee=D(25)))
    lost = ask(subscribed, replace(spec_of(version), prices=(replace(TOKENS, per=D(2)), CALLS)))

    assert kept.difference == 5
    assert kept.now.amount == 20 + 10 * D("0.5") + 4 * 5 + 4 * D("0.5")
    # The plan's 10 x 2 / 2 instead of 10 x 0.5, and half of 4 x 5.
    assert lost.difference == 10 - 5 - 10


def test_what_was_agreed_for_the_version_itself_counts_while_it_holds(subscribed, version):
    agree(subscribed, version)
    other = make_version(version.plan, **TERMS)
    agree(subscribed, other, "0.1", starts_at=START + timedelta(days=10), ends_at=START + timedelta(days=11))
    use(subscribed, at=START + timedelta(days=10), tokens=20)

    found = preview(subscribed, spec_of(other), "USD", None, under=other, at=NOW)
    assert found.difference == 20 * (D("0.1") - D("0.5"))
    # Said of no version, it is as if nothing were agreed for it.
    assert ask(subscribed, spec_of(other)).difference == 0


def test_a_range_counts_in_proportion_and_only_its_own_usage(subscribed, version):
    use(subscribed, at=START + timedelta(days=15), tokens=7)
    spec = replace(spec_of(version), credits=(), overage=(), base_fee=D(30))

    found = ask(subscribed, spec, Interval(START + timedelta(days=10), START + timedelta(days=20)))

    assert found.then.amount == 10 + 7 * 2


def test_without_a_subscription_the_range_is_one_period(globex, version):
    use(globex, tokens=3)

    found = ask(globex, spec_of(version), Interval(START, START + timedelta(days=5)))

    assert (found.now, found.difference, found.then.amount) == (None, None, 20 + 6)


def test_everyone_on_a_version_is_told_by_what_changes_most(subscribed, acme, version, django_assert_num_queries):
    make_subscription(acme, version, START, anchor_day=1)
    use(acme, tokens=100)
    spec = replace(spec_of(version), prices=(replace(TOKENS, unit_amount=D("1.5")), CALLS))

    with django_assert_num_queries(15):
        found = preview_everyone(spec, "USD", version)

    assert [(one.customer.key, one.difference) for one in found.previews] == [("acme", -50), ("globex", -5)]
    assert (found.now, found.then) == (62 + 220, 57 + 170)
    assert percent(found.now, found.then) == D("-19.503546099291")


def test_nothing_is_written(subscribed, version, django_assert_num_queries):
    before = [model.objects.count() for model in (type(version), type(subscribed.subscriptions.get()))]
    ask(subscribed, spec_of(version))
    assert before == [model.objects.count() for model in (type(version), type(subscribed.subscriptions.get()))]
    assert subscribed.subscriptions.get().periods.count() == 1


# --- over HTTP ------------------------------------------------------------------------------------------------


@pytest.fixture
def call(client, version):
    _, secret = make_api_key()
    draft = create_version(plan=version.plan, spec=replace(spec_of(version), base_fee=D(25)), at=NOW)
    path = f"/api/v1/plans/pro/versions/{draft.number}/preview"

    def send(method, body):
        return getattr(client, method)(path, body, content_type="application/json", **bearer(secret))

    return send


def test_a_draft_is_previewed_for_a_customer(call, subscribed):
    asked = {"customer": "globex", "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}

    shown = call("post", asked).json()

    assert (shown["amount"], shown["now"], shown["difference"], shown["unit"]) == ("67", "62", "5", "USD")
    assert shown["percent"] == "8.064516129032"
    assert (shown["from"], shown["to"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert [(line["price"], line["row"], line["amount"]) for line in shown["then_charged"]["lines"]] == [
        ("tokens", 0, "20"),
        ("tokens", 1, "20"),
        ("calls", 0, "14"),
    ]
    assert shown["then_charged"]["fees"] == "25"


def test_a_draft_is_previewed_for_everyone_on_the_version_before(call, subscribed):
    shown = call("put", {}).json()

    assert (shown["version"], shown["amount"], shown["now"]) == (1, "67", "62")
    assert [row["customer"] for row in shown["customers"]] == ["globex"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"customer": "nobody"}, "customer"),
        ({"customer": "globex", "from": "2026-11-01T00:00:00Z"}, "to"),
        ({"customer": "globex", "from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "to"),
        ({"customer": "globex", "from": "2016-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "from"),
        ({}, "customer"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_at_its_field(call, globex, body, field):
    response = call("post", body)

    assert response.status_code == 400
    assert [error["field"] for error in response.json()["errors"]] == [field]
