"""`manage.py demo_traffic`: sends usage to a running demo over HTTP, as a vendor's backend would, until stopped."""

import json
import signal
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from headroom_client import Client, Rejection

from billing.clock import now
from billing.management.traffic import PROFILES, events

REPORT_SECONDS = 10


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
            self._send(client)

    def _send(self, client: Client) -> None:
        random = Random()
        report_at = time.monotonic()
        while True:
            batch = [event for call in _calls(random) for event in call]
            random.shuffle(batch)
            for event in batch:
                client.record(**event)
            if time.monotonic() >= report_at:
                self.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {client.stats()}")
                report_at += REPORT_SECONDS
            time.sleep(1)

    def _complain(self, rejection: Rejection) -> None:
        self.stderr.write(f"{rejection.status}: {rejection.code}: {rejection.detail} {rejection.event}")


def _calls(random: Random) -> list[list[dict[str, Any]]]:
    """One second's calls of everybody: a random number around each profile's rate."""
    at = now()
    return [
        list(events(profile, at, random))
        for profile in PROFILES
        for _ in range(round(random.gammavariate(2, profile.calls_per_minute / 120)))
    ]
