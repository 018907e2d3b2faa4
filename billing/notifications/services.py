"""Put a message into the outbox, and send what is due.

The mail may reach a reader twice only if we die between the server's yes and our mark; both copies then carry the
same Message-ID. SMTP allows no better.
"""

import logging
import re
import smtplib
import time
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.validators import validate_email
from django.db import transaction
from django.db.models import QuerySet

from accounts.models import Customer
from billing.notifications import mail
from billing.notifications.models import OutboxMessage, OutboxStatus

logger = logging.getLogger(__name__)

BACKOFF: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 360))  # before the second to sixth try
LEASE: Final = timedelta(minutes=5)  # longer than a send whose every step nearly times out
SENDERS: Final = 2  # at once: a mail server that hangs must not take all workers
PERMANENT: Final = 500  # SMTP replies from here on mean: never
_THREAD = re.compile(r"[A-Za-z0-9._-]{0,128}")


def enqueue(
    *,
    kind: str,
    recipient: str,
    context: dict[str, Any],
    dedup_key: str,
    customer: Customer | None,
    at: datetime,
    channel: str = "email",
    cause: str = "",
    thread: str = "",
) -> None:
    """Queue one message to one address, once per `dedup_key`. Call it in the transaction of its cause.

    `kind` names the templates `emails/<kind>.subject.txt`, `.txt` and `.html`; `context` is JSON and says the same on
    every attempt. What is for a customer on a test clock is kept and never sent. Raises ValidationError for a recipient
    that is no plain e-mail address.
    """
    validate_email(recipient)
    if not _THREAD.fullmatch(thread):
        raise ValueError(f"{thread!r} is no name of a thread: use letters, digits, dots, hyphens and underscores.")
    message = OutboxMessage(
        kind=kind,
        channel=channel,
        recipient=recipient,
        context=context,
        dedup_key=dedup_key,
        customer=customer,
        cause=cause,
        thread=thread,
        next_attempt_at=at,
        status=OutboxStatus.KEPT if customer is not None and customer.test_clock_id else OutboxStatus.QUEUED,
        created_at=at,
    )
    OutboxMessage.objects.bulk_create([message], ignore_conflicts=True)


def deliver(*, at: datetime, limit: int = 50) -> int:
    """Send up to `limit` due messages, each outside of any transaction. Returns how many were sent.

    A mail server that is away ends the run: it is asked once a run, not once a message.
    """
    started = time.monotonic()
    sent = 0
    for _ in range(limit):
        moment = at + timedelta(seconds=time.monotonic() - started)  # a lease counts from its own claim
        message = _claim(at=moment)
        if message is None:
            break
        try:
            mail.compose(message).send(using=mail.MAILER)
        except Exception as error:  # whatever it is, it must not stop the other messages
            _record_failure(message, error, at=moment)
            if _server_is_away(error):
                break
        else:
            _mark(message, status=OutboxStatus.SENT, sent_at=moment, last_error="")
            sent += 1
    return sent


def send_again(*, messages: QuerySet[OutboxMessage], at: datetime) -> int:
    """Queue those of the messages that failed for good, with all their attempts before them; how many."""
    failed = messages.filter(status=OutboxStatus.FAILED)
    return failed.update(status=OutboxStatus.QUEUED, attempts=0, next_attempt_at=at)


def _claim(*, at: datetime) -> OutboxMessage | None:
    """Lease the message that is due longest: queued, or being sent by someone whose lease has ended."""
    with transaction.atomic(durable=True):
        leased = OutboxMessage.objects.filter(status=OutboxStatus.SENDING, next_attempt_at__gt=at)
        if leased[:SENDERS].count() == SENDERS:
            return None
        message = (
            OutboxMessage.objects.select_for_update(skip_locked=True)
            .filter(status__in=[OutboxStatus.QUEUED, OutboxStatus.SENDING], next_attempt_at__lte=at)
            .order_by("next_attempt_at", "id")
            .first()
        )
        if message is not None:
            message.status = OutboxStatus.SENDING
            message.attempts += 1
            message.next_attempt_at = at + LEASE
            message.save(update_fields=["status", "attempts", "next_attempt_at"])
    return message


def _record_failure(message: OutboxMessage, error: Exception, *, at: datetime) -> None:
    """Try again later, or never: after a permanent refusal, and after the last attempt."""
    if _is_permanent(error) or message.attempts > len(BACKOFF):
        logger.error("Message %s failed for good: %r", message.public_id, error)
        _mark(message, status=OutboxStatus.FAILED, last_error=_reason(error))
        return
    logger.warning("Message %s failed, attempt %d: %r", message.public_id, message.attempts, error)
    retry_at = at + BACKOFF[message.attempts - 1]
    _mark(message, status=OutboxStatus.QUEUED, next_attempt_at=retry_at, last_error=_reason(error))


def _mark(message: OutboxMessage, **changes: Any) -> None:
    """Write the outcome, unless our lease ended and another sender took over: then its outcome counts."""
    ours = OutboxMessage.objects.filter(pk=message.pk, status=OutboxStatus.SENDING, attempts=message.attempts)
    if not ours.update(**changes):
        logger.warning("Message %s was taken over by another sender.", message.public_id)


def _is_permanent(error: Exception) -> bool:
    """Whether the recipient or the content is refused for good, as against a server that is away or unwilling."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= PERMANENT for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPDataError):
        return error.smtp_code >= PERMANENT
    return isinstance(error, ValueError)  # an address or a header that no mail can carry


def _server_is_away(error: Exception) -> bool:
    """Whether the trouble is with the server and not with this message (every SMTP error is an OSError)."""
    about_message = (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError)
    return isinstance(error, OSError) and not isinstance(error, about_message)


def _reason(error: Exception) -> str:
    """For people: what the server said, else what went wrong."""
    return f"{type(error).__name__}: {error}"[:500]
