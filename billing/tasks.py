"""Celery finds the rooms' tasks here."""

from billing.authorizations.tasks import forget
from billing.credits.tasks import seal
from billing.cycle.tasks import check_books, retry_parked, tick
from billing.metering.tasks import make_partitions, purge_identities, replay_unmatched
from billing.notifications.tasks import deliver
from billing.topups.tasks import top_up

__all__ = [
    "check_books",
    "deliver",
    "forget",
    "make_partitions",
    "purge_identities",
    "replay_unmatched",
    "retry_parked",
    "seal",
    "tick",
    "top_up",
]
