"""An operator's work with people, customers, invitations and keys."""

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import Permission
from django.urls import reverse

from accounts import services
from accounts.models import ApiKey, Customer, Invitation, Membership, Role, User
from billing import clock
from tests.conftest import PASSWORD
from tests.factories import bearer, make_api_key

CONFIRM = {"_form_submitted": "on"}


@pytest.fixture
def admin(client, olivia):
    client.force_login(olivia)
    return client


def page(model, action, *args):
    return reverse(f"admin:accounts_{model}_{action}", args=args)


def errors(response):
    return response.context["adminform"].form.errors


@pytest.mark.parametrize("model", ["user", "customer", "invitation", "apikey"])
def test_every_list_opens_filled_and_asks_the_same_for_one_row_and_for_three(
    admin, alice, model, django_assert_max_num_queries
):
    for n in range(3):
        customer = services.create_customer(key=f"c{n}", name="C", at=clock.now())
        services.invite(customer=customer, email=f"d{n}@c.test", role=Role.OWNER, invited_by=alice, at=clock.now())
        make_api_key(customer=customer)
    with django_assert_max_num_queries(12):
        assert admin.get(page(model, "changelist")).status_code == 200


def test_a_customer_is_made_and_its_key_and_currency_stay(admin):
    inline = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    body = {"key": "acme", "name": "Acme", "currency": "EUR", "timezone": "Europe/Berlin", "email": "", **inline}
    assert admin.post(page("customer", "add"), body).status_code == 302
    acme = Customer.objects.get()
    admin.post(page("customer", "change", acme.pk), body | {"name": "Acme Ltd", "currency": "USD", "key": "other"})
    acme.refresh_from_db()
    assert (acme.key, acme.name, acme.currency) == ("acme", "Acme Ltd", "EUR")


def test_a_wrong_zone_is_said_beside_its_field(admin):
    body = {"key": "acme", "name": "Acme", "currency": "EUR", "timezone": "Mars/Base"}
    inline = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    assert list(errors(admin.post(page("customer", "add"), body | inline))) == ["timezone"]


def member_rows(customer, *changes):
    rows = list(customer.memberships.order_by("pk"))
    form = {"memberships-TOTAL_FORMS": len(rows), "memberships-INITIAL_FORMS": len(rows)}
    for index, (row, change) in enumerate(zip(rows, changes, strict=True)):
        values = {"id": row.pk, "customer": customer.pk, "role": row.role} | change
        form |= {f"memberships-{index}-{name}": value for name, value in values.items()}
    return {"name": customer.name, "timezone": customer.timezone, "email": customer.email, **form}


def test_an_owner_may_be_replaced_by_another_in_one_go(admin, acme, alice, bob):
    form = member_rows(acme, {"DELETE": "on"}, {"role": "owner"})
    admin.post(page("customer", "change", acme.pk), form)
    assert [(member.user, member.role) for member in Membership.objects.all()] == [(bob, Role.OWNER)]


@pytest.mark.parametrize("change", [{"DELETE": "on"}, {"role": "viewer"}])
def test_the_last_owner_stays_and_the_operator_is_told_why(admin, acme, alice, change):
    response = admin.post(page("customer", "change", acme.pk), member_rows(acme, change), follow=True)
    assert "needs an owner" in response.text
    assert Membership.objects.get().role == Role.OWNER


def test_the_invite_button_leads_to_the_form_with_the_customer_filled_in(admin, acme):
    response = admin.get(reverse("admin:accounts_customer_invite", args=[acme.pk]), follow=True)
    assert response.context["adminform"].form.initial["customer"] == str(acme.pk)


def test_an_operator_invites_and_revokes(admin, acme, olivia):
    body = {"customer": acme.pk, "email": "Dora@Acme.test", "role": "billing"}
    assert admin.post(page("invitation", "add"), body).status_code == 302
    invitation = Invitation.objects.get()
    assert (invitation.email, invitation.role, invitation.invited_by) == ("dora@acme.test", "billing", olivia)
    assert admin.post(page("invitation", "add"), body).status_code == 302  # replaces the first
    newest = Invitation.objects.latest("pk")
    admin.post(reverse("admin:accounts_invitation_revoke", args=[newest.pk]), CONFIRM)
    assert [one.revoked_at is not None for one in Invitation.objects.all()] == [True, True]


def test_a_member_is_not_invited_again(admin, acme, bob):
    body = {"customer": acme.pk, "email": bob.email, "role": "billing"}
    assert list(errors(admin.post(page("invitation", "add"), body))) == ["email"]


def test_a_key_is_shown_once_and_works_until_it_is_revoked(admin, client):
    body = {"name": "gateway", "scopes": ["billing:read"], "customer": ""}
    response = admin.post(page("apikey", "add"), body)
    secret = response.context["secret"]
    key = ApiKey.objects.get()
    assert secret in response.text
    assert "no-store" in response["Cache-Control"]
    assert secret not in admin.get(page("apikey", "change", key.pk)).text
    assert client.get("/api/v1/customers", **bearer(secret)).status_code == 200
    admin.post(reverse("admin:accounts_apikey_revoke", args=[key.pk]), CONFIRM)
    assert client.get("/api/v1/customers", **bearer(secret)).status_code == 401


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "scopes"),
        ({"scopes": ["billing:read"], "customer": "acme"}, "scopes"),
        ({"customer": "acme", "expires_at_0": "2020-01-01", "expires_at_1": "00:00"}, "expires_at"),
    ],
)
def test_a_key_without_sense_is_refused_beside_its_field(admin, acme, asked, field):
    body = {"name": "x", **asked} | ({"customer": acme.pk} if "customer" in asked else {})
    assert list(errors(admin.post(page("apikey", "add"), body))) == [field]
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("action", ["apikey_revoke", "invitation_revoke", "user_remove_second_factor"])
def test_looking_at_an_action_changes_nothing(admin, acme, alice, action):
    key, _ = make_api_key()
    invitation = services.invite(customer=acme, email="d@a.test", role=Role.OWNER, invited_by=None, at=clock.now())
    ids = {"apikey_revoke": key.pk, "invitation_revoke": invitation.pk, "user_remove_second_factor": alice.pk}
    assert admin.get(reverse(f"admin:accounts_{action}", args=[ids[action]])).status_code == 200
    assert not ApiKey.objects.exclude(revoked_at=None).exists()
    assert not Invitation.objects.exclude(revoked_at=None).exists()


def test_an_operator_is_made_with_a_lower_case_address(admin):
    body = {"email": "Oscar@Vendor.test", "name": "Oscar", "password1": PASSWORD, "password2": PASSWORD}
    assert admin.post(page("user", "add"), body | {"usable_password": "true"}).status_code == 302
    assert User.objects.get(name="Oscar").email == "oscar@vendor.test"


def test_a_lost_second_factor_is_removed(admin, alice):

    Authenticator.objects.create(user=alice, type="totp", data={})
    admin.post(reverse("admin:accounts_user_remove_second_factor", args=[alice.pk]), CONFIRM)
    assert not Authenticator.objects.exists()


@pytest.mark.parametrize("model", ["user", "customer", "invitation", "apikey"])
def test_nothing_is_deleted(admin, acme, alice, model):
    assert admin.post(page(model, "delete", acme.pk), {"post": "yes"}).status_code in {302, 403}
    assert (User.objects.count(), Customer.objects.count()) == (2, 1)


@pytest.fixture
def clerk(client, db):
    """An operator who looks after people, and may do nothing else."""
    clerk = User.objects.create_user("clerk@vendor.test", PASSWORD, name="Clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "change_user"]))
    client.force_login(clerk)
    return clerk


def test_an_operator_cannot_make_themselves_a_superuser(client, clerk):
    body = {"email": clerk.email, "name": "Boss", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    assert client.post(page("user", "change", clerk.pk), body).status_code == 302
    clerk.refresh_from_db()
    assert (clerk.name, clerk.is_superuser) == ("Boss", False)


@pytest.mark.parametrize("superuser", [True, False])
@pytest.mark.parametrize(
    "way", ["accounts_user_change", "auth_user_password_change", "accounts_user_remove_second_factor"]
)
def test_an_operator_cannot_take_over_another_one(client, clerk, olivia, way, superuser):
    User.objects.filter(pk=olivia.pk).update(is_superuser=superuser)
    Authenticator.objects.create(user=olivia, type="totp", data={})
    body = {"email": "mine@vendor.test", "password1": "another long one", "password2": "another long one", **CONFIRM}
    assert client.post(reverse(f"admin:{way}", args=[olivia.pk]), body).status_code == 403
    olivia.refresh_from_db()
    assert (olivia.email, olivia.check_password(PASSWORD)) == ("olivia@vendor.test", True)
    assert Authenticator.objects.exists()


def test_an_operator_who_looks_after_people_changes_members(client, clerk, bob):
    body = {"email": bob.email, "name": "Robert", "is_active": "on"}
    assert client.post(page("user", "change", bob.pk), body).status_code == 302
    bob.refresh_from_db()
    assert bob.name == "Robert"
