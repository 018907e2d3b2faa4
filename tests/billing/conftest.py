"""Hypothesis: no deadline, because a busy machine is no failing test. A mail server for whoever asks for one."""

import pytest
from hypothesis import settings as hypothesis

from tests import smtp

hypothesis.register_profile("headroom", deadline=None)
hypothesis.load_profile("headroom")


@pytest.fixture
def mail_server(settings):
    """A real mail server on loopback, and Django told to use it."""
    with smtp.running() as server:
        settings.MAILERS = {"default": smtp.mailer(server.port)}
        yield server
