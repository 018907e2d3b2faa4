"""A real mail server on loopback that accepts, refuses, drops or hangs as told."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

HANG_SECONDS = 30


class MailServer:
    """Set `recipient_reply` or `data_reply` to an SMTP reply, or one of the other switches, to misbehave."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.recipient_reply = "250 OK"
        self.data_reply = "250 OK"
        self.hangs = False
        self.drops_after_data = False
        self.kills_sender: int | None = None
        self.port = 0

    @property
    def messages(self) -> list[EmailMessage]:
        """Everything whose content arrived, whatever was answered."""
        return [message_from_bytes(envelope.content, policy=default) for envelope in self.envelopes]

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd looks for this name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.hangs:
            await asyncio.sleep(HANG_SECONDS)
        if self.recipient_reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient_reply

    async def handle_DATA(  # noqa: N802 -- aiosmtpd looks for this name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.envelopes.append(envelope)
        if self.kills_sender:
            os.kill(self.kills_sender, signal.SIGKILL)
        if self.drops_after_data:
            server.transport.close()
        return self.data_reply


class _AnyPort(Controller):
    """Listens on a port that the kernel chose, which aiosmtpd alone does not find out."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def running() -> Iterator[MailServer]:
    mail_server = MailServer()
    controller = _AnyPort(mail_server, hostname="127.0.0.1", port=0)
    controller.start()
    mail_server.port = controller.port
    try:
        yield mail_server
    finally:
        controller.stop()


def mailer(port: int, timeout: float = 2.0) -> dict[str, object]:
    """Django's settings of a mailer that sends to this port."""
    return {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {"host": "127.0.0.1", "port": port, "timeout": timeout},
    }
