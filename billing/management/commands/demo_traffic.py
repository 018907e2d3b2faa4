"""`manage.py demo_traffic`: sends usage to a running demo over HTTP, as a vendor's backend would, until stopped."""

import json
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing.clock import now
from billing.management.traffic import PROFILES, events


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
        random = Random()
        while True:
            batch = [event for call in _calls(random) for event in call]
            random.shuffle(batch)
            if batch:
                self._send(demo, batch)
            time.sleep(1)

    def _send(self, demo: dict[str, Any], batch: list[dict[str, Any]]) -> None:
        """One request. While the server is away it waits and sends the same ids again: nothing counts twice."""
        request = Request(  # noqa: S310 -- the address of the demo that we started
            f"{demo['url']}/api/v1/events",
            data=json.dumps({"events": batch}).encode(),
            headers={"Authorization": f"Bearer {demo['operator_api_key']}", "Content-Type": "application/json"},
        )
        while True:
            try:
                with urlopen(request, timeout=10) as response:  # noqa: S310 -- as above
                    self.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {response.read(200).decode()}")
                    return
            except (URLError, TimeoutError) as error:
                self.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {error}; trying again")
                time.sleep(2)


def _calls(random: Random) -> list[list[dict[str, Any]]]:
    """One second's calls of everybody: a random number around each profile's rate."""
    at = now()
    return [
        list(events(profile, at, random))
        for profile in PROFILES
        for _ in range(round(random.gammavariate(2, profile.calls_per_minute / 120)))
    ]
