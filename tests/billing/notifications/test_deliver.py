"""What happens to a message, whatever the mail server does."""

import os
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from psycopg.conninfo import make_conninfo

from billing.notifications import services, tasks
from billing.notifications.models import OutboxMessage, OutboxStatus
from tests import smtp
from tests.billing.notifications.conftest import TEMPLATES

AT = datetime(2025, 11, 23, 10, 0, tzinfo=UTC)


def enqueue(recipient: str = "alice@acme.test", **changes) -> OutboxMessage:
    arguments = {"kind": "greeting", "context": {"name": "Acme"}, "dedup_key": recipient, "customer": None, "at": AT}
    services.enqueue(recipient=recipient, **arguments | changes)
    return OutboxMessage.objects.get(dedup_key=changes.get("dedup_key", recipient))


@pytest.fixture
def message(db) -> OutboxMessage:
    return enqueue()


# --- the mail itself ------------------------------------------------------------------------------------------


def test_a_message_reaches_its_recipient_as_text_and_html(mail_server, message):
    assert services.deliver(at=AT) == 1

    [mail] = mail_server.messages
    assert mail["To"] == "alice@acme.test"
    assert mail["Subject"] == "[Acme] Good morning"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == f"<{message.public_id}@localhost.localdomain>"
    assert mail.get_body(("plain",)).get_content().strip() == "Good morning, Acme."
    assert "<p>Good morning, Acme.</p>" in mail.get_body(("html",)).get_content()
    message.refresh_from_db()
    assert message.status == OutboxStatus.SENT
    assert message.sent_at >= AT


def test_the_task_sends_what_is_due(mail_server, message):
    tasks.deliver()

    assert len(mail_server.messages) == 1


def test_a_sent_message_is_not_sent_again(mail_server, message):
    services.deliver(at=AT)

    assert services.deliver(at=AT + timedelta(days=1)) == 0
    assert len(mail_server.messages) == 1


def test_every_recipient_gets_a_mail_of_their_own(mail_server, db):
    enqueue("alice@acme.test")
    enqueue("bob@acme.test")

    assert services.deliver(at=AT) == 2
    assert sorted(envelope.rcpt_tos for envelope in mail_server.envelopes) == [["alice@acme.test"], ["bob@acme.test"]]


def test_the_same_dedup_key_is_queued_once(db):
    first = enqueue(context={"name": "Acme"})
    second = enqueue(context={"name": "Globex"})

    assert first.pk == second.pk
    assert second.context == {"name": "Acme"}


def test_messages_of_one_thread_name_the_same_root(mail_server, db):
    enqueue("alice@acme.test", dedup_key="1", thread="bud_1.20261101")
    enqueue("alice@acme.test", dedup_key="2", thread="bud_1.20261101")
    services.deliver(at=AT)

    assert [mail["References"] for mail in mail_server.messages] == ["<bud_1.20261101@localhost.localdomain>"] * 2
    assert len({mail["Message-ID"] for mail in mail_server.messages}) == 2


def test_text_is_plain_and_html_is_escaped(mail_server, db):
    enqueue(context={"name": "R&D <script>"})
    services.deliver(at=AT)

    [mail] = mail_server.messages
    assert mail["Subject"] == "[R&D <script>] Good morning"
    assert mail.get_body(("plain",)).get_content().strip() == "Good morning, R&D <script>."
    assert "R&amp;D &lt;script&gt;" in mail.get_body(("html",)).get_content()


@pytest.mark.parametrize("line_break", ["\r\n", "\n", "\r", "\u2028"])
def test_a_line_break_in_a_name_adds_no_header(mail_server, db, line_break):
    enqueue(context={"name": f"Acme{line_break}Bcc: eve@evil.test"})
    services.deliver(at=AT)

    [mail] = mail_server.messages
    assert mail["Subject"] == "[Acme Bcc: eve@evil.test] Good morning"
    assert mail["Bcc"] is None
    assert mail_server.envelopes[0].rcpt_tos == ["alice@acme.test"]


@pytest.mark.parametrize(
    "recipient",
    ["alice@acme.test\nBcc: eve@evil.test", "alice@acme.test, eve@evil.test", "Alice <alice@acme.test>", "alice", ""],
)
def test_a_recipient_that_is_no_single_address_is_refused(db, recipient):
    with pytest.raises(ValidationError):
        enqueue(recipient)


def test_a_thread_that_is_no_name_is_refused(db):
    with pytest.raises(ValueError, match="no name of a thread"):
        enqueue(thread="a>\nBcc: eve@evil.test")


# --- servers that misbehave -----------------------------------------------------------------------------------


def refuse_later(server):
    server.recipient_reply = "451 try again later"


def refuse_content_later(server):
    server.data_reply = "451 try again later"


def drop_after_data(server):
    server.drops_after_data = True


def hang(server):
    server.hangs = True


@pytest.mark.parametrize("trouble", [refuse_later, refuse_content_later, drop_after_data, hang])
def test_a_message_that_could_not_be_sent_waits_a_minute(mail_server, settings, message, trouble):
    settings.MAILERS = {"default": smtp.mailer(mail_server.port, timeout=0.3)}
    trouble(mail_server)

    assert services.deliver(at=AT) == 0

    message.refresh_from_db()
    assert message.status == OutboxStatus.QUEUED
    assert message.attempts == 1
    assert message.last_error
    assert timedelta(minutes=1) <= message.next_attempt_at - AT < timedelta(minutes=2)
    assert services.deliver(at=AT + timedelta(seconds=59)) == 0


def test_a_message_waits_while_no_server_listens(settings, message):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings.MAILERS = {"default": smtp.mailer(port)}

    assert services.deliver(at=AT) == 0

    message.refresh_from_db()
    assert message.status == OutboxStatus.QUEUED
    assert "ConnectionRefusedError" in message.last_error


def test_a_server_that_is_away_is_asked_once_a_run(settings, db):
    first, second = enqueue("alice@acme.test"), enqueue("bob@acme.test")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings.MAILERS = {"default": smtp.mailer(port)}

    services.deliver(at=AT)

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.attempts, second.attempts) == (1, 0)


def test_a_message_is_sent_once_the_server_recovers(mail_server, message):
    refuse_later(mail_server)
    services.deliver(at=AT)
    mail_server.recipient_reply = "250 OK"

    assert services.deliver(at=AT + timedelta(minutes=2)) == 1
    message.refresh_from_db()
    assert (message.status, message.attempts, message.last_error) == (OutboxStatus.SENT, 2, "")


def refuse_for_good(server):
    server.recipient_reply = "550 no such user"


def refuse_content_for_good(server):
    server.data_reply = "554 we do not want this"


@pytest.mark.parametrize("refusal", [refuse_for_good, refuse_content_for_good])
def test_a_message_refused_for_good_fails_at_once_and_says_why(mail_server, message, refusal):
    refusal(mail_server)

    services.deliver(at=AT)

    message.refresh_from_db()
    assert message.status == OutboxStatus.FAILED
    assert "550" in message.last_error or "554" in message.last_error
    assert services.deliver(at=AT + timedelta(days=1)) == 0


def test_one_refused_recipient_does_not_hold_up_the_next(mail_server, settings, db):
    enqueue("alice@acme.test", kind="no-such-kind")
    enqueue("bob@acme.test")

    assert services.deliver(at=AT) == 1
    assert mail_server.envelopes[0].rcpt_tos == ["bob@acme.test"]


def test_after_six_attempts_with_growing_pauses_a_message_fails(mail_server, message):
    refuse_later(mail_server)
    moment, pauses = AT, []
    for _ in range(6):
        services.deliver(at=moment)
        message.refresh_from_db()
        pauses.append(round((message.next_attempt_at - moment) / timedelta(minutes=1)))
        moment = message.next_attempt_at

    assert pauses[:5] == [1, 5, 30, 120, 360]
    assert message.status == OutboxStatus.FAILED
    assert message.attempts == 6


# --- leases ---------------------------------------------------------------------------------------------------


def lease(message: OutboxMessage, until: datetime) -> None:
    OutboxMessage.objects.filter(pk=message.pk).update(status=OutboxStatus.SENDING, attempts=1, next_attempt_at=until)


def test_a_leased_message_is_left_alone_until_its_lease_ends(mail_server, message):
    lease(message, AT + timedelta(minutes=5))

    assert services.deliver(at=AT) == 0
    assert services.deliver(at=AT + timedelta(minutes=5)) == 1


def test_two_senders_at_work_leave_the_other_workers_alone(mail_server, db):
    lease(enqueue("alice@acme.test"), AT + timedelta(minutes=5))
    lease(enqueue("bob@acme.test"), AT + timedelta(minutes=5))
    enqueue("carol@acme.test")

    assert services.deliver(at=AT) == 0


def test_delivery_inside_a_transaction_is_refused(committed):
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        services.deliver(at=AT)


def test_many_senders_at_once_send_each_message_once(committed, mail_server):
    for number in range(20):
        enqueue(f"member{number}@acme.test")

    def send() -> None:
        while services.deliver(at=AT):
            pass
        connection.close()

    senders = [threading.Thread(target=send) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    recipients = [recipient for envelope in mail_server.envelopes for recipient in envelope.rcpt_tos]
    assert sorted(recipients) == sorted(f"member{number}@acme.test" for number in range(20))


@pytest.mark.servers
def test_a_sender_killed_after_the_servers_yes_leaves_two_copies_with_one_message_id(committed, mail_server):
    message = enqueue()
    sender = start_sender(mail_server.port)
    mail_server.kills_sender = sender.pid
    sender.communicate(b"go\n")
    assert sender.returncode == -9
    message.refresh_from_db()
    assert message.status == OutboxStatus.SENDING
    mail_server.kills_sender = None

    assert services.deliver(at=AT + services.LEASE + timedelta(seconds=1)) == 1

    message.refresh_from_db()
    assert message.status == OutboxStatus.SENT
    copies = [mail["Message-ID"] for mail in mail_server.messages]
    assert copies == [f"<{message.public_id}@localhost.localdomain>"] * 2


SENDER = f"""
import django, sys
from datetime import datetime
django.setup()
from django.conf import settings
from billing.notifications import services, tasks
settings.TEMPLATES[0]["DIRS"] = [sys.argv[1]]
sys.stdin.readline()
services.deliver(at=datetime.fromisoformat("{AT.isoformat()}"))
"""


def start_sender(port: int) -> subprocess.Popen:
    """A process that delivers once it reads a line."""
    database = connection.settings_dict
    url = make_conninfo(
        host=database["HOST"],
        port=database["PORT"] or None,
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"] or None,
    )
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": url,
        "MAIL_URL": f"smtp://127.0.0.1:{port}",
    }
    return subprocess.Popen([sys.executable, "-c", SENDER, str(TEMPLATES)], env=environment, stdin=subprocess.PIPE)
