"""What metering does by the clock. Each may run twice, also at once, without harm."""

from celery import shared_task

from billing.clock import now
from billing.metering import partitions, services


@shared_task
def make_partitions() -> None:
    partitions.make_ahead()


@shared_task
def replay_unmatched() -> None:
    services.replay_unmatched(at=now())


@shared_task
def purge_identities() -> None:
    services.purge_identities(at=now())
