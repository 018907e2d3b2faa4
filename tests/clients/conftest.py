"""A server that fails on request, and clients for it that are closed at the end."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from headroom_client import Client, Rejection

from tests.clients.fake import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def rejections() -> list[Rejection]:
    return []


@pytest.fixture
def connect(server, rejections) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def connect(url: str | None = None, **options: Any) -> Client:
        options = {"proxies": {}, "on_rejected": rejections.append, "timeout": 5, **options}
        clients.append(Client(url or server.url, "hr_key", **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close(timeout=0)


def record(client: Client, *ids: str, **properties: Any) -> None:
    for event_id in ids:
        client.record(id=event_id, type="llm.completion", customer="acme", properties=properties or None)
