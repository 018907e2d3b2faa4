"""Accepting an invitation, and signing in."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.core.cache import cache
from django.urls import reverse

from accounts import invitation_links, services
from accounts.models import Role, User
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_cache(servers):
    cache.clear()


def invite(customer, email, at=None):
    at = at or datetime.now(UTC)
    invitation = services.invite(customer=customer, email=email, role=Role.VIEWER, invited_by=None, at=at)
    return urlsplit(invitation_links.link(invitation.public_id)).path


def test_a_new_person_chooses_a_name_and_a_password_and_is_in(client, acme):
    path = invite(acme, "dora@acme.test")
    assert "Join Acme" in client.get(path).text
    response = client.post(path, {"name": "Dora", "password": PASSWORD})
    assert (response.status_code, response["Location"]) == (302, "/")
    dora = User.objects.get(email="dora@acme.test")
    assert client.session["_auth_user_id"] == str(dora.pk)
    assert dora.memberships.get().customer == acme


def test_a_poor_password_is_refused_beside_its_field(client, acme):
    response = client.post(invite(acme, "dora@acme.test"), {"name": "Dora", "password": "short"})
    assert "too short" in response.text
    assert not User.objects.exists()


def test_somebody_with_an_account_signs_in_first_and_comes_back(client, acme, charlie):
    path = invite(acme, charlie.email)
    assert f"{reverse('account_login')}?next={quote(path)}" in client.get(path).text
    assert client.post(path, {"name": "X", "password": PASSWORD}).status_code == 200
    assert not acme.memberships.exists()
    sign_in = {"login": charlie.email, "password": PASSWORD, "next": path}
    assert client.post(reverse("account_login"), sign_in)["Location"] == path
    assert client.post(path).status_code == 302
    assert acme.memberships.get().user == charlie


def test_another_account_cannot_accept(client, acme, charlie):
    path = invite(acme, "dora@acme.test")
    client.force_login(charlie)
    assert "Sign out" in client.post(path).text
    assert not acme.memberships.exists()


def test_a_link_that_ended_or_was_made_up_says_so(client, acme):
    old = invite(acme, "dora@acme.test", at=datetime.now(UTC) - timedelta(days=8))
    for path in (old, reverse("accept-invitation", args=["inv_made:up"])):
        response = client.get(path)
        assert response.status_code == 410
        assert "has ended" in response.text


def test_nobody_signs_up_without_an_invitation(client):
    response = client.post(
        "/accounts/signup/", {"email": "eve@evil.test", "password1": PASSWORD, "password2": PASSWORD}
    )
    assert "_auth_user_id" not in client.session
    assert response.status_code in {200, 404}
    assert not User.objects.exists()


def test_after_five_wrong_passwords_even_the_right_one_must_wait(client, alice):
    for _ in range(5):
        client.post(reverse("account_login"), {"login": alice.email, "password": "wrong"})
    client.post(reverse("account_login"), {"login": alice.email, "password": PASSWORD})
    assert "_auth_user_id" not in client.session


def test_a_made_up_forwarded_address_does_not_escape_the_limit(client, alice):
    for n in range(12):
        response = client.post(
            reverse("account_login"),
            {"login": f"user{n}@acme.test", "password": "wrong"},
            headers={"X-Forwarded-For": f"203.0.113.{n}"},
        )
    assert "Too many" in response.text


def test_a_known_and_an_unknown_address_get_the_same_answer(client, alice):
    def refusal(email):
        response = client.post(reverse("account_login"), {"login": email, "password": "wrong"})
        return response.status_code, response.context["form"].errors

    assert refusal(alice.email) == refusal("nobody@acme.test")


def test_an_operator_signs_in_where_everybody_does(client):
    response = client.get("/admin/login/?next=/admin/")
    assert (response.status_code, urlsplit(response["Location"]).path) == (302, reverse("account_login"))


def test_a_member_who_is_no_operator_does_not_see_the_admin(client, alice):
    client.force_login(alice)
    assert client.get("/admin/", follow=True).status_code == 403


def test_signing_out_ends_the_session_on_the_server(client, alice):
    client.force_login(alice)
    stolen = client.cookies["sessionid"].value
    client.post(reverse("account_logout"))
    client.cookies["sessionid"] = stolen
    assert client.get(reverse("account_change_password")).status_code == 302


def test_nobody_takes_another_address_alone(client, alice):
    client.force_login(alice)
    for action in ("action_add", "action_primary"):
        client.post("/accounts/email/", {"email": "charlie@globex.test", action: ""})
    alice.refresh_from_db()
    assert alice.email == "alice@acme.test"
    assert not alice.emailaddress_set.filter(email="charlie@globex.test").exists()


def totp(secret):
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


def test_with_a_second_factor_the_password_alone_opens_nothing(client, alice):
    sign_in = {"login": alice.email, "password": PASSWORD}
    client.post(reverse("account_login"), sign_in)
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    secret = client.get(reverse("mfa_activate_totp")).context["form"].secret
    client.post(reverse("mfa_activate_totp"), {"code": totp(secret)})
    client.post(reverse("account_logout"))

    assert client.post(reverse("account_login"), sign_in)["Location"] == reverse("mfa_authenticate")
    assert client.get("/")["Location"].startswith(reverse("account_login"))
    cache.clear()  # a code is good once
    assert client.post(reverse("mfa_authenticate"), {"code": totp(secret)}).status_code == 302
    assert client.session["_auth_user_id"] == str(alice.pk)
