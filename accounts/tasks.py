"""Housekeeping that runs in a worker."""

from celery import shared_task
from django.utils import timezone

from accounts import services


@shared_task
def forget_old_answers() -> None:
    """Answers under an Idempotency-Key are repeated for a day."""
    services.forget_old_answers(at=timezone.now())
