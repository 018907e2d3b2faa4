"""Credits, spend, the ledger and subscriptions as a vendor's backend meets them."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils.dateparse import parse_datetime

from accounts.models import Scope
from billing.clock import now
from billing.credits.models import CreditGrant
from billing.cycle.services import advance, tick
from billing.periods import quarter_floor
from tests.billing.credits.test_settlement import use
from tests.factories import bearer, make_api_key, make_subscription

GRANT = {"customer": "globex", "unit": "credits", "amount": "50.5", "kind": "paid"}


@pytest.fixture
def operator(db):
    return bearer(make_api_key()[1])


@pytest.fixture
def today(globex, credit_plan):
    """Globex has been a customer for two days; instants are real here, as the API tells no other time."""
    make_subscription(globex, credit_plan, quarter_floor(now() - timedelta(days=2)))
    tick(at=now())
    return globex


def post(client, path, body, key):
    return client.post(f"/api/v1{path}", body, content_type="application/json", **key)


def credits_of(client, key, customer="globex", **query):
    answer = client.get(f"/api/v1/customers/{customer}/credits", query, **key)
    assert answer.status_code == 200, answer.content
    return {found["unit"]: found for found in answer.json()["data"]}


# --- grants ---------------------------------------------------------------------------------------------------


def test_a_grant_is_answered_with_its_rounded_instants(client, today, operator):
    answer = post(client, "/credit-grants", {**GRANT, "expires_at": "2030-01-01T10:07:00+01:00"}, operator)

    body = answer.json()
    assert answer.status_code == 201, body
    assert (body["amount"], body["remaining"], body["kind"], body["priority"]) == ("50.5", "50.5", "paid", 50)
    assert body["expires_at"] == "2030-01-01T09:15:00Z"
    assert parse_datetime(body["effective_at"]).minute % 15 == 0
    assert body["id"].startswith("grant_")


def test_amounts_are_read_as_decimals(client, today, operator):
    body = '{"customer": "globex", "unit": "credits", "amount": 0.1, "kind": "promotional"}'

    answer = client.post("/api/v1/credit-grants", body, content_type="application/json", **operator)

    assert answer.json()["amount"] == "0.1"


@pytest.mark.parametrize("kind", ["paid", "promotional", "plan"])
def test_every_kind_may_be_given(client, today, operator, kind):
    assert post(client, "/credit-grants", {**GRANT, "kind": kind}, operator).status_code == 201


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "1e30"}, "amount"),
        ({"kind": "gift"}, "kind"),
        ({"customer": "nobody"}, "customer"),
        ({"unit": ""}, "unit"),
        ({"priority": -1}, "priority"),
        ({"priority": 40000}, "priority"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"effective_at": "0001-01-01T00:00:00Z"}, "effective_at"),
        ({"effective_at": "2026-01-01T00:00:00"}, "effective_at"),
        ({"meters": ["nothing"]}, "meters"),
        ({"cost_basis": "-1"}, "cost_basis"),
        ({"balance": "1"}, "balance"),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused_by_its_field(client, today, operator, change, field):
    answer = post(client, "/credit-grants", {**GRANT, **change}, operator)

    assert answer.status_code == 400, answer.content
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_grant_that_is_sent_twice_is_given_once(client, today, operator):
    key = {"headers": {**operator["headers"], "Idempotency-Key": "order-7"}}

    first, second = (post(client, "/credit-grants", GRANT, key) for _ in range(2))

    assert first.json() == second.json()
    assert CreditGrant.objects.filter(kind="paid").count() == 1


def test_voiding_forfeits_what_is_left(client, today, operator):
    given = post(client, "/credit-grants", {**GRANT, "priority": 1}, operator).json()
    use(10, now())

    answer = post(client, f"/credit-grants/{given['id']}/void", None, operator)

    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["used"], body["voided"], body["remaining"]) == ("10", "40.5", "0")
    assert post(client, f"/credit-grants/{given['id']}/void", None, operator).status_code == 409
    assert post(client, "/credit-grants/grant_none/void", None, operator).status_code == 404


# --- balances -------------------------------------------------------------------------------------------------


def test_balances_show_where_every_credit_went(client, today, operator):
    use(30, now())
    tick(at=now())

    found = credits_of(client, operator)["credits"]

    [plan] = found["grants"]
    assert [found[name] for name in ("balance", "reserved", "unsettled", "available", "overage")] == [
        "70",
        "0",
        "0",
        "70",
        "0",
    ]
    assert [plan[name] for name in ("amount", "used", "expired", "voided", "remaining")] == [
        "100",
        "30",
        "0",
        "0",
        "70",
    ]


def test_balances_of_another_instant(client, today, operator):
    in_a_year, long_ago = now() + timedelta(days=366), now() - timedelta(days=90)

    assert credits_of(client, operator, at=in_a_year.isoformat())["credits"]["available"] == "0"
    assert credits_of(client, operator, at=long_ago.isoformat()) == {}
    assert client.get("/api/v1/customers/globex/credits?at=yesterday", **operator).status_code == 400


def test_spend_has_overage_at_its_rate(client, today, operator):
    use(130, now())
    tick(at=now())

    answer = client.get("/api/v1/customers/globex/spend?group_by=price", **operator).json()

    assert (answer["total"], answer["unit"], answer["additive"]) == ("0.3", "USD", True)
    assert [(row["group"], row["amount"], row["quantity"]) for row in answer["series"]] == [
        ({"price": "overage:credits"}, "0.3", None)
    ]
    in_credits = client.get("/api/v1/customers/globex/spend?unit=credits&granularity=day", **operator).json()
    assert sum(Decimal(row["amount"]) for row in in_credits["series"]) == Decimal(in_credits["total"]) == 130


# --- ledger ---------------------------------------------------------------------------------------------------


def test_the_ledger_says_why(client, today, operator):
    use(130, now())
    tick(at=now())

    newest, oldest = client.get("/api/v1/customers/globex/ledger", **operator).json()["data"]

    assert (newest["code"], oldest["code"]) == ("usage", "grant")
    assert {(entry["account"], entry["direction"], entry["amount"], entry["price"]) for entry in newest["entries"]} == {
        ("grant", "debit", "100", "searches"),
        ("overage", "debit", "30", "searches"),
        ("consumed", "credit", "100", "searches"),
        ("consumed", "credit", "30", "searches"),
    }


def test_the_ledger_is_read_page_by_page_and_by_code(client, today, operator):
    for _ in range(3):
        post(client, "/credit-grants", GRANT, operator)
    path = "/api/v1/customers/globex/ledger"

    first = client.get(path, {"limit": 2}, **operator).json()
    rest = client.get(path, {"limit": 2, "cursor": first["next_cursor"]}, **operator).json()

    assert len({item["id"] for item in first["data"] + rest["data"]}) == 4
    assert rest["next_cursor"] is None
    assert client.get(path, {"code": "void"}, **operator).json()["data"] == []
    assert client.get(path, {"code": "gift"}, **operator).status_code == 400
    assert client.get(path, {"to": "2020-01-01T00:00:00Z"}, **operator).json()["data"] == []


# --- who --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["credits", "ledger", "spend"])
def test_a_customer_key_reads_its_own_customer_only(client, today, acme, page):
    mine = bearer(make_api_key(customer=today)[1])

    assert client.get(f"/api/v1/customers/globex/{page}", **mine).status_code == 200
    assert client.get(f"/api/v1/customers/acme/{page}", **mine).status_code == 404


def test_a_key_that_reads_gives_nothing(client, today):
    reader = bearer(make_api_key(Scope.BILLING_READ)[1])

    assert post(client, "/credit-grants", GRANT, reader).status_code == 403
    assert post(client, "/credit-grants", GRANT, bearer(make_api_key(customer=today)[1])).status_code == 403


# --- subscriptions --------------------------------------------------------------------------------------------


def test_a_subscription_brings_its_credits_at_once(client, acme, credit_plan, operator):
    answer = post(client, "/subscriptions", {"customer": "acme", "plan": "pro"}, operator)

    assert answer.status_code == 201, answer.content
    assert credits_of(client, operator, "acme")["credits"]["available"] == "100"
    listed = client.get("/api/v1/subscriptions?customer=acme", **operator).json()["data"]
    assert listed == [answer.json()]


def test_a_meter_is_priced_once(client, today, operator):
    answer = post(client, "/subscriptions", {"customer": "globex", "plan": "pro"}, operator)

    assert (answer.status_code, answer.json()["code"]) == (409, "meter_already_priced")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"customer": "nobody"}, "customer"),
        ({"plan": "nothing"}, "plan"),
        ({"version": 7}, "version"),
        ({"anchor_day": 32}, "anchor_day"),
        ({"starts_at": "9999-12-31T23:59:59Z"}, "starts_at"),
        ({"starts_at": "0001-01-01T00:00:00Z"}, "starts_at"),
        ({"status": "ended"}, "status"),
    ],
)
@pytest.mark.usefixtures("acme")
def test_a_subscription_that_makes_no_sense_is_refused_by_its_field(client, credit_plan, operator, change, field):
    answer = post(client, "/subscriptions", {"customer": "acme", "plan": "pro", **change}, operator)

    assert answer.status_code == 400, answer.content
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_subscription_that_began_last_year_has_had_all_its_periods(client, acme, credit_plan, operator):
    began = quarter_floor(now() - timedelta(days=400))
    answer = post(
        client, "/subscriptions", {"customer": "acme", "plan": "pro", "starts_at": began.isoformat()}, operator
    )

    assert answer.status_code == 201, answer.content
    grants = credits_of(client, operator, "acme")["credits"]["grants"]
    assert [grant["remaining"] for grant in grants] == ["100"] + ["0"] * (len(grants) - 1)
    assert len(grants) in (14, 15)
    advance(customer_id=acme.pk, at=now())
