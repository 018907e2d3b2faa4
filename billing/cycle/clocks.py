"""Test clocks: time that passes when it is told to, for customers of a sandbox.

Advancing goes from one due instant to the next and does there what the tick would have done. Each step is committed by
itself; what was begun is in the clock's row, so that any process can go on with it.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from django.core.exceptions import ValidationError
from django.db import OperationalError, transaction

from accounts.models import TestClock
from billing.authorizations import queries as authorizations
from billing.credits import queries as credits
from billing.cycle.services import advance as advance_customer
from billing.errors import Conflict
from billing.subscriptions import queries as subscriptions

logger = logging.getLogger(__name__)

LONGEST: Final = timedelta(days=400)  # that one call advances

# Each answers, by customer id, the first instant after another one at which something is due. In the order of kinds.
type NextDue = Callable[[Collection[int], datetime], Mapping[int, datetime]]
DUE: Final[tuple[NextDue, ...]] = (subscriptions.next_due, credits.next_due, authorizations.next_due)


def begin(*, clock: TestClock, to: datetime) -> TestClock:
    """Let the clock advance to an instant; `run` does it. Raises ValidationError by field, Conflict
    `clock_advancing`."""
    with transaction.atomic():
        locked = TestClock.objects.select_for_update().get(pk=clock.pk)
        if locked.advancing_to is not None:
            raise Conflict("The clock is advancing already. Ask for it until it is ready.", code="clock_advancing")
        if to < locked.now:
            raise ValidationError({"to": f"The clock is at {locked.now.isoformat()} and never goes back."})
        if to - locked.now > LONGEST:
            raise ValidationError({"to": f"Advance by at most {LONGEST.days} days at once."})
        locked.advancing_to = to
        locked.save(update_fields=["advancing_to"])
        _advance(_customers(locked), locked.now)  # what was sent or made by hand since it stood still
    return locked


def run(*, clock_id: int, seconds: float) -> bool:
    """Advance a clock for about so long; whether it has arrived. Another process may be at it: then it goes on."""
    until = monotonic() + seconds
    while _step(clock_id):
        if monotonic() >= until:
            break
    return not TestClock.objects.filter(pk=clock_id, advancing_to__isnull=False).exists()


def run_all(*, seconds: float) -> None:
    """Go on with every clock that has not arrived, for about so long in all."""
    until = monotonic() + seconds
    for clock_id in TestClock.objects.filter(advancing_to__isnull=False).values_list("pk", flat=True):
        run(clock_id=clock_id, seconds=max(until - monotonic(), 0))


@transaction.atomic
def _step(clock_id: int) -> bool:
    """Move on to the next due instant and do what is due then; False once there is nothing left to do here."""
    clock = TestClock.objects.select_for_update(skip_locked=True).filter(pk=clock_id).first()
    if clock is None or clock.advancing_to is None:
        return False
    customers = _customers(clock)
    due = _next_due(customers, clock.now)
    moment = min([*due.values(), clock.advancing_to])
    arrived = moment >= clock.advancing_to
    clock.now = moment
    if arrived:
        clock.advancing_to = None
    clock.save(update_fields=["now", "advancing_to"])
    _advance(customers if arrived else [one for one in customers if due.get(one) == moment], clock.now)
    return not arrived


def _customers(clock: TestClock) -> list[int]:
    return list(clock.customers.order_by("pk").values_list("pk", flat=True))


def _next_due(customers: Collection[int], after: datetime) -> dict[int, datetime]:
    found: dict[int, datetime] = {}
    for question in DUE:
        for customer_id, moment in question(customers, after).items():
            found[customer_id] = min(moment, found.get(customer_id, moment))
    return found


def _advance(customers: Collection[int], at: datetime) -> None:
    """In the order of their ids. One that fails does not stop the clock."""
    for customer_id in customers:
        try:
            advance_customer(customer_id=customer_id, at=at)
        except OperationalError:
            raise  # a busy database: the step is done again
        except Exception:
            logger.exception("Customer %s could not be advanced to %s", customer_id, at)
