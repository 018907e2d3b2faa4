"""The client: a queue in memory, a thread that writes it to the backlog, and a thread that sends the backlog."""

import atexit
import logging
import math
import os
import random
import ssl
import threading
import time
import uuid
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from headroom_client.backlog import Backlog, Segment, holds_segments
from headroom_client.events import Rejection, encode
from headroom_client.leases import Lease
from headroom_client.sending import Delivered, Later, Sender

logger = logging.getLogger("headroom_client")

FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 60.0
TAKE_OVER_SECONDS: Final = 30.0
COMPLAINT_SECONDS: Final = 10.0
MAX_EVENTS: Final = 1_000  # the server takes no more at once


@dataclass(frozen=True)
class Stats:
    """What this process recorded and what became of it. Events taken over from ended processes count as answered."""

    recorded: int
    pending: int
    accepted: int
    duplicate: int
    conflict: int
    unmatched: int
    rejected: int
    dropped: int


class Client:
    """Sends events to one Headroom server. Thread-safe; usable on both sides of a fork.

    `url`: where the server answers, without /api. `api_key`: an operator key with the scope events:write.
    `source`: of events that name none. `spool`: a folder for this server's events, may be shared by processes.
    `on_rejected` is called for each event that will not be counted, in a thread of the client or in the caller's.
    A batch is made when `max_events`, `max_bytes` or `max_age` (seconds) is reached. `memory_bytes` bounds what
    waits in memory, `spool_bytes` what this process keeps on disk. `proxies`: None for those of the environment.
    Raises ValueError for settings that cannot work, at once; afterwards nothing here raises.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        source: str = "default",
        spool: str | os.PathLike[str] | None = None,
        on_rejected: Callable[[Rejection], object] | None = None,
        max_events: int = 500,
        max_bytes: int = 1_000_000,
        max_age: float = 0.5,
        memory_bytes: int = 32_000_000,
        spool_bytes: int = 256_000_000,
        fsync: bool = True,
        timeout: float = 10.0,
        close_timeout: float = 5.0,
        context: ssl.SSLContext | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError(f"url: send the server's address, such as https://billing.example.com, not {url!r}.")
        if not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            raise ValueError("api_key: send an operator key of the server.")
        if not 1 <= max_events <= MAX_EVENTS:
            raise ValueError(f"max_events: send a number from 1 to {MAX_EVENTS:,}.")
        self._source = source
        self._on_rejected = on_rejected
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._memory_bytes = memory_bytes
        self._close_timeout = close_timeout
        self._sender = Sender(url, api_key, timeout=timeout, context=context, proxies=proxies)
        self._spool = None if spool is None else Path(spool)
        self._spool_bytes = spool_bytes
        self._fsync = fsync
        self._closing = False
        self._begin()
        _clients.add(self)
        atexit.register(self.close)
        if self._spool is not None and holds_segments(self._spool):
            self._start()

    def _begin(self) -> None:
        """All that belongs to one process."""
        self._changed = threading.Condition()
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued_bytes = 0
        self._backlog = Backlog(
            self._spool,
            max_events=self._max_events,
            max_bytes=self._max_bytes,
            spool_bytes=self._spool_bytes,
            fsync=self._fsync,
        )
        self._threads: list[threading.Thread] = []
        self._threads_failed = False
        self._written = False
        self._abandoned = False
        self._deadline = math.inf
        self._recorded = self._taken = self._settled = self._flush_target = 0
        self._failures = 0
        self._counts: Counter[str] = Counter()
        self._last_complaint = -COMPLAINT_SECONDS
        self._take_over_at = 0.0
        self._looked_around = False

    # What the program calls

    def record(
        self,
        *,
        type: str,
        customer: str,
        properties: Mapping[str, Any] | None = None,
        id: str | None = None,
        source: str | None = None,
        timestamp: datetime | str | None = None,
        authorization: str | None = None,
    ) -> str:
        """Queue one event and return its id. Never waits for the server or the disk.

        Without `id` it gets a new one. An id of your own makes recording the same call twice harmless. `timestamp`
        needs an offset and is now when absent.
        """
        event: dict[str, Any] = {
            "id": uuid.uuid4().hex if id is None else id,
            "source": self._source if source is None else source,
            "type": type,
            "customer": customer,
            "timestamp": datetime.now(timezone.utc) if timestamp is None else timestamp,
        }
        if properties is not None:
            event["properties"] = properties
        if authorization is not None:
            event["authorization"] = authorization
        try:
            line = encode(event)
        except (TypeError, ValueError, RecursionError) as error:
            self._drop(event, "not_json", str(error))
        else:
            self._enqueue(event, line)
        return str(event["id"])

    def lease(
        self, *, customer: str, unit: str, amount: Decimal | int | str, minutes: float = 5, call_seconds: float = 60
    ) -> Lease:
        """Hold `amount` of a customer's unit on the server, renewed ahead, and spend it here call by call.

        The key needs the scope billing:write as well. Raises ValueError for settings that cannot work. See `Lease`.
        """
        return Lease(
            self._sender.ask,
            self.flush,
            customer=customer,
            unit=unit,
            amount=amount,
            minutes=minutes,
            call_seconds=call_seconds,
        )

    def flush(self, timeout: float = 5.0) -> bool:
        """Send what was recorded until now, and what ended processes left, without waiting for a full batch.

        Whether all of it was answered.
        """
        with self._changed:
            target = self._flush_target = self._recorded
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_settled(target) or self._abandoned, timeout)
            return self._is_settled(target)

    def close(self, timeout: float | None = None) -> bool:
        """Send what is left, for at most `timeout` seconds. Whether all of it was answered.

        With a spool the rest is on disk and is sent by the next process that uses the folder. Called at exit.
        """
        deadline = time.monotonic() + (self._close_timeout if timeout is None else timeout)
        with self._changed:
            self._closing = True
            self._deadline = deadline
            self._changed.notify_all()
            threads = self._threads
        atexit.unregister(self.close)
        if self._threads_failed:  # the interpreter is ending and starts no threads any more
            self._write_queue()
            self._send_backlog()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return self._leave()

    def stats(self) -> Stats:
        """Figures so far."""
        with self._changed:
            names = ("accepted", "duplicate", "conflict", "unmatched", "rejected", "dropped")
            counts = {name: self._counts[name] for name in names}
            return Stats(recorded=self._recorded, pending=self._recorded - self._settled, **counts)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # In the caller's thread

    def _enqueue(self, event: Mapping[str, Any], line: bytes) -> None:
        if len(line) >= self._max_bytes:
            self._drop(event, "too_large", f"The event is larger than a batch may be: {self._max_bytes:,} bytes.")
            return
        with self._changed:
            problem = self._why_not(line)
            if problem is None:
                self._queue.append((time.monotonic(), line))
                self._queued_bytes += len(line) + 1
                self._recorded += 1
                if not self._threads:
                    self._start()
                if len(self._queue) == 1 or self._is_full():
                    self._changed.notify_all()
        if problem is not None:
            self._drop(event, *problem)

    def _why_not(self, line: bytes) -> tuple[str, str] | None:
        if self._closing:
            return "closed", "The client is closed."
        if self._queued_bytes + self._backlog.memory_bytes + len(line) >= self._memory_bytes:
            return "queue_full", f"{self._memory_bytes:,} bytes of events wait in memory, and the spool takes no more."
        return None

    def _start(self) -> None:
        """Threads start with the first event, in the process that records it."""
        if self._threads_failed:
            return
        atexit.register(self.close)  # again: a child of multiprocessing forgets what its parent registered
        threads = [
            threading.Thread(target=target, name=f"headroom-{name}", daemon=True)
            for name, target in (("write", self._write_queue), ("send", self._send_backlog))
        ]
        try:
            for thread in threads:
                thread.start()
                self._threads.append(thread)
        except RuntimeError as error:
            self._threads_failed = True
            logger.warning("Headroom cannot start its threads; events are sent when it closes: %s", error)

    def _drop(self, event: Mapping[str, Any], code: str, detail: str) -> None:
        with self._changed:
            self._counts["dropped"] += 1
            dropped = self._counts["dropped"]
            due = time.monotonic() - self._last_complaint >= COMPLAINT_SECONDS
            if due:
                self._last_complaint = time.monotonic()
        if due:
            logger.error("Headroom dropped event %s (%s: %s); %d so far", event.get("id"), code, detail, dropped)
        self._tell(Rejection("dropped", code, detail, event))

    def _tell(self, rejection: Rejection) -> None:
        if self._on_rejected is not None:
            try:
                self._on_rejected(rejection)
            except Exception:
                logger.exception("on_rejected failed")

    def _is_settled(self, target: int) -> bool:
        left_by_others = self._threads and (not self._looked_around or self._backlog.taken_over)
        return self._settled >= target and not left_by_others

    # The thread that writes: from the queue to the backlog

    def _write_queue(self) -> None:
        while lines := self._next_batch():
            self._backlog.append(lines)
            with self._changed:
                self._changed.notify_all()
        with self._changed:
            self._written = True
            self._changed.notify_all()

    def _next_batch(self) -> list[bytes]:
        """Wait until a batch is due, and take it. Empty when the client is closing and nothing is left."""
        with self._changed:
            while not self._is_due():
                if self._closing and not self._queue:
                    return []
                self._changed.wait(self._seconds_left())
            lines: list[bytes] = []
            size = 0
            while self._queue and len(lines) < self._max_events:
                if size + len(self._queue[0][1]) + 1 > self._max_bytes:
                    break
                lines.append(self._queue.popleft()[1])
                size += len(lines[-1]) + 1
            self._queued_bytes -= size
            self._taken += len(lines)
            return lines

    def _is_due(self) -> bool:
        if not self._queue:
            return False
        return self._closing or self._is_full() or self._taken < self._flush_target or self._seconds_left() == 0

    def _is_full(self) -> bool:
        return len(self._queue) >= self._max_events or self._queued_bytes >= self._max_bytes

    def _seconds_left(self) -> float | None:
        if not self._queue:
            return None
        return max(0.0, self._queue[0][0] + self._max_age - time.monotonic())

    # The thread that sends: from the backlog to the server

    def _send_backlog(self) -> None:
        while segment := self._next_segment():
            outcome = self._attempt(segment)
            if isinstance(outcome, Delivered):
                self._failures = 0
                self._settle(segment, outcome)
            elif not self._wait_after(outcome, on_disk=segment.path is not None):
                return

    def _next_segment(self) -> Segment | None:
        """Wait for the oldest segment. None when the client is closing and none is left."""
        while not self._abandoned:
            self._look_around()
            if segment := self._backlog.first():
                return segment
            with self._changed:
                if self._written and not self._backlog:
                    return None
                self._changed.wait_for(lambda: self._backlog or self._written, TAKE_OVER_SECONDS)
        return None

    def _look_around(self) -> None:
        """Take over what ended processes left: at first, and now and then."""
        if self._looked_around and (self._closing or time.monotonic() < self._take_over_at):
            return
        self._backlog.take_over()
        self._take_over_at = time.monotonic() + TAKE_OVER_SECONDS
        with self._changed:
            self._looked_around = True
            self._changed.notify_all()

    def _attempt(self, segment: Segment) -> Delivered | Later:
        try:
            lines = self._backlog.read(segment)
        except OSError as error:
            if self._abandoned:  # another process has taken it over
                return Later(str(error))
            logger.error("Headroom cannot read %s again: %s", segment.path, error)
            event = {"path": str(segment.path)}
            lost = Rejection("dropped", "unreadable", f"{segment.count} events: {error}", event)
            return Delivered(Counter(dropped=segment.count), [lost])
        try:
            return self._sender.send(lines) if lines else Delivered()
        except Exception as error:  # whatever it is, the events stay and the thread lives
            logger.exception("Headroom's client failed")
            return Later(f"{type(error).__name__}: {error}")

    def _settle(self, segment: Segment, outcome: Delivered) -> None:
        self._backlog.remove(segment)
        if unmatched := outcome.counts["unmatched"]:
            logger.warning("Headroom stored %d events that no customer or meter matches yet", unmatched)
        if outcome.rejections:
            first = outcome.rejections[0]
            logger.error(
                "Headroom refused %d events and will not count them; the first, %s: %s %s",
                len(outcome.rejections), first.event.get("id"), first.code, first.detail,
            )  # fmt: skip
        for rejection in outcome.rejections:
            self._tell(rejection)
        with self._changed:
            self._counts += outcome.counts
            self._settled += segment.count if segment.ours else 0
            self._changed.notify_all()

    def _wait_after(self, outcome: Later, *, on_disk: bool) -> bool:
        """Wait before the next attempt; whether there is to be one.

        When the client closes there is one more at once, unless the server asked to wait. What is on disk then stays
        there; what is only in memory is tried until the time is up.
        """
        delay = self._delay(outcome.retry_after)
        logger.warning("Headroom did not take events (%s); trying again in %.1f s", outcome.reason, delay)
        with self._changed:
            was_closing = self._closing
            if was_closing and on_disk:
                return False
            self._changed.wait_for(
                lambda: self._abandoned or (self._closing > was_closing and (on_disk or not outcome.retry_after)),
                min(delay, self._deadline - time.monotonic()),
            )
            must_wait = self._closing and on_disk and bool(outcome.retry_after)
            return not (self._abandoned or must_wait or time.monotonic() >= self._deadline)

    def _delay(self, retry_after: float | None) -> float:
        """Twice as long each time and never the same, so that many clients do not come back at once."""
        backoff = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        jitter = random.uniform(0.5, 1)  # noqa: S311 -- no secret
        return max(backoff * jitter, (retry_after or 0.0) + backoff * (jitter - 0.5))

    # The end, and forks

    def _leave(self) -> bool:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            pending = self._recorded - self._settled
            lost = len(self._queue)
        self._backlog.close()
        if pending:
            lost += self._backlog.events_in_memory()
            logger.warning(
                "Headroom closed with %d events not answered: %d wait on disk, %d are lost",
                pending, pending - lost, lost,
            )  # fmt: skip
        return not pending

    def _after_fork(self) -> None:
        """In the child: what the parent recorded is the parent's to send."""
        self._backlog.forget()
        self._begin()


_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
