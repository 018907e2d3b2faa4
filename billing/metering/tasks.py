"""What metering does by the clock. Each may run twice, also at once, without harm."""

from typing import Final

from celery import shared_task

from billing.clock import now
from billing.metering import partitions, services

PAGES_AT_ONCE: Final = 20  # then others may work


@shared_task
def make_partitions() -> None:
    partitions.make_ahead()


@shared_task
def replay_unmatched() -> None:
    services.replay_unmatched(at=now())


@shared_task
def backfill() -> None:
    for _ in range(PAGES_AT_ONCE):
        if not services.backfill(at=now()):
            return


@shared_task
def purge_minutes() -> None:
    services.purge_minutes(at=now())


@shared_task
def purge_identities() -> None:
    services.purge_identities(at=now())
