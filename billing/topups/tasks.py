"""Automatic top-ups by the clock."""

from celery import shared_task

from billing.clock import now
from billing.topups import services


@shared_task
def top_up() -> None:
    services.top_up_automatically(at=now())
