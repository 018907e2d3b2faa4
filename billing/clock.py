"""The one place that reads the clock. Everything else is told the time as `at`."""

from datetime import UTC, datetime

from accounts.models import Customer


def now(customer: Customer | None = None) -> datetime:
    """The present instant in UTC; that of its test clock for a customer on one."""
    if customer is not None and customer.test_clock is not None:
        return customer.test_clock.now
    return datetime.now(UTC)
