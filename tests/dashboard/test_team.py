"""Owners look after their team and the keys of their programs; others look on."""

from html import unescape

import pytest

from accounts import services
from accounts.models import ApiKey, Invitation, Membership, Role
from billing import clock
from tests.conftest import member
from tests.factories import bearer, make_api_key

pytestmark = pytest.mark.django_db
TEAM = "/c/acme/team"


@pytest.fixture
def owner(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def invitation(acme):
    return services.invite(customer=acme, email="dora@acme.test", role=Role.VIEWER, invited_by=None, at=clock.now())


def of(user):
    return user.memberships.get().pk


def said(response):
    return [str(message) for message in response.context["messages"]]


def test_a_member_sees_who_belongs_but_no_keys_and_no_forms(client, bob, alice, invitation):
    make_api_key(customer=bob.memberships.get().customer, name="secret plan")
    client.force_login(bob)
    page = client.get(TEAM).text
    assert alice.email in page
    assert "dora@acme.test" not in page
    assert "secret plan" not in page
    assert "<select" not in page


def test_an_owner_invites_and_is_told_so(owner, acme, alice):
    response = owner.post(f"{TEAM}/invitations", {"email": "Dora@Acme.test", "role": "billing"}, follow=True)
    assert said(response) == ["Dora@Acme.test gets a mail with a link that works for a week."]
    made = Invitation.objects.get()
    assert (made.customer, made.email, made.role, made.invited_by) == (acme, "dora@acme.test", "billing", alice)
    assert "dora@acme.test" in response.text


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"email": "nobody", "role": "viewer"}, "valid email"),
        ({"email": "bob@acme.test", "role": "viewer"}, "member already"),
        ({"email": "dora@acme.test", "role": "operator"}, "not one of the available choices"),
    ],
)
def test_a_wrong_invitation_is_refused_in_the_form(owner, bob, body, sentence):
    response = owner.post(f"{TEAM}/invitations", body)
    assert response.status_code == 422
    assert sentence in unescape(response.text)
    assert not Invitation.objects.exists()


def test_an_owner_withdraws_an_invitation(owner, invitation):
    owner.post(f"{TEAM}/invitations/{invitation.public_id}/revoke", follow=True)
    invitation.refresh_from_db()
    assert invitation.revoked_at is not None
    assert "dora@acme.test" not in owner.get(TEAM).text


def test_a_new_role_holds_from_the_next_request(owner, client, bob):
    response = owner.post(f"{TEAM}/members/{of(bob)}/role", {"role": "owner"}, follow=True)
    assert said(response) == ["Bob is owner now."]
    client.force_login(bob)
    assert client.post(f"{TEAM}/keys", {"name": "x"}).status_code == 200


def test_a_member_who_was_removed_finds_nothing(owner, client, bob):
    owner.post(f"{TEAM}/members/{of(bob)}/remove")
    client.force_login(bob)
    assert client.get(TEAM).status_code == 404


def test_an_owner_may_leave_when_another_stays(owner, alice, bob):
    Membership.objects.filter(user=bob).update(role=Role.OWNER)
    assert owner.post(f"{TEAM}/members/{of(alice)}/remove")["Location"] == "/"


@pytest.mark.parametrize(("action", "body"), [("remove", {}), ("role", {"role": "viewer"})])
def test_the_last_owner_stays_and_is_told_why(owner, alice, action, body):
    response = owner.post(f"{TEAM}/members/{of(alice)}/{action}", body, follow=True)
    assert said(response) == ["A customer needs an owner. Make somebody else an owner first."]
    assert alice.memberships.get().role == Role.OWNER


def test_a_key_is_shown_once_and_reads_its_customer_until_it_is_revoked(owner, client, acme):
    response = owner.post(f"{TEAM}/keys", {"name": "nightly report"})
    secret, key = response.context["secret"], ApiKey.objects.get()
    assert (key.customer, key.scopes, key.name) == (acme, [], "nightly report")
    assert secret in response.text
    assert secret not in owner.get(TEAM).text
    assert client.get("/api/v1/customers/acme", **bearer(secret)).status_code == 200
    owner.post(f"{TEAM}/keys/{key.public_id}/revoke", follow=True)
    assert client.get("/api/v1/customers/acme", **bearer(secret)).status_code == 401
    assert "nightly report" not in owner.get(TEAM).text


def test_a_key_needs_a_name(owner):
    assert owner.post(f"{TEAM}/keys", {"name": " "}).status_code == 422


@pytest.mark.parametrize("role", [Role.BILLING, Role.DEVELOPER, Role.VIEWER])
def test_only_owners_change_the_team(client, acme, alice, invitation, role):
    client.force_login(member(acme, "erin", role))
    key, _ = make_api_key(customer=acme)
    for path in (
        "invitations",
        f"invitations/{invitation.public_id}/revoke",
        f"members/{of(alice)}/role",
        f"members/{of(alice)}/remove",
        "keys",
        f"keys/{key.public_id}/revoke",
    ):
        assert (path, client.post(f"{TEAM}/{path}", {"role": "owner"}).status_code) == (path, 403)


def test_an_owner_reaches_nothing_of_another_customer(owner, charlie, globex):
    key, _ = make_api_key(customer=globex)
    other = services.invite(customer=globex, email="d@g.test", role=Role.OWNER, invited_by=None, at=clock.now())
    for path in (
        f"members/{of(charlie)}/role",
        f"members/{of(charlie)}/remove",
        f"invitations/{other.public_id}/revoke",
        f"keys/{key.public_id}/revoke",
    ):
        assert (path, owner.post(f"{TEAM}/{path}", {"role": "viewer"}).status_code) == (path, 404)


def test_the_page_asks_the_same_for_one_member_and_for_three(owner, acme, django_assert_num_queries):
    with django_assert_num_queries(6):
        owner.get(TEAM)
    for name in ("erin", "frank"):
        member(acme, name, Role.VIEWER)
        make_api_key(customer=acme)
        services.invite(customer=acme, email=f"{name}@b.test", role=Role.VIEWER, invited_by=None, at=clock.now())
    with django_assert_num_queries(6):
        owner.get(TEAM)


def test_names_with_markup_stay_text(owner, bob):
    bob.name = "<script>alert(1)</script>"
    bob.save()
    assert "<script>alert" not in owner.get(TEAM).text
