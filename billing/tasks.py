"""Celery finds the rooms' tasks here."""

from billing.cycle.tasks import tick
from billing.metering.tasks import make_partitions, purge_identities, replay_unmatched
from billing.notifications.tasks import deliver

__all__ = ["deliver", "make_partitions", "purge_identities", "replay_unmatched", "tick"]
