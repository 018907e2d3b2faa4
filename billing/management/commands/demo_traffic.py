"""`manage.py demo_traffic`: sends usage to a running demo over HTTP, as a vendor's backend would, until stopped."""

import json
import signal
import sys
import time
import urllib.request
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from headroom_client import Client, Rejection

from billing.clock import now
from billing.management.showcase import OUTCOMES, REASON, SHOWCASES, TOKENS, Call, is_reopened
from billing.management.traffic import PROFILES, events

REPORT_SECONDS = 10
REOPEN_SECONDS = (60, 600)  # after how long a ticket comes back: sooner than in life, so that it can be watched


class Command(BaseCommand):
    help = "Send the demo's live traffic."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--demo", type=Path, default=settings.VAR / "demo.json", help="the demo's address and key")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            demo = json.loads(options["demo"].read_text())
        except FileNotFoundError:
            raise CommandError(
                f"No demo is running: {options['demo']} does not exist. Run `make demo` first."
            ) from None
        for ending in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ending, lambda *_: sys.exit())  # so that the client sends what it has
        with Client(
            demo["url"],
            demo["operator_api_key"],
            spool=options["demo"].parent / "traffic",
            on_rejected=self._complain,
            close_timeout=2,
            proxies={},
        ) as client:
            self._send(client, _Desk(demo["url"], demo["operator_api_key"], self.stderr.write))

    def _send(self, client: Client, desk: "_Desk") -> None:
        random = Random()
        report_at = time.monotonic()
        while True:
            batch = [event for call in _calls(random) for event in call]
            random.shuffle(batch)
            for event in batch:
                client.record(**event)
                if event["customer"] == OUTCOMES.key and is_reopened(event, random):
                    desk.reopen(event, time.monotonic() + random.uniform(*REOPEN_SECONDS))
            desk.work(time.monotonic())
            if time.monotonic() >= report_at:
                self.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {client.stats()}")
                report_at += REPORT_SECONDS
            time.sleep(1)

    def _complain(self, rejection: Rejection) -> None:
        self.stderr.write(f"{rejection.status}: {rejection.code}: {rejection.detail} {rejection.event}")


class _Desk:
    """The support product's own memory of tickets that come back: it voids their events."""

    def __init__(self, url: str, key: str, complain: Callable[[str], object]) -> None:
        self._url, self._key, self._complain = f"{url}/api/v1/events/void", key, complain
        self._waiting: list[tuple[float, str, str]] = []
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def reopen(self, event: dict[str, Any], at: float) -> None:
        """The customer writes again at that time; it never takes as long as the window."""
        heappush(self._waiting, (at, event["source"], event["id"]))

    def work(self, at: float) -> None:
        """Void what has come back by now."""
        while self._waiting and self._waiting[0][0] <= at:
            _, source, event_id = heappop(self._waiting)
            body = json.dumps({"source": source, "id": event_id, "reason": REASON}).encode()
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            try:
                asked = urllib.request.Request(self._url, body, headers)  # noqa: S310 -- the demo's own address
                self._open(asked, timeout=5).close()
            except OSError as error:
                self._complain(f"{event_id} could not be voided: {error}")


def _calls(random: Random) -> list[list[dict[str, Any]]]:
    """One second's calls of everybody: a random number around each one's rate."""
    at = now()
    makers: list[tuple[Call, int]] = [(one.call, one.calls_per_minute) for one in SHOWCASES]
    for profile in PROFILES:
        if profile.customer != TOKENS.key:
            makers.append((partial(events, profile), profile.calls_per_minute))
    return [
        list(make(at, random))
        for make, a_minute in makers
        for _ in range(round(random.gammavariate(2, a_minute / 120)))
    ]
