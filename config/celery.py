"""The Celery application and its schedule, in code so that it is reviewed."""

import os
from datetime import UTC, datetime
from typing import Any

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def hourly(task: str) -> dict[str, Any]:
    """At once when beat starts, for nobody knows how long it was away; then each hour."""
    return {"task": task, "schedule": 3600.0, "last_run_at": LONG_AGO}


app = Celery("headroom")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 300},
    timezone="UTC",
    # Beat's usual file of what ran when would be one more thing to lose: its SQLite fails on some file systems.
    beat_scheduler="celery.beat:Scheduler",
    # A tick that waited longer than this is stale: the next one does its work. One that finds nothing costs little.
    beat_schedule={
        "tick": {"task": "billing.cycle.tasks.tick", "schedule": 0.25, "options": {"expires": 1}},
        "advance-clocks": {
            "task": "billing.cycle.tasks.advance_clocks",
            "schedule": 30.0,
            "options": {"expires": 60},
        },
        "deliver": {
            "task": "billing.notifications.tasks.deliver",
            "schedule": 1.0,
            "options": {"expires": 2},
        },
        "seal": {"task": "billing.credits.tasks.seal", "schedule": 60.0, "options": {"expires": 120}},
        "check-books": hourly("billing.cycle.tasks.check_books"),  # it looks whether this night's is done
        "retry-parked": {
            "task": "billing.cycle.tasks.retry_parked",
            "schedule": 300.0,
            "options": {"expires": 600},
        },
        "forget-old-answers": hourly("accounts.tasks.forget_old_answers"),
        "make-partitions": hourly("billing.metering.tasks.make_partitions"),
        "archive-events": hourly("billing.metering.tasks.archive_events"),
        "replay-unmatched": {
            "task": "billing.metering.tasks.replay_unmatched",
            "schedule": 30.0,
            "options": {"expires": 60},
        },
        "backfill": {
            "task": "billing.metering.tasks.backfill",
            "schedule": 5.0,
            "options": {"expires": 10},
        },
        "purge-refused": hourly("billing.metering.tasks.purge_refused"),
        "purge-minutes": hourly("billing.metering.tasks.purge_minutes"),
        "forget-authorizations": hourly("billing.authorizations.tasks.forget"),
        "top-up": {"task": "billing.topups.tasks.top_up", "schedule": 10.0, "options": {"expires": 20}},
        "purge-identities": hourly("billing.metering.tasks.purge_identities"),
    },
)
app.autodiscover_tasks()
