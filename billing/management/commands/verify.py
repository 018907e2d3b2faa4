"""`manage.py verify`: do counters, cells and ledger agree? Exit code 1 and one line each where they do not."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.cycle.verify import differences


class Command(BaseCommand):
    help = "Check the books. Reads only."

    def handle(self, *args: Any, **options: Any) -> None:
        found = list(differences())
        for difference in found:
            self.stdout.write(difference)
        if found:
            raise CommandError(f"{len(found)} differences.")
        self.stdout.write("Counters, cells and ledger agree.")
