"""`manage.py tick`: one round of the cycle, as the worker does four times a second."""

from typing import Any

from django.core.management.base import BaseCommand

from billing.clock import now
from billing.cycle import services


class Command(BaseCommand):
    help = "Count, settle and watch whatever waits."

    def handle(self, *args: Any, **options: Any) -> None:
        advanced = services.tick(at=now())
        self.stdout.write(f"{advanced} customers advanced.")
