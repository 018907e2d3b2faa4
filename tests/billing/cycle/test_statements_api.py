"""The upcoming invoice is the open period's statement, and the bridge leads to it from numbers read elsewhere."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Customer
from billing.credits.models import GrantKind
from billing.credits.services import grant
from billing.credits.statements import period_statement
from billing.cycle.bridge import bridges
from billing.cycle.services import advance
from billing.pricing.agreements import create_coupon
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec
from billing.subscriptions.coupons import redeem
from billing.subscriptions.services import start
from tests.conftest import as_owner
from tests.factories import bearer, event, ingest, make_api_key, make_meter, make_plan, make_subscription, make_version

D = Decimal
START = datetime(2026, 11, 1, tzinfo=UTC)
AT = START + timedelta(days=3)
TIERS = (Tier(D(10), D(1)), Tier(None, D("0.5")))
PRICES = (
    PriceSpec("tokens", "tokens", "USD", D("0.0015"), match=(MatchSpec({"model": "large"}, D("0.003")),)),
    PriceSpec("calls", "calls", "credits", scheme="graduated", tiers=TIERS),
)
FULL = {
    "prices": PRICES,
    "base_fee": D(20),
    "credits": (CreditSpec("credits", D(5)),),
    "overage": (OverageSpec("credits", D("0.012")),),
}


def subscribe(customer, **spec):
    make_meter("tokens", dimensions=["model"])
    make_meter("calls", aggregation="count", value="")
    return make_subscription(customer, make_version(make_plan(), **{**FULL, **spec}), START)


def use(customer, *tokens, at=AT, **properties):
    sent = [
        event(f"{at:%d%H}-{number}", customer.key, tokens=tokens, timestamp=at, **properties)
        for number, tokens in enumerate(tokens)
    ]
    ingest(*sent, at=at)
    advance(customer_id=customer.pk, at=at)


@pytest.fixture
def ask(client, settings):
    def get(what, key="globex", secret=None, **query):
        return client.get(f"/api/v1/customers/{key}/{what}", query, **bearer(secret or make_api_key()[1]))

    return get


@pytest.fixture(autouse=True)
def _present(monkeypatch):
    monkeypatch.setattr("billing.cycle.statements_api.now", lambda *_: AT)


# --- the upcoming invoice ---------------------------------------------------------------------------------------


def test_the_upcoming_invoice_lists_lines_with_their_arithmetic_fees_credits_and_the_amount_due(ask, globex):
    subscription = subscribe(globex)
    use(globex, 100, 203)
    use(globex, 77, model="large", at=AT - timedelta(days=1))
    prepaid = grant(customer=globex, unit="USD", amount=D("0.2"), kind=GrantKind.PAID, at=AT)

    answer = ask("upcoming-invoice").json()

    assert (answer["subscription"], answer["plan"], answer["version"]) == (subscription.public_id, "pro", 1)
    assert (answer["period_start"], answer["period_end"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert (answer["period_status"], answer["unit"], answer["timezone"]) == ("open", "USD", "UTC")
    lines = {(line["kind"], line["price"], line["row"]): line for line in answer["lines"]}
    assert {key: (line["quantity"], line["amount"], line["rounded"], line["unit"]) for key, line in lines.items()} == {
        ("usage", "tokens", 0): ("303", "0.4545", "0.45", "USD"),
        ("usage", "tokens", 1): ("77", "0.231", "0.23", "USD"),
        ("usage", "calls", 0): ("3", "3", "3", "credits"),
    }
    assert lines["usage", "tokens", 0]["explanation"] == "303 x 0.0015"
    assert [(fee["amount"], fee["base_fee_timing"], fee["due_at"]) for fee in answer["fees"]] == [
        ("20", "advance", "2026-11-01T00:00:00Z")
    ]
    paid = {one["unit"]: one["amount"] for one in answer["credits"]}
    assert paid == {"USD": "0.2", "credits": "3"}
    assert prepaid.public_id in {one["grant"] for one in answer["credits"]}
    assert (answer["tax"], answer["true_ups"], answer["discounts"]) == ("0", [], [])
    assert answer["amount_due"] == "20.48"
    assert D(answer["rounding"]) == D("20.48") - (D("0.6855") + 20 - D("0.2"))
    assert [one["unit"] for one in answer["totals"]] == ["USD", "credits"]


def test_credits_beyond_the_grants_are_a_line_in_the_currency(ask, globex):
    subscribe(globex)
    use(globex, *[0] * 13)

    answer = ask("upcoming-invoice").json()

    [overage] = [line for line in answer["lines"] if line["kind"] == "overage"]
    assert (overage["quantity"], overage["amount"], overage["unit"]) == ("6.5", "0.078", "USD")
    assert overage["explanation"] == "6.5 beyond the grants x 0.012"
    assert answer["totals"][1] == {
        "unit": "credits",
        "usage": "11.5",
        "fees": "0",
        "true_ups": "0",
        "late_adjustments": "0",
        "discounts": "0",
        "credits_applied": "5",
        "tax": "0",
        "rounding": "0",
        "amount_due": "6.5",
    }


def test_minimums_are_true_ups_that_are_projected_while_the_period_runs(ask, globex):
    prices = (
        PriceSpec("tokens", "tokens", "USD", D("0.01"), minimum_amount=D(5)),
        PriceSpec("calls", "calls", "credits", D(1), minimum_amount=D(100)),
    )
    subscribe(globex, prices=prices, minimum_spend=D(50))
    use(globex, 123)

    answer = ask("upcoming-invoice").json()

    assert [(one["price"], one["minimum"], one["amount"], one["projected"]) for one in answer["true_ups"]] == [
        ("tokens", "5", "3.77", True),
        ("calls", "100", "1.19", True),
        (None, "50", "23.81", True),
    ]
    assert [one["explanation"] for one in answer["true_ups"]] == [
        "5 minimum - 1.23",
        "(100 minimum - 1) x 0.012",
        "50 minimum - 26.19 charged",
    ]
    assert answer["amount_due"] == "50"


def test_coupons_are_discounts(ask, globex):
    subscription = subscribe(globex)
    redeem(subscription=subscription, coupon=create_coupon(key="half", name="Half", percent=D(50), at=AT), at=AT)
    use(globex, 1000)

    answer = ask("upcoming-invoice").json()

    assert answer["discounts"] == [{"coupon": "half", "name": "Half", "percent": "50", "amount": "10.75"}]
    assert answer["amount_due"] == "10.75"


def test_without_a_subscription_nothing_is_coming_up(ask, globex):
    answer = ask("upcoming-invoice")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_subscription")


def test_a_customers_own_key_reads_its_own_and_no_other(ask, globex, acme):
    subscribe(globex)
    own = make_api_key(customer=globex)[1]

    for what in ("upcoming-invoice", "bridge"):
        assert ask(what, secret=own).status_code == 200
        assert ask(what, key="acme", secret=own).status_code == 404
        assert ask(what, subscription="sub_none").status_code == 404


@pytest.mark.parametrize("events", [10, 40])
def test_cost_does_not_grow_with_events(ask, globex, events, django_assert_num_queries):
    subscribe(globex)
    for day in range(1, events // 10 + 2):
        use(globex, *range(events), at=START + timedelta(days=day), model=f"m{day}")
    secret = make_api_key()[1]
    ask("bridge", secret=secret)

    # key (2), customer, settlement, freshness, period, its parts, add-ons, cells, late, meters, totals, grants, coupons
    with django_assert_num_queries(14):
        ask("upcoming-invoice", secret=secret)
    with django_assert_num_queries(25):
        ask("bridge", secret=secret)


# --- the bridge -------------------------------------------------------------------------------------------------


def check(answer):
    """Every row adds up, and nothing is unexplained."""
    for row in answer["data"]:
        number = {name: D(value) for name, value in row.items() if name != "unit"}
        plus = sum(number[name] for name in ("usage", "fees", "true_ups", "late_adjustments", "tax", "rounding"))
        minus = number["discounts"] + number["credits_applied"]
        assert plus - minus + number["unexplained"] == number["amount_due"]
        assert number["unexplained"] == 0, row


def test_the_bridge_leads_from_usage_to_the_amount_due(ask, globex):
    subscribe(globex, minimum_spend=D(50))
    use(globex, 100, 203, *[7] * 20)
    use(globex, 77, model="large", at=AT - timedelta(days=1))
    grant(customer=globex, unit="USD", amount=D("0.2"), kind=GrantKind.PAID, at=AT)

    answer = ask("bridge").json()

    check(answer)
    usd, credits = answer["data"]
    assert (usd["unit"], usd["usage"], usd["credits_applied"], usd["fees"]) == ("USD", "1.0335", "0.2", "20")
    assert (usd["true_ups"], usd["amount_due"]) == ("28.97", "49.8")
    assert (credits["unit"], credits["usage"], credits["credits_applied"]) == ("credits", "16.5", "5")
    assert usd["amount_due"] == ask("upcoming-invoice").json()["amount_due"]
    spend = ask("spend", unit="USD", **{"from": answer["period_start"], "to": answer["period_end"]}).json()
    assert spend["total"] == usd["usage"]


def test_the_bridge_of_an_earlier_period_is_asked_by_a_day_or_an_instant_of_it(ask, globex):
    subscription = subscribe(globex)
    use(globex, 500)
    use(globex, 300, at=START + timedelta(days=32))

    for when in ("2026-11-01", "2026-11-30", "2026-11-15T12:00:00Z"):
        answer = ask("bridge", period=when, subscription=subscription.public_id).json()
        assert (answer["period_end"], answer["data"][0]["usage"]) == ("2026-12-01T00:00:00Z", "0.75")
        check(answer)
    assert ask("bridge", period="2026-12-01").json()["data"][0]["usage"] == "0.45"
    assert ask("bridge", period="2025-01-01").status_code == 404
    assert ask("bridge", period="soon").json()["errors"][0]["field"] == "period"


def test_two_subscriptions_have_bridges_of_their_own(ask, globex):
    subscribe(globex)
    make_meter("clips", value="tokens")
    clips = PriceSpec("clips", "clips", "USD", D(1))
    other = make_subscription(globex, make_version(make_plan("clips"), prices=(clips,)), START)
    use(globex, 100)

    assert ask("bridge").json()["data"][0]["usage"] == "0.15"
    answer = ask("bridge", subscription=other.public_id).json()
    assert [row["usage"] for row in answer["data"]] == ["100"]
    check(answer)


ENTRIES = "ALTER TABLE billing_ledgerentry {0} TRIGGER append_only;"


@pytest.mark.parametrize(
    ("damage", "units"),
    [
        ("UPDATE billing_usagebucket SET quantity = quantity + 1 WHERE starts_at = '2026-11-04'", {"USD", "credits"}),
        (
            ENTRIES.format("DISABLE")
            + "UPDATE billing_ledgerentry SET amount = amount + 1 WHERE cell_id IS NOT NULL AND direction = 'debit';"
            + ENTRIES.format("ENABLE"),
            {"credits"},
        ),
        (
            ENTRIES.format("DISABLE")
            + "UPDATE billing_ledgerentry SET amount = amount + 1 WHERE cell_id IS NOT NULL AND direction = 'credit';"
            + ENTRIES.format("ENABLE"),
            {"credits"},
        ),
        ("UPDATE billing_allocationcell SET posted = posted + 1 WHERE grant_id IS NOT NULL", {"credits"}),
        ("UPDATE billing_allocationcell SET posted = posted + 1 WHERE grant_id IS NULL AND unit <> 'USD'", {"USD"}),
        ("UPDATE billing_periodtotal SET quantity = quantity + 1", {"USD", "credits"}),
    ],
)
def test_one_wrong_number_is_unexplained(ask, committed, damage, units):
    globex = Customer.objects.create(key="globex", name="Globex")
    subscribe(globex)
    use(globex, *[100] * 20)
    check(ask("bridge").json())

    as_owner(damage)

    rows = ask("bridge").json()["data"]
    assert {row["unit"] for row in rows if D(row["unexplained"])} == units


@pytest.mark.parametrize(("unit", "column"), [("USD", "amount"), ("credits", "covered")])
def test_one_wrong_billed_line_is_unexplained(committed, unit, column):
    globex = Customer.objects.create(key="globex", name="Globex")
    subscription = subscribe(globex)
    use(globex, *[100] * 20)
    for _ in range(2):  # a period never closes in the roll that ends it
        advance(customer_id=globex.pk, at=AT + timedelta(days=60))
    period = subscription.periods.exclude(billed_at=None).first()

    def unexplained():
        found = period_statement(period, at=AT + timedelta(days=60))
        return {one.unit for one in bridges(found) if one.unexplained}

    assert unexplained() == set()
    as_owner(
        "ALTER TABLE billing_billedline DISABLE TRIGGER append_only;"
        f"UPDATE billing_billedline SET {column} = {column} + 1 WHERE unit = '{unit}';"
        "ALTER TABLE billing_billedline ENABLE TRIGGER append_only;"
    )
    assert unexplained() == {unit}


def test_add_ons_are_on_the_statement_and_cost_no_query_more(ask, globex):
    main = subscribe(globex)
    secret = make_api_key()[1]
    counted = []
    for number in range(3):
        if number:
            make_meter(f"m{number}", value="tokens")
            price = PriceSpec("extra", f"m{number}", "USD", D(1))
            version = make_version(make_plan(f"extra{number}", is_add_on=True), prices=(price,), base_fee=D(5))
            start(customer=globex, version=version, starts_at=START, beside=main, at=START)
        use(globex, 7, at=AT + timedelta(hours=number))
        ask("upcoming-invoice", secret=secret)
        with CaptureQueriesContext(connection) as queries:
            answer = ask("upcoming-invoice", secret=secret).json()
        counted.append(len(queries))
        check(ask("bridge", secret=secret).json())
    assert [fee["amount"] for fee in answer["fees"]] == ["20", "5", "5"]
    assert counted[1] == counted[2]
