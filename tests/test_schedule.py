"""The clock of the background work."""

from celery.beat import Scheduler

from config.celery import app


def test_a_beat_that_was_away_starts_hourly_work_at_once():
    entries = Scheduler(app).schedule

    for name, entry in entries.items():
        assert entry.is_due().is_due == (entry.schedule.seconds == 3600), name


def test_beat_keeps_no_file_and_schedules_only_tasks_that_exist():
    app.loader.import_default_modules()

    assert app.conf.beat_scheduler == "celery.beat:Scheduler"
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
