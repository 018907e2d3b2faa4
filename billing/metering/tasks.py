"""What metering does by the clock. Each may run twice, also at once, without harm."""

import logging
from typing import Final

from celery import shared_task
from django.conf import settings

from billing.clock import now
from billing.metering import partitions, services

logger = logging.getLogger(__name__)

PAGES_AT_ONCE: Final = 20  # then others may work


@shared_task
def make_partitions() -> None:
    partitions.make_ahead()


@shared_task
def archive_events() -> None:
    at = now()
    partitions.index_closed(at)
    try:
        partitions.archive(months_kept=settings.EVENT_MONTHS_KEPT, at=at)
    except partitions.BackfillRuns:
        logger.info("No events are archived while stored ones are being counted")


@shared_task
def replay_unmatched() -> None:
    services.replay_unmatched(at=now())


@shared_task
def backfill() -> None:
    for _ in range(PAGES_AT_ONCE):
        if not services.backfill(at=now()):
            return


@shared_task
def purge_refused() -> None:
    services.purge_refused(at=now())


@shared_task
def purge_minutes() -> None:
    services.purge_minutes(at=now())


@shared_task
def purge_identities() -> None:
    services.purge_identities(at=now())
