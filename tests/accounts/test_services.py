"""Customers, members, invitations and keys, one test for each way out."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connection

from accounts import invitation_links, queries, services
from accounts.models import ApiKey, Customer, Invitation, Membership, Role, Scope, User
from tests.conftest import PASSWORD, member

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


def invite(customer, email="dora@acme.test", role=Role.VIEWER, at=NOW):
    return services.invite(customer=customer, email=email, role=role, invited_by=None, at=at)


def together(*actions):
    """Run the actions in threads that start at once; what each raised or returned."""
    barrier, outcomes = threading.Barrier(len(actions)), [None] * len(actions)

    def run(index, action):
        try:
            barrier.wait()
            outcomes[index] = action()
        except ValidationError as error:
            outcomes[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def refused(outcomes):
    return [outcome for outcome in outcomes if isinstance(outcome, ValidationError)]


# --- customers


@pytest.mark.django_db
def test_a_customer_is_created_with_what_was_asked():
    made = services.create_customer(key="acme", name="Acme", currency="EUR", timezone="Asia/Tokyo", at=NOW)
    stored = Customer.objects.get(key="acme")
    assert stored == made
    assert (stored.name, stored.currency, stored.timezone, stored.created_at) == ("Acme", "EUR", "Asia/Tokyo", NOW)


@pytest.mark.parametrize(
    "wrong", [{"key": "a b"}, {"timezone": "Mars/Base"}, {"currency": "usd"}, {"email": "nobody"}, {"name": ""}]
)
@pytest.mark.django_db
def test_a_wrong_customer_is_refused_by_the_name_of_the_field(wrong):
    with pytest.raises(ValidationError) as refusal:
        services.create_customer(**{"key": "acme", "name": "Acme", **wrong}, at=NOW)
    assert set(wrong) <= set(refusal.value.message_dict) or "__all__" in refusal.value.message_dict
    assert not Customer.objects.exists()


def test_of_two_customers_with_one_key_at_once_one_is_made(committed):
    outcomes = together(*[lambda: services.create_customer(key="acme", name="Acme", at=NOW)] * 2)
    assert [error.message_dict.keys() for error in refused(outcomes)] == [{"key"}]
    assert Customer.objects.count() == 1


def test_an_update_writes_only_what_is_named(acme):
    Customer.objects.filter(pk=acme.pk).update(email="new@acme.test")
    services.update_customer(customer=acme, timezone="Asia/Kathmandu", at=NOW)
    acme.refresh_from_db()
    assert (acme.timezone, acme.email) == ("Asia/Kathmandu", "new@acme.test")


# --- members


def test_members_are_listed_owners_first(acme, bob, alice):
    dora = member(acme, "dora", Role.BILLING)
    assert [membership.user for membership in queries.memberships(acme)] == [alice, dora, bob]


def test_the_last_owner_can_neither_leave_nor_become_less(acme, alice, bob):
    (last,) = Membership.objects.filter(role=Role.OWNER)
    with pytest.raises(ValidationError, match="needs an owner"):
        services.remove_member(membership=last, at=NOW)
    with pytest.raises(ValidationError, match="needs an owner"):
        services.change_role(membership=last, role=Role.VIEWER, at=NOW)
    assert services.change_role(membership=last, role=Role.OWNER, at=NOW).role == Role.OWNER


def test_an_owner_may_leave_when_another_stays(acme, alice, bob):
    services.change_role(membership=bob.memberships.get(), role=Role.OWNER, at=NOW)
    services.remove_member(membership=alice.memberships.get(), at=NOW)
    assert [membership.user for membership in queries.memberships(acme)] == [bob]


def test_two_owners_who_remove_each_other_leave_one(committed):
    acme = services.create_customer(key="acme", name="Acme", at=NOW)
    first, second = (member(acme, name, Role.OWNER).memberships.get() for name in ("alice", "bob"))
    outcomes = together(
        lambda: services.remove_member(membership=first, at=NOW),
        lambda: services.change_role(membership=second, role=Role.VIEWER, at=NOW),
    )
    assert len(refused(outcomes)) == 1
    assert Membership.objects.filter(role=Role.OWNER).count() == 1


# --- invitations


def test_a_link_leads_to_its_invitation_and_no_other(acme):
    invitation = invite(acme)
    token = invitation_links.link(invitation.public_id).rpartition("/")[2]
    assert invitation_links.find(token) == invitation
    assert invitation_links.find(token[:-1] + ("a" if token[-1] != "a" else "b")) is None
    assert invitation_links.find(invitation.public_id) is None


def test_accepting_makes_a_member_with_the_role_that_was_offered(acme, charlie):
    invitation = invite(acme, charlie.email, Role.BILLING)
    services.accept_invitation(invitation=invitation, user=charlie, at=NOW)
    assert charlie.memberships.get(customer=acme).role == Role.BILLING
    assert list(queries.open_invitations(acme, NOW)) == []


def test_a_new_person_becomes_a_user_who_can_sign_in(acme):
    invitation = invite(acme, " Dora@ACME.test ")
    user = services.accept_as_new_person(invitation=invitation, name="Dora", password=PASSWORD, at=NOW)
    assert (user.email, user.name, user.check_password(PASSWORD)) == ("dora@acme.test", "Dora", True)
    assert user.memberships.get().role == Role.VIEWER


@pytest.mark.parametrize("password", ["short", "password12", "dora@acme.test"])
def test_a_new_person_needs_a_good_password(acme, password):
    with pytest.raises(ValidationError):
        services.accept_as_new_person(invitation=invite(acme), name="", password=password, at=NOW)
    assert not User.objects.exists()


def test_an_address_that_has_an_account_must_sign_in(acme, charlie):
    invitation = invite(acme, charlie.email)
    with pytest.raises(ValidationError, match="Sign in"):
        services.accept_as_new_person(invitation=invitation, name="", password=PASSWORD, at=NOW)


def test_only_the_address_that_was_invited_may_accept(acme, charlie):
    with pytest.raises(ValidationError, match=r"dora@acme\.test"):
        services.accept_invitation(invitation=invite(acme), user=charlie, at=NOW)
    assert not acme.memberships.exists()


def test_an_invitation_that_was_revoked_expired_or_used_cannot_be_accepted(acme, charlie):
    revoked = invite(acme, charlie.email)
    services.revoke_invitation(invitation=revoked, at=NOW)
    used = invite(acme, charlie.email)
    services.accept_invitation(invitation=used, user=charlie, at=NOW)
    charlie.memberships.filter(customer=acme).delete()
    expired = invite(acme, charlie.email, at=NOW - timedelta(days=8))
    for invitation in (revoked, used, expired):
        with pytest.raises(ValidationError, match="ended"):
            services.accept_invitation(invitation=invitation, user=charlie, at=NOW)
    assert not acme.memberships.exists()


def test_inviting_an_address_again_replaces_the_first_invitation(acme):
    first, second = invite(acme), invite(acme, role=Role.OWNER)
    first.refresh_from_db()
    assert first.revoked_at == NOW
    assert list(queries.open_invitations(acme, NOW)) == [second]


def test_a_member_is_not_invited_again(acme, bob):
    with pytest.raises(ValidationError, match="member already"):
        invite(acme, bob.email)


@pytest.mark.parametrize("address", ["", "nobody", "a@b.test, c@d.test", "a@b.test\nBcc: x@y.test"])
def test_an_invitation_needs_one_plain_address(acme, address):
    with pytest.raises(ValidationError):
        invite(acme, address)


def test_of_two_invitations_at_once_one_stays_open(committed):
    acme = services.create_customer(key="acme", name="Acme", at=NOW)
    together(*[lambda: invite(acme)] * 2)
    assert queries.open_invitations(acme, NOW).count() == 1


def test_of_two_clicks_at_once_one_accepts(committed):
    acme = services.create_customer(key="acme", name="Acme", at=NOW)
    dora = User.objects.create_user("dora@acme.test", PASSWORD)
    invitation = invite(acme)
    accept = lambda: services.accept_invitation(invitation=invitation, user=dora, at=NOW)  # noqa: E731 -- twice the same
    assert len(refused(together(accept, accept))) == 1
    assert Membership.objects.count() == 1
    assert Invitation.objects.get().accepted_at == NOW


# --- keys


@pytest.mark.django_db
def test_a_key_is_stored_as_a_digest_beside_a_short_beginning():
    key, secret = services.create_api_key(name="gateway", scopes=[Scope.EVENTS_WRITE], at=NOW)
    stored = ApiKey.objects.filter(pk=key.pk).values().get()
    assert secret.startswith(key.prefix)
    assert len(secret) - len(key.prefix) > 27  # 160 bits stay unseen
    assert not [value for value in stored.values() if secret in str(value)]


@pytest.mark.parametrize(
    "wrong", [{}, {"scopes": ["events:write"], "own": True}, {"scopes": ["events:write"], "expires_at": NOW}]
)
def test_a_key_without_sense_is_refused(acme, wrong):
    customer = acme if wrong.pop("own", False) else None
    with pytest.raises(ValidationError):
        services.create_api_key(name="x", customer=customer, at=NOW, **wrong)


def test_revoking_twice_keeps_the_first_time(acme):
    key, _ = services.create_api_key(name="x", customer=acme, at=NOW)
    services.revoke_api_key(key=key, at=NOW)
    services.revoke_api_key(key=key, at=NOW + timedelta(hours=1))
    assert key.revoked_at == NOW
