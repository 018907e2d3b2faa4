"""What holds do by the clock."""

from celery import shared_task

from billing.authorizations import services
from billing.clock import now


@shared_task
def forget() -> None:
    services.forget(at=now())
