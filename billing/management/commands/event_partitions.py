"""`manage.py event_partitions`: where raw events lie by month of arrival; `--archive` detaches old months now."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.clock import now
from billing.metering import partitions
from billing.metering.models import ArchivedMonth


class Command(BaseCommand):
    help = "List the months of raw events; with --archive, detach those that are older than EVENT_MONTHS_KEPT."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--archive", action="store_true", help="Detach old months; counters and money stay.")
        parser.add_argument("--keep", type=int, metavar="MONTHS", help="Instead of EVENT_MONTHS_KEPT; at least 3.")

    def handle(self, *args: Any, **options: Any) -> None:
        kept = settings.EVENT_MONTHS_KEPT if options["keep"] is None else options["keep"]
        if kept < partitions.FEWEST_MONTHS_KEPT:
            raise CommandError(f"Keep at least {partitions.FEWEST_MONTHS_KEPT} months: events may come 35 days late.")
        if options["archive"]:
            self._archive(kept)
        for one in partitions.attached():
            size_mb = one.size_bytes / 1_000_000
            self.stdout.write(f"{one.month:%Y-%m}  {one.rows:>12,} events  {size_mb:>10,.1f} MB  {one.table}")
        for month in ArchivedMonth.objects.order_by("month"):
            self.stdout.write(
                f"{month}  {month.events:>12,} events  detached {month.archived_at:%Y-%m-%d}  {month.table}"
            )

    def _archive(self, months_kept: int) -> None:
        try:
            gone = partitions.archive(months_kept=months_kept, at=now())
        except partitions.BackfillRuns as error:
            raise CommandError(
                "Stored events are being counted with a new meter. Try again when that is done."
            ) from error
        for month in gone:
            self.stdout.write(f"Detached {month}: {month.table} is yours to dump and drop.")
        if not gone:
            self.stdout.write(f"No month is older than the last {months_kept}.")
