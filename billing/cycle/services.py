"""The tick: for each customer with something to do, everything in order, in one transaction.

Roll periods, give plan credits, fold deltas into counters, settle lines against grants, watch budgets, publish.
"""

import logging
from datetime import datetime

from django.db import OperationalError, transaction

from accounts.models import Customer
from billing.budgets import services as budgets
from billing.credits import queries as credit_questions
from billing.credits import services as credits
from billing.metering import queries as counters
from billing.metering import services as metering
from billing.pricing.models import PlanVersion
from billing.subscriptions import queries as subscription_questions
from billing.subscriptions import services as subscriptions
from billing.subscriptions.models import Subscription

logger = logging.getLogger(__name__)


@transaction.atomic
def subscribe(
    *,
    customer: Customer,
    version: PlanVersion,
    starts_at: datetime,
    anchor_day: int | None = None,
    anchor_month: int | None = None,
    at: datetime,
) -> Subscription:
    """Start a subscription, as `subscriptions.services.start`, and do at once all that is due with it."""
    started = subscriptions.start(
        customer=customer,
        version=version,
        starts_at=starts_at,
        anchor_day=anchor_day,
        anchor_month=anchor_month,
        at=at,
    )
    advance(customer_id=customer.pk, at=at)
    return started


@transaction.atomic
def advance(*, customer_id: int, at: datetime) -> None:
    """Do all that is due for the customer. Waits for its claim."""
    metering.claim(customer_id=customer_id)
    _advance(customer_id, at)


def tick(*, at: datetime) -> int:
    """Advance every customer with due work or uncounted events; how many. One that fails does not stop the others."""
    advanced: set[int] = set()
    failed: set[int] = set()
    for customer_id in _due_customers(at):
        try:
            advance(customer_id=customer_id, at=at)
            advanced.add(customer_id)
        except Exception:
            logger.exception("Customer %s could not be advanced", customer_id)
            failed.add(customer_id)
    while (dirty := _advance_next(at, advanced | failed, failed)) is not None:
        advanced.add(dirty)
    return len(advanced - failed)


def _due_customers(at: datetime) -> list[int]:
    return sorted({*subscription_questions.due_customers(at), *credit_questions.due_customers(at)})


def _advance_next(at: datetime, done: set[int], failed: set[int]) -> int | None:
    """Advance the dirty customer that was counted longest ago, unless another tick has it; which one."""
    customer_id = None
    try:
        with transaction.atomic():
            customer_id = metering.claim_next(skip=done)
            if customer_id is not None:
                _advance(customer_id, at)
    except Exception:
        if customer_id is None:
            raise
        logger.exception("Customer %s could not be advanced", customer_id)
        failed.add(customer_id)
    return customer_id


def _advance(customer_id: int, at: datetime) -> None:
    moved = subscriptions.roll(customer_id=customer_id, at=at)
    moved |= credits.issue_plan_grants(customer_id=customer_id, at=at)
    since = metering.fold(customer_id=customer_id, at=at)
    moved |= since is not None
    moved |= credits.settle(customer_id=customer_id, at=at, since=since)
    if moved:
        _watch(customer_id, at)
        metering.publish(customer_id=customer_id)


def _watch(customer_id: int, at: datetime) -> None:
    """An alert that cannot be written must not keep events from being counted. A database that is busy is no such
    case: then all of it is done again."""
    as_of = counters.counted_through(Customer.objects.get(pk=customer_id))
    try:
        with transaction.atomic():
            budgets.watch(customer_id=customer_id, at=at, as_of=as_of)
    except OperationalError:
        raise
    except Exception:
        logger.exception("The budgets of customer %s could not be watched", customer_id)
