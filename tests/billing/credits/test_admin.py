"""An operator gives credits in the admin, and takes back what is left."""

import csv
from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest
from django.urls import reverse

from billing.authorizations import grants_admin
from billing.credits import liability, services
from billing.credits.models import CreditGrant, GrantKind, LedgerTransaction
from billing.cycle.services import advance
from tests.billing.credits.conftest import START
from tests.billing.credits.test_settlement import use


@pytest.fixture
def admin(client, olivia):
    client.force_login(olivia)
    return client


def grant_form(customer, **changes) -> dict[str, str]:
    return {
        "customer": customer.pk,
        "unit": "credits",
        "amount": "250",
        "kind": "promotional",
        "priority": "50",
        "reason": "Sorry for Tuesday",
    } | changes


def test_a_grant_goes_through_the_ledger_and_keeps_its_reason(admin, globex, olivia):
    response = admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex), follow=True)

    grant = CreditGrant.objects.get()
    assert response.status_code == 200
    assert (grant.amount, grant.reason, grant.created_by) == (250, "Sorry for Tuesday", olivia)
    assert LedgerTransaction.objects.get().code == "grant"
    assert "250 credits" in admin.get(reverse("admin:billing_creditgrant_change", args=[grant.pk])).content.decode()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"amount": "0"}, "Send more than 0."),
        ({"reason": ""}, "This field is required."),
        (
            {
                "effective_at_0": "2026-03-02",
                "effective_at_1": "00:00",
                "expires_at_0": "2026-03-01",
                "expires_at_1": "00:00",
            },
            "expires after it begins",
        ),
    ],
)
def test_a_grant_that_makes_no_sense_is_refused_at_its_field(admin, globex, changes, sentence):
    response = admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex, **changes))

    assert sentence in response.content.decode()
    assert not CreditGrant.objects.exists()


def test_voiding_asks_first_and_then_forfeits_the_rest(admin, globex):
    admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex))
    grant = CreditGrant.objects.get()
    url = reverse("admin:billing_creditgrant_void", args=[grant.pk])

    assert "Void this grant?" in admin.get(url).content.decode()
    assert "This field is required" in admin.post(url, {"_form_submitted": "on"}).content.decode()
    admin.post(url, {"_form_submitted": "on", "reason": "Sold twice"})

    grant.refresh_from_db()
    assert (grant.voided_at is not None, grant.forfeited) == (True, 250)
    assert LedgerTransaction.objects.get(code="void").reason == "Sold twice"
    again = admin.post(url, {"_form_submitted": "on", "reason": "Again"})
    assert "void already" in admin.get(again.headers["HX-Redirect"]).content.decode()


def test_a_correction_asks_how_much_and_why(admin, globex):
    admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex))
    grant = CreditGrant.objects.get()
    url = reverse("admin:billing_creditgrant_adjust", args=[grant.pk])
    said = {"_form_submitted": "on", "amount": "-50", "reason": "Typed one zero too many"}

    assert "Adjust this grant" in admin.get(url).content.decode()
    admin.post(url, said)
    refused = admin.post(url, {**said, "amount": "-500"})

    grant.refresh_from_db()
    assert grant.adjusted == -50
    assert "No more than 200 credits can be taken" in admin.get(refused.headers["HX-Redirect"]).content.decode()
    assert LedgerTransaction.objects.get(code="adjustment").reason == "Typed one zero too many"


def test_the_liability_adds_up_to_what_was_given(admin, subscribed, globex):
    given = {"customer": globex, "unit": "credits", "at": START}
    services.grant(**given, amount=Decimal(40), kind=GrantKind.PAID, cost_basis=Decimal("0.5"))
    ended = services.grant(
        **given, amount=Decimal(30), kind=GrantKind.PROMOTIONAL, priority=1, expires_at=START + timedelta(days=2)
    )
    use(12, START + timedelta(hours=1))
    advance(customer_id=globex.pk, at=START + timedelta(days=3))

    [one] = liability.by_unit(START + timedelta(days=3))
    assert (one.given, one.used, one.expired, one.outstanding, one.value) == (170, 12, 18, 140, 20)
    assert (one.expires_soon, one.expires_later) == (100, 100)
    assert one.given == one.used + one.expired + one.voided + one.outstanding
    page = admin.get(reverse("admin:billing_creditgrant_liability")).content.decode()
    file = admin.get(reverse("admin:billing_creditgrant_liability_csv")).content.decode()
    rows = list(csv.DictReader(file.splitlines()))
    assert "Outstanding" in page
    assert {row["expired"] for row in rows if row["grant"] == ended.public_id} == {"18"}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_liability_of_all_is_the_sum_of_every_grant(admin, subscribed, globex, acme, seed):
    random, at = Random(seed), START + timedelta(days=20)
    for number in range(12):
        given = services.grant(
            customer=random.choice([globex, acme]),
            unit=random.choice(["credits", "USD"]),
            amount=Decimal(random.randint(1, 9)),
            kind=GrantKind.PAID,
            cost_basis=random.choice([None, Decimal("0.123456789012")]),
            priority=number,
            expires_at=random.choice([None, START + timedelta(days=random.randint(5, 100))]),
            at=START,
        )
        if number % 4 == 0:
            services.void(grant=given, reason="Sold twice", at=START + timedelta(days=1))
    use(15, START + timedelta(days=2))
    advance(customer_id=globex.pk, at=at)

    expected: dict[tuple[str, str], list[Decimal]] = {}
    for item in liability.grants(at):
        sums = expected.setdefault((item.grant.unit, item.grant.customer.currency), [Decimal(0)] * 6)
        own = item.total - item.rolled_out, item.used, item.expired, item.voided, item.remaining
        sums[:] = map(sum, zip(sums, (*own, liability.value(item) or 0), strict=True))
    found = {
        (one.unit, one.currency): [one.given, one.used, one.expired, one.voided, one.outstanding, one.value]
        for one in liability.by_unit(at)
    }
    assert found == expected


def test_outstanding_grants_come_in_pages_most_first(admin, globex, monkeypatch):
    monkeypatch.setattr(grants_admin, "SHOWN", 2)
    for amount in (3, 1, 5, 2, 4):
        admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex, amount=str(amount)))

    url = reverse("admin:billing_creditgrant_liability")
    pages = [admin.get(url, {"page": number}) for number in (1, 2, 3)]

    shown = [[int(item.remaining) for item, _ in page.context["outstanding"]] for page in pages]
    assert shown == [[5, 4], [3, 2], [1]]
    assert "Grants 3 to 4 of 5" in pages[1].content.decode()
    assert '<a class="hr-button" href="?page=3">Next</a>' in pages[1].content.decode()
    assert "Next</a>" not in pages[2].content.decode()


@pytest.mark.parametrize("grants", [1, 3])
def test_the_liability_takes_the_same_queries_whatever_there_is(admin, globex, grants, django_assert_num_queries):
    for _ in range(grants):
        admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex))

    with django_assert_num_queries(6):  # session, operator, sums, number of grants, a page of them; notices of payments
        admin.get(reverse("admin:billing_creditgrant_liability"))


def test_the_liability_is_for_those_who_may_see_grants(client, alice):
    alice.is_staff = True
    alice.save()
    client.force_login(alice)
    assert client.get(reverse("admin:billing_creditgrant_liability")).status_code == 403
    assert client.get(reverse("admin:billing_creditgrant_liability_csv")).status_code == 403


def test_a_given_grant_is_not_edited_or_deleted(admin, globex):
    admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex))
    grant = CreditGrant.objects.get()

    changed = admin.post(reverse("admin:billing_creditgrant_change", args=[grant.pk]), grant_form(globex, amount="9"))
    deleted = admin.post(reverse("admin:billing_creditgrant_delete", args=[grant.pk]), {"post": "yes"})

    assert (changed.status_code, deleted.status_code) == (403, 403)


@pytest.mark.parametrize("page", ["creditgrant", "ledgertransaction", "settlement", "budget", "alert", "importrun"])
def test_every_list_opens(admin, globex, page):
    admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex))
    assert admin.get(reverse(f"admin:billing_{page}_changelist")).status_code == 200


def test_the_ledger_opens_down_to_its_entries(admin, globex):
    admin.post(reverse("admin:billing_creditgrant_add"), grant_form(globex))
    page = admin.get(reverse("admin:billing_ledgertransaction_change", args=[LedgerTransaction.objects.get().pk]))
    assert "debit" in page.content.decode().lower()
