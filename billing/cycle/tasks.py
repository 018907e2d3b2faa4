"""Tasks of the cycle. A lost one loses nothing: the next finds the same work in the rows."""

from celery import shared_task

from billing.clock import now
from billing.cycle import services


@shared_task
def tick() -> None:
    services.tick(at=now())
