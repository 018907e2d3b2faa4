"""Work of the outbox that runs in a worker."""

from celery import shared_task

from billing import clock
from billing.notifications import invitations, services


@shared_task
def deliver() -> None:
    """Send what is due, invitations too. Whatever a lost run leaves behind, the next one finds."""
    invitations.announce(at=clock.now())
    services.deliver(at=clock.now())
