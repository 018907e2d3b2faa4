"""The budget card and its form, in place and as pages of their own; the page of all budgets and alerts."""

import re
from decimal import Decimal
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import Membership, Role
from billing import clock
from billing.budgets.models import Budget
from billing.budgets.services import archive_budget, create_budget, update_budget
from billing.budgets.validation import ThresholdSpec
from billing.errors import Conflict
from billing.notifications.models import OutboxMessage, OutboxStatus
from dashboard.forms import BudgetForm

pytestmark = pytest.mark.django_db
D = Decimal

HTMX = {"HX-Request": "true"}
CARD, FORM = "/c/acme/budget", "/c/acme/budget/edit"
SAID = {"name": "Production", "amount": "2000", "thresholds": "80, 50, 100", "recipients": "owners"}


@pytest.fixture
def owner(client, alice, house):
    client.force_login(alice)
    return client


def as_role(client, user, role):
    Membership.objects.filter(user=user).update(role=role)
    client.force_login(user)
    return client


def percents(budget):
    return sorted(each.percent for each in budget.thresholds.filter(archived_at=None) if each.percent is not None)


# --- without JavaScript ---------------------------------------------------------------------------------------------


def test_an_owner_sets_a_budget_and_is_back_on_the_overview(owner):
    response = owner.post(FORM, SAID)
    assert response.headers["Location"] == "/c/acme/#budget"
    budget = Budget.objects.get()
    assert (budget.customer.key, budget.name, budget.unit, budget.amount) == ("acme", "Production", "USD", 2000)
    assert percents(budget) == [50, 80, 100]
    assert budget.recipients == ["owners"]


def test_where_calls_stop_is_a_control_of_its_own(owner):
    owner.post(FORM, SAID | {"stop_at": "120 %"})
    assert Budget.objects.get().stop_at_percent == 120
    assert "120\N{NO-BREAK SPACE}% ($2,400.00)" in owner.get(CARD).content.decode()
    assert 'name="stop_at" value="120"' in owner.get(FORM).content.decode()

    owner.post(FORM, SAID)
    assert Budget.objects.get().stop_at_percent is None


def test_a_stop_that_is_none_is_said_at_its_field(owner):
    page = owner.post(FORM, SAID | {"stop_at": "-5"}).content.decode()
    assert 'id="id_stop_at_error"' in page


def test_the_form_is_a_page_of_its_own_with_usual_values(owner):
    page = owner.get(FORM).content.decode()
    assert "<html" in page
    assert 'value="50, 80, 100"' in page
    assert "Amount per billing period, in USD" in page


def test_the_card_is_a_page_of_its_own(owner):
    owner.post(FORM, SAID)
    page = owner.get(CARD).content.decode()
    assert "<html" in page
    assert "$2,000.00 per billing period" in page


def test_what_is_wrong_is_said_at_its_field_and_nothing_is_stored(owner):
    response = owner.post(FORM, SAID | {"amount": "2,000"})
    page = response.content.decode()
    assert response.status_code == 422
    assert 'id="id_amount_error"' in page
    assert "such as 2000 or 1250.50" in page
    assert 'value="2,000"' in page
    assert not Budget.objects.exists()


# --- in place -----------------------------------------------------------------------------------------------------


def test_editing_in_place_answers_the_form_alone(owner):
    fragment = owner.get(FORM, headers=HTMX).content.decode()
    assert fragment.lstrip().startswith('<section class="card half" id="budget"')
    assert "<html" not in fragment


def test_saving_in_place_answers_the_card_and_moves_the_page(owner):
    response = owner.post(FORM, SAID, headers=HTMX)
    assert response.status_code == 200
    assert response.headers["HX-Trigger"] == "budgetSaved"
    fragment = response.content.decode()
    assert fragment.lstrip().startswith('<section class="card half" id="budget"')
    assert "<form" not in fragment


def test_an_error_in_place_answers_the_form_with_the_error(owner):
    response = owner.post(FORM, SAID | {"recipients": "stranger@elsewhere.test"}, headers=HTMX)
    assert response.status_code == 422
    assert "no member of Acme" in response.content.decode()
    assert "<html" not in response.content.decode()


def test_cancelling_brings_the_card_back(owner):
    fragment = owner.get(CARD, headers=HTMX).content.decode()
    assert "No budget yet" in fragment
    assert "<html" not in fragment


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_an_edit_keeps_thresholds_that_stay(owner):
    owner.post(FORM, SAID)
    before = dict(Budget.objects.get().thresholds.values_list("percent", "public_id"))
    owner.post(FORM, SAID | {"amount": "2500.50", "thresholds": "50% 90"})
    budget = Budget.objects.get()
    assert budget.amount == D("2500.50")
    assert percents(budget) == [50, 90]
    assert budget.thresholds.get(percent=50).public_id == before[50]


def test_thresholds_that_were_set_as_amounts_stay(owner, acme):
    at = clock.now()
    create_budget(
        customer=acme,
        name="API",
        unit="USD",
        amount=D(100),
        thresholds=[ThresholdSpec(amount=D(42))],
        recipients=["owners"],
        at=at,
    )
    owner.post(FORM, SAID)
    assert list(Budget.objects.get().thresholds.filter(amount=42, archived_at=None))
    assert "$42.00" in owner.get(CARD).content.decode()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "This field is required"),
        ("amount", "", "This field is required"),
        ("amount", "0", "more than zero"),
        ("amount", "-5", "more than zero"),
        ("amount", "1e30", "no number here"),
        ("amount", "NaN", "no number here"),
        ("amount", "$5", "no number here"),
        ("thresholds", "half", "in percent, such as 50, 80, 100"),
        ("thresholds", "0", "more than zero"),
        ("thresholds", "50, 1001", "at most 1000"),
        ("recipients", " , ", "This field is required"),
        ("recipients", "bosses", "neither an e-mail address nor one of"),
    ],
)
def test_a_refusal_names_the_field_and_the_remedy(owner, field, value, said):
    response = owner.post(FORM, SAID | {field: value})
    assert response.status_code == 422
    assert said in response.context["form"].errors[field][0]
    assert f'id="id_{field}_error"' in response.content.decode()


def test_no_threshold_is_allowed_and_said_plainly(owner):
    owner.post(FORM, SAID | {"thresholds": ""})
    assert "nothing: no mail will be sent" in owner.get(CARD).content.decode()


# --- the page of all ------------------------------------------------------------------------------------------------


def make(house, name="Production", amount="4", unit="USD", percents=("50", "80"), **kwargs):
    return create_budget(
        customer=house.customer,
        name=name,
        unit=unit,
        amount=D(amount),
        thresholds=[ThresholdSpec(percent=D(percent)) for percent in percents],
        recipients=["owners"],
        at=clock.now(),
        **kwargs,
    )


def said(client, path=CARD):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", client.get(path).content.decode())))


def test_every_budget_is_listed_with_its_own_use_in_its_own_unit(owner, busy):
    make(busy)
    make(busy, name="Searches", amount="40", unit="credits")
    page = said(owner)
    assert "$5.16 used of $4.00 per billing period, 128.9 %. $1.16 over the budget." in page
    assert "0 credits used of 40 credits per billing period, 0 %. 40 credits left." in page


def test_what_was_told_of_whom_is_listed_and_what_became_of_the_mail(owner, busy, alice):
    make(busy)
    assert "80 % of “Production”" in said(owner)
    assert f"$3.20 of $4.00; mail on its way to {alice.email}" in said(owner)
    OutboxMessage.objects.update(status=OutboxStatus.FAILED)
    assert f"mail could not be delivered to {alice.email}" in said(owner)


def test_an_alert_keeps_what_was_true_when_it_fired(owner, busy):
    made = make(busy)
    owner.post(f"/c/acme/budget/{made.public_id}/edit", SAID | {"amount": "100", "thresholds": "90"})
    page = said(owner)
    assert "80 % of “Production” " in page
    assert "$3.20 of $4.00" in page


def test_a_level_that_is_not_reached_any_more_is_told_apart(owner, busy):
    made = make(busy)
    owner.post(f"/c/acme/budget/{made.public_id}/edit", SAID | {"amount": "100", "thresholds": "50, 80"})
    assert "No longer 80 %" in said(owner)


def test_without_budgets_and_alerts_the_page_says_what_they_are_good_for(owner):
    assert "No budget yet" in said(owner)
    assert "No alert yet" in said(owner)


def test_without_a_subscription_nothing_is_used(client, charlie):
    customer = charlie.memberships.get().customer
    client.force_login(charlie)
    client.post(f"/c/{customer.key}/budget/new", SAID)
    assert "0.00 used of $2,000.00" in said(client, f"/c/{customer.key}/budget")


def test_another_budget_is_made_edited_and_removed(owner, busy):
    make(busy)
    assert owner.post("/c/acme/budget/new", SAID | {"name": "Research"}).headers["Location"] == CARD
    research = Budget.objects.get(name="Research")
    edit = f"/c/acme/budget/{research.public_id}/edit"
    assert 'value="Research"' in owner.get(edit).content.decode()
    assert owner.post(edit, SAID | {"name": "Lab"}).headers["Location"] == f"{CARD}#{research.public_id}"
    assert "Lab" in said(owner)

    owner.post(f"/c/acme/budget/{research.public_id}/remove")
    assert "The budget “Lab” is removed." in said(owner)
    assert owner.get(edit).status_code == 404


def test_a_budget_of_the_same_name_is_refused_at_its_field(owner, busy):
    make(busy)
    response = owner.post("/c/acme/budget/new", SAID)
    assert response.status_code == 422
    assert 'id="id_name_error"' in response.content.decode()


def test_that_a_budget_was_removed_meanwhile_is_said_above_its_form(busy):
    made = make(busy)
    form = BudgetForm(SAID, unit="USD", budget=made)
    archive_budget(budget=made, at=clock.now())
    with pytest.raises(Conflict) as refused:
        update_budget(budget=made, name="Lab", at=clock.now())
    form.refuse(refused.value)
    assert "archived meanwhile" in form.non_field_errors()[0]


def test_a_test_mail_goes_to_whom_the_budget_tells(owner, busy, alice):
    made = make(busy, percents=())
    response = owner.post(f"/c/acme/budget/{made.public_id}/test", follow=True)
    assert f"A test mail is on its way to {alice.email}." in response.content.decode()
    assert OutboxMessage.objects.get().recipient == alice.email


def test_a_budget_of_another_customer_is_not_found(owner, busy, charlie):
    theirs = make(type(busy)(charlie.memberships.get().customer))
    for act in ("edit", "test", "remove"):
        assert owner.post(f"/c/acme/budget/{theirs.public_id}/{act}", SAID).status_code == 404


def test_more_budgets_and_alerts_take_no_more_queries(owner, busy):
    def queries():
        with CaptureQueriesContext(connection) as seen:
            owner.get(CARD)
        return len(seen)

    make(busy)
    queries()
    one = queries()
    for name in ("Research", "Lab"):
        make(busy, name=name)
    assert queries() == one


def test_who_may_not_edit_sees_no_button(client, bob, busy):
    as_role(client, bob, Role.VIEWER)
    made = make(busy)
    page = client.get(CARD).content.decode()
    assert made.name in page
    assert "<form" not in page.split('id="main"')[1].split("<footer")[0]


# --- roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.OWNER, Role.BILLING])
def test_owners_and_billing_members_may_edit(client, bob, house, role):
    as_role(client, bob, role)
    assert client.post(FORM, SAID).status_code == 302
    assert FORM in client.get("/c/acme/").content.decode()


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.VIEWER])
def test_developers_and_viewers_may_look_and_not_edit(client, bob, house, role):
    as_role(client, bob, role)
    assert client.get(FORM).status_code == 403
    assert client.post(FORM, SAID).status_code == 403
    assert not Budget.objects.exists()
    page = client.get("/c/acme/").content.decode()
    assert FORM not in page
    assert "Owners and billing members can change this." in page
    assert client.get(CARD).status_code == 200


def test_a_budget_of_another_customer_cannot_be_reached(owner, globex):
    assert owner.post(reverse("budget-edit", args=["globex"]), SAID).status_code == 404
    assert not Budget.objects.exists()


def test_a_form_without_its_token_is_refused(alice, house):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    assert client.post(FORM, SAID).status_code == 403
