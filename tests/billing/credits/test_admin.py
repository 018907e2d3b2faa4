"""An operator gives credits in the admin, and takes back what is left."""

import pytest
from django.urls import reverse

from billing.credits.models import CreditGrant, LedgerTransaction


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
    admin.post(url, {"_form_submitted": "on"})

    grant.refresh_from_db()
    assert (grant.voided_at is not None, grant.forfeited) == (True, 250)
    assert (
        "void already" in admin.get(admin.post(url, {"_form_submitted": "on"}).headers["HX-Redirect"]).content.decode()
    )


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
