"""Who is invited gets one mail, whose link lets them in and is written down nowhere else."""

import re
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from accounts import services
from accounts.models import Invitation, Role
from billing import clock
from billing.notifications import invitations, mail
from billing.notifications.models import OutboxMessage
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def invite(customer, email="dora@acme.test", **fields):
    values = {"role": Role.BILLING, "invited_by": None, "at": clock.now(), **fields}
    return services.invite(customer=customer, email=email, **values)


def test_an_invitation_is_announced_once(acme, alice):
    invite(acme, invited_by=alice)
    assert [invitations.announce(at=clock.now()) for _ in range(2)] == [1, 0]
    message = OutboxMessage.objects.get()
    assert (message.recipient, message.customer) == ("dora@acme.test", acme)
    assert mail.subject(message) == "Join Acme on Headroom"
    assert "Alice invites you to see what Acme uses and spends, as billing." in mail.text(message)


def test_the_link_in_both_parts_lets_the_reader_in(client, acme):
    invite(acme)
    invitations.announce(at=clock.now())
    message = OutboxMessage.objects.get()
    links = {
        re.search(r"http[^\s\"]+/invitations/[^\s\"]+", part)[0] for part in (mail.text(message), mail.html(message))
    }
    (link,) = links
    response = client.post(urlsplit(link).path, {"name": "Dora", "password": PASSWORD})
    assert response.status_code == 302
    assert acme.memberships.get().role == Role.BILLING


def test_no_table_holds_the_link(acme):
    invite(acme)
    invitations.announce(at=clock.now())
    message = OutboxMessage.objects.get()
    secret = re.search(r"/invitations/\S+:(\S+)", mail.text(message))[1]
    assert secret not in str(OutboxMessage.objects.values().get()) + str(Invitation.objects.values().get())


def test_an_invitation_that_has_ended_is_not_announced(acme):
    services.revoke_invitation(invitation=invite(acme), at=clock.now())
    invite(acme, "eve@acme.test", at=clock.now() - timedelta(days=8))
    assert invitations.announce(at=clock.now()) == 0


def test_inviting_again_sends_another_mail(acme):
    for _ in range(2):
        invite(acme)
        invitations.announce(at=clock.now())
    assert OutboxMessage.objects.count() == 2


def test_a_name_with_markup_stays_text(acme):
    acme.name = "<b>Acme</b>\r\nBcc: eve@evil.test"
    acme.save()
    invite(acme)
    invitations.announce(at=clock.now())
    message = OutboxMessage.objects.get()
    assert mail.subject(message) == "Join <b>Acme</b> Bcc: eve@evil.test on Headroom"
    assert "&lt;b&gt;Acme" in mail.html(message)
    assert "<b>" not in mail.html(message)
