"""An operator sees what was sent to whom, and sends again what failed."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from accounts.models import User
from billing.clock import now
from billing.notifications import services
from billing.notifications.models import OutboxMessage, OutboxStatus

LIST = reverse("admin:billing_outboxmessage_changelist")


@pytest.fixture
def admin(client, olivia):
    client.force_login(olivia)
    return client


def enqueue(recipient: str, **changes) -> OutboxMessage:
    services.enqueue(
        kind="greeting", recipient=recipient, context={"name": "Acme"}, dedup_key=recipient, customer=None, at=now()
    )
    message = OutboxMessage.objects.get(recipient=recipient)
    OutboxMessage.objects.filter(pk=message.pk).update(**changes)
    return message


def send_again(admin, *messages: OutboxMessage):
    chosen = [message.pk for message in messages]
    return admin.post(LIST, {"action": "send_again", "_selected_action": chosen}, follow=True)


def test_a_message_that_failed_for_good_is_sent_once_an_operator_says_so(admin, mail_server):
    failed = enqueue("alice@acme.test", status=OutboxStatus.FAILED, attempts=7, last_error="550 no such mailbox")

    answer = send_again(admin, failed)

    assert "1 of the chosen messages had failed" in answer.content.decode()
    assert services.deliver(at=now()) == 1
    assert mail_server.messages[0]["To"] == "alice@acme.test"


def test_a_message_that_was_sent_is_not_sent_again(admin, mail_server):
    sent = enqueue("alice@acme.test", status=OutboxStatus.SENT, sent_at=now() - timedelta(hours=1))

    answer = send_again(admin, sent)

    assert "0 of the chosen messages had failed" in answer.content.decode()
    assert services.deliver(at=now()) == 0


def test_who_may_only_look_cannot_send_again(client, db):
    reader = User.objects.create_user("reader@vendor.test", "a long passphrase", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_outboxmessage"))
    client.force_login(reader)
    failed = enqueue("alice@acme.test", status=OutboxStatus.FAILED, attempts=7)

    send_again(client, failed)

    failed.refresh_from_db()
    assert failed.status == OutboxStatus.FAILED
