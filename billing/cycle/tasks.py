"""Tasks of the cycle. A lost one loses nothing: the next finds the same work in the rows."""

from celery import shared_task

from billing.clock import now
from billing.cycle import checking, services


@shared_task
def tick() -> None:
    services.tick(at=now())


@shared_task
def check_books() -> None:
    checking.check_nightly(at=now())


@shared_task
def retry_parked() -> None:
    checking.retry_parked(at=now())
