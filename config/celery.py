"""The Celery application and its schedule, in code so that it is reviewed."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

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
    # A tick that waited longer than this is stale: the next one does its work.
    beat_schedule={
        "tick": {"task": "billing.cycle.tasks.tick", "schedule": 1.0, "options": {"expires": 2}},
        "deliver": {
            "task": "billing.notifications.tasks.deliver",
            "schedule": 1.0,
            "options": {"expires": 2},
        },
        "forget-old-answers": {"task": "accounts.tasks.forget_old_answers", "schedule": 3600.0},
        "make-partitions": {"task": "billing.metering.tasks.make_partitions", "schedule": 3600.0},
        "replay-unmatched": {
            "task": "billing.metering.tasks.replay_unmatched",
            "schedule": 30.0,
            "options": {"expires": 60},
        },
        "purge-identities": {"task": "billing.metering.tasks.purge_identities", "schedule": 3600.0},
    },
)
app.autodiscover_tasks()
