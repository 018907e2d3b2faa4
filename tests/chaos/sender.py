"""A process that sends its batches until each is acknowledged, and notes what it was told.

An acknowledgement is on the disk before the next request is sent. After a broken connection the same events are sent
again, except now and then: some senders never come back.
"""

import json
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPException
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from tests.chaos.load import body

PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 60
LEAST_SECONDS = 0.1  # to wait for an answer when the time is all but over
GIVES_UP = 0.1  # of the requests whose connection broke


@dataclass(frozen=True)
class Orders:
    """What a sender is told. Batches are numbered; `log` is where it notes their outcomes. By `until`, on the clock of
    time.monotonic, which all processes share, it ends, whatever it waits for."""

    place: int
    url: str
    secret: str
    begun: datetime
    batches: list[tuple[int, "array[int]"]]
    log: Path
    seed: str
    until: float


@dataclass(frozen=True)
class Shared:
    """What everybody sees: per sender, the number of the request in flight (0: none) and the events dealt with."""

    in_flight: "SynchronizedArray[int]"
    done: "SynchronizedArray[int]"
    stop: Event


@dataclass(frozen=True)
class Outcome:
    """How one request ended: `ok`, `broken` (no whole answer came), `late` (the time was over before one came),
    `unreachable`, or another status."""

    request: int
    batch: int
    how: str
    counts: dict[str, int]


class Sender:
    def __init__(self, orders: Orders, shared: Shared) -> None:
        self.orders, self.shared = orders, shared
        address = urlsplit(orders.url)
        self.connection = HTTPConnection(address.hostname or "", address.port)
        self.headers = {"Authorization": f"Bearer {orders.secret}", "Content-Type": "application/json"}
        self.random = Random(orders.seed)
        self.requests = 0

    def run(self) -> None:
        with self.orders.log.open("w") as self.log:
            for batch, numbers in self.orders.batches:
                if self._is_over:
                    return
                self._send(batch, body(numbers, self.orders.begun))
                self.shared.done[self.orders.place] += len(numbers)

    @property
    def _is_over(self) -> bool:
        return self.shared.stop.is_set() or time.monotonic() >= self.orders.until

    def _send(self, batch: int, content: bytes) -> None:
        """Until it is acknowledged, given up, or the run is stopped."""
        while True:
            how, counts = self._post(content)
            self._note(Outcome(self.requests, batch, how, counts))
            if how == "ok" or (how == "broken" and self.random.random() < GIVES_UP) or self._is_over:
                return
            time.sleep(PAUSE_SECONDS)

    def _post(self, content: bytes) -> tuple[str, dict[str, int]]:
        self.connection.timeout = max(min(TIMEOUT_SECONDS, self.orders.until - time.monotonic()), LEAST_SECONDS)
        try:
            self.connection.connect()
        except OSError:
            return "unreachable", {}
        self.requests += 1
        with self._flight():
            try:
                self.connection.request("POST", "/api/v1/events", content, self.headers)
                answer = self.connection.getresponse()
                said = answer.read()
            except (OSError, HTTPException):
                return "late" if self._is_over else "broken", {}
            finally:
                self.connection.close()
        if answer.status != 200:
            return str(answer.status), {}
        told = json.loads(said)
        return "ok", {name: count for name, count in told.items() if name != "results"}

    @contextmanager
    def _flight(self) -> Iterator[None]:
        self.shared.in_flight[self.orders.place] = self.requests
        yield
        self.shared.in_flight[self.orders.place] = 0

    def _note(self, outcome: Outcome) -> None:
        self.log.write(json.dumps([outcome.request, outcome.batch, outcome.how, outcome.counts]) + "\n")
        self.log.flush()
        if outcome.how == "ok":
            os.fsync(self.log.fileno())


def send(orders: Orders, shared: Shared) -> None:
    Sender(orders, shared).run()


def outcomes(log: Path) -> Iterator[Outcome]:
    """What the sender noted."""
    with log.open() as lines:
        for line in lines:
            yield Outcome(*json.loads(line))
