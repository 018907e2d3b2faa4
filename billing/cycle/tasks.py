"""Tasks of the cycle. A lost one loses nothing: the next finds the same work in the rows."""

from celery import shared_task

from billing.clock import now
from billing.cycle import checking, clocks, services


@shared_task
def tick() -> None:
    services.tick(at=now())


@shared_task
def check_books() -> None:
    checking.check_nightly(at=now())


@shared_task
def retry_parked() -> None:
    checking.retry_parked(at=now())


@shared_task
def advance_clock(clock_id: int) -> None:
    """Go on with a clock that an answer did not wait for."""
    clocks.run(clock_id=clock_id, seconds=120)


@shared_task
def advance_clocks() -> None:
    """Go on with those whose task was lost."""
    clocks.run_all(seconds=20)
