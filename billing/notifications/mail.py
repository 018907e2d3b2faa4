"""An outbox message as an e-mail: its three templates, its identity, its thread."""

from email.utils import parseaddr
from typing import Final

from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template import Context, Engine

from billing.notifications.models import OutboxMessage

MAILER: Final = "default"


def compose(message: OutboxMessage) -> EmailMultiAlternatives:
    """The e-mail that every attempt to send this message sends, byte for byte but for its date."""
    mail = EmailMultiAlternatives(
        subject(message),
        text(message),
        settings.DEFAULT_FROM_EMAIL,
        [message.recipient],
        headers=_headers(message),
    )
    mail.attach_alternative(html(message), "text/html")
    return mail


def subject(message: OutboxMessage) -> str:
    """One line, whatever a name in it contains: a line break would begin another header."""
    return " ".join(_render(message, "subject.txt", autoescape=False).split())


def text(message: OutboxMessage) -> str:
    """The plain text, written by hand."""
    return _render(message, "txt", autoescape=False).strip() + "\n"


def html(message: OutboxMessage) -> str:
    return _render(message, "html", autoescape=True)


def _render(message: OutboxMessage, suffix: str, *, autoescape: bool) -> str:
    template = Engine.get_default().get_template(f"emails/{message.kind}.{suffix}")
    return template.render(Context(message.context, autoescape=autoescape))


def _headers(message: OutboxMessage) -> dict[str, str]:
    headers = {
        "Message-ID": f"<{message.public_id}@{_domain()}>",
        "Auto-Submitted": "auto-generated",
    }
    if message.thread:
        # The root of the thread is never sent; mail programs group by it all the same.
        headers["References"] = f"<{message.thread}@{_domain()}>"
    return headers


def _domain() -> str:
    return parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
