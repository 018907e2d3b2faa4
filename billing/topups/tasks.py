"""Top-ups by the clock: automatic ones, and purchases of which nobody has told."""

from celery import shared_task

from billing.clock import now
from billing.topups import automatic, services


@shared_task
def top_up() -> None:
    automatic.top_up_automatically(at=now())
    services.finish(at=now())
