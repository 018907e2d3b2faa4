"""The books of every customer are checked each night; whose books fail is parked, and freed when they pass again."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from accounts.models import Customer
from billing.credits import queries as credit_questions
from billing.credits import services as credits
from billing.credits.models import Settlement
from billing.cycle.models import BooksCheck
from billing.cycle.verify import books

logger = logging.getLogger(__name__)

RECOUNTED: Final = timedelta(days=3)  # how far back each night compares counters with events
_HOUR: Final = 3  # of the night
_KEPT: Final = 100  # differences of a run that are kept in words
_REASON: Final = 1000  # characters


def check_nightly(*, at: datetime) -> BooksCheck | None:
    """`check_all`, unless it has been done since three o'clock (UTC) last passed."""
    three = at.astimezone(UTC).replace(hour=_HOUR, minute=0, second=0, microsecond=0)
    due_at = three if three <= at else three - timedelta(days=1)
    is_done = BooksCheck.objects.filter(started_at__gte=due_at).exists()
    return None if is_done else check_all(at=at)


def check_all(*, at: datetime, since: datetime | None = None) -> BooksCheck:
    """Check everybody, park and free, and record what was found. Customers are checked one after the other, each as
    its books stand at one moment."""
    found: list[str] = []
    customers = Customer.objects.select_related("test_clock").order_by("pk")
    for customer in customers:
        found += check(customer, at=at, since=since or at - RECOUNTED)
    return BooksCheck.objects.create(
        started_at=at,
        customers=len(customers),
        parked=credit_questions.parked_customers(),
        differences=len(found),
        found=found[:_KEPT],
    )


def check(customer: Customer, *, at: datetime, since: datetime) -> list[str]:
    """What differs in the customer's books; parks or frees it. On a test clock it is that one's time."""
    if customer.test_clock is not None:
        at, since = customer.test_clock.now, customer.test_clock.now - (at - since)
    found = books(customer, since=since)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        credits.hold(customer_id=customer.pk, reason=f"{found[0][:_REASON]}{more}")
    elif Settlement.objects.filter(customer=customer).exclude(failed_check="").exists():
        credits.release(customer_id=customer.pk, at=at)
    return found


def retry_parked(*, at: datetime) -> int:
    """Check again those that a check has parked, and settle those that settlement has; how many are free now."""
    freed = 0
    for state in credit_questions.parked():
        try:
            if not state.failed_check:
                clock = state.customer.test_clock
                freed += credits.release(customer_id=state.pk, at=clock.now if clock else at)
            elif not check(state.customer, at=at, since=at - RECOUNTED):
                freed += 1
        except Exception:
            logger.exception("Parked customer %s could not be checked", state.pk)
    return freed
