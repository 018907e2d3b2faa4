"""Tasks of the cycle. A lost one loses nothing: the next finds the same work in the rows."""

from threading import Lock
from typing import Final

from celery import shared_task

from billing.clock import now
from billing.cycle import checking, clocks, services

_ticking: Final = Lock()


@shared_task
def tick() -> None:
    """One at a time in a process: beside each other they would take turns, with fewer customers in each batch."""
    if _ticking.acquire(blocking=False):
        try:
            services.tick(at=now())
        finally:
            _ticking.release()


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
