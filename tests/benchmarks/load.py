"""What is sent, prepared beforehand, and a lean client: the load generator shares the machine with what it measures."""

import itertools
import json
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlsplit

CUSTOMERS = 200
DIMENSIONS = ["model", "api_key", "region"]
MODELS = ["large-2", "small-1", "nano-1"]
REGIONS = ["eu", "us"]
EVENT_BYTES = 400

type Event = dict[str, object]


def events(customers: int = CUSTOMERS, hot: int = 3) -> Iterator[Event]:
    """Without end, each with an id that was never sent: of 400 bytes as JSON, feeding four meters with three
    dimensions. The first customer has so many tenths of the traffic."""
    sender = uuid.uuid4().hex
    for number in itertools.count():
        mixed = number * 2654435761 % 2**32
        event: Event = {
            "id": f"{sender}-{number}",
            "source": "gateway-1",
            "type": "llm.completion",
            "customer": f"c{0 if number % 10 < hot else 1 + mixed % (customers - 1)}",
            "timestamp": datetime.now(UTC).isoformat(),
            "properties": {
                "model": MODELS[mixed // 7 % 3],
                "api_key": f"key-{mixed // 21 % 5}",
                "region": REGIONS[mixed // 105 % 2],
                "input_tokens": mixed // 147 % 20_000,
                "output_tokens": mixed // 311 % 2_000,
                "cached_tokens": mixed // 13 % 5_000,
                "trace": "",
            },
        }
        missing = EVENT_BYTES - len(json.dumps(event, separators=(",", ":")))
        event["properties"]["trace"] = "x" * missing  # type: ignore[index] # an object
        yield event


def requests(stream: Iterator[Event], batches: int, size: int, secret: str) -> list[bytes]:
    """Whole HTTP requests, ready to be sent."""
    return [request(list(itertools.islice(stream, size)), secret) for _ in range(batches)]


def request(batch: Sequence[Event], secret: str) -> bytes:
    body = json.dumps(batch[0] if len(batch) == 1 else batch, separators=(",", ":")).encode()
    head = (
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {secret}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One kept alive. No library: it would cost as much as what is measured."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer."""
        self.socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += self._more()
        return int(head.split(b" ", 2)[1]), head, body

    def _more(self) -> bytes:
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("The server closed the connection.")
        return more

    def send(self, request: bytes, events: int) -> None:
        """Send events of which each must be accepted."""
        status, _, body = self.ask(request)
        if status != HTTPStatus.OK or json.loads(body)["accepted"] != events:
            raise AssertionError(f"{status}: {body[:500]!r}")


@dataclass(frozen=True, slots=True)
class Sent:
    seconds: float
    latencies: list[float]


def send(url: str, prepared: Sequence[bytes], size: int, connections: int) -> Sent:
    """Send them all over so many connections, each with one request at a time."""
    waiting = iter(prepared)
    latencies: list[float] = []

    def sender(connection: Connection) -> None:
        for request in waiting:
            begun = time.perf_counter()
            connection.send(request, size)
            latencies.append(time.perf_counter() - begun)

    opened = [Connection(url) for _ in range(connections)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(sender, opened))
    seconds = time.perf_counter() - begun
    for one in opened:
        one.socket.close()
    return Sent(seconds, latencies)
