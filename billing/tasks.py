"""Celery finds the rooms' tasks here."""

from billing.notifications.tasks import deliver

__all__ = ["deliver"]
