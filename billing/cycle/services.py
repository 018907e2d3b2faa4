"""The tick: for each customer with something to do, everything in order, in one transaction.

Roll periods, give plan credits, fold deltas into counters, settle lines against grants, watch budgets, publish.
"""

import logging
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from itertools import batched
from typing import Any, Final

from django.db import transaction

from accounts.models import Customer
from accounts.queries import clock_times
from billing.authorizations import queries as hold_questions
from billing.authorizations import services as authorizations
from billing.credits import queries as credit_questions
from billing.credits import services as credits
from billing.metering import services as metering
from billing.pricing import agreements
from billing.pricing.models import PlanVersion, PriceOverride
from billing.reads import shared
from billing.subscriptions import queries as subscription_questions
from billing.subscriptions import services as subscriptions
from billing.subscriptions.models import Subscription
from billing.subscriptions.services import When

logger = logging.getLogger(__name__)

# Of one transaction. Whoever waits for the claim of one of them waits for all.
CUSTOMERS_AT_ONCE: Final = 50


@transaction.atomic
def subscribe(
    *,
    customer: Customer,
    version: PlanVersion,
    starts_at: datetime,
    anchor_day: int | None = None,
    anchor_month: int | None = None,
    beside: Subscription | None = None,
    at: datetime,
) -> Subscription:
    """Start a subscription, as `subscriptions.services.start`, and do at once all that is due with it."""
    started = subscriptions.start(
        customer=customer,
        version=version,
        starts_at=starts_at,
        anchor_day=anchor_day,
        anchor_month=anchor_month,
        beside=beside,
        at=at,
    )
    advance(customer_id=customer.pk, at=at)
    return started


@transaction.atomic
def override_price(*, customer: Customer, at: datetime, **agreed: Any) -> PriceOverride:
    """Agree on other amounts, as `pricing.agreements.override_price`, and settle at once what they change."""
    made = agreements.override_price(customer=customer, at=at, **agreed)
    advance(customer_id=customer.pk, at=at)
    return made


@transaction.atomic
def end_override(*, override: PriceOverride, at: datetime) -> PriceOverride:
    """End what was agreed, as `pricing.agreements.end_override`, and settle at once what that changes."""
    ended = agreements.end_override(override=override, at=at)
    advance(customer_id=ended.customer_id, at=at)
    return ended


@transaction.atomic
def change(*, subscription: Subscription, version: PlanVersion, when: When, at: datetime) -> Subscription:
    """Put a subscription on another version, as `subscriptions.services.change`, and do at once all that is due."""
    changed = subscriptions.change(subscription=subscription, version=version, when=when, at=at)
    credits.issue_plan_grants(customer_id=changed.customer_id, at=at)
    advance(customer_id=changed.customer_id, at=at)
    return changed


@transaction.atomic
def cancel(*, subscription: Subscription, when: When, at: datetime) -> Subscription:
    """End a subscription, as `subscriptions.services.cancel`, and do at once all that is due."""
    cancelled = subscriptions.cancel(subscription=subscription, when=when, at=at)
    credits.issue_plan_grants(customer_id=cancelled.customer_id, at=at)
    advance(customer_id=cancelled.customer_id, at=at)
    return cancelled


@transaction.atomic
def advance(*, customer_id: int, at: datetime) -> None:
    """Do all that is due for the customer. Waits for its claim."""
    metering.claim(customer_id=customer_id)
    own_time = clock_times([customer_id]).get(customer_id, at)
    _advance_together([customer_id], own_time, _due_customers(own_time, [customer_id]))


def tick(*, at: datetime) -> int:
    """Advance every customer with due work or uncounted events; how many. One that fails does not stop the others."""
    seen = {customer_id: _advance_alone(customer_id, at) for customer_id in _due_customers(at)}
    for some in batched(hold_questions.due_customers(at), CUSTOMERS_AT_ONCE):
        seen |= _advance_claimed(partial(metering.claim_free, customer_ids=set(some) - seen.keys()), at)
    while turn := _advance_claimed(partial(metering.claim_next, skip=seen, most=CUSTOMERS_AT_ONCE), at):
        seen |= turn
    return sum(seen.values())


def _due_customers(at: datetime, among: Collection[int] | None = None) -> list[int]:
    return sorted({*subscription_questions.due_customers(at, among), *credit_questions.due_customers(at, among)})


def _advance_alone(customer_id: int, at: datetime) -> bool:
    """Whether it could be."""
    try:
        advance(customer_id=customer_id, at=at)
    except Exception:
        logger.exception("Customer %s could not be advanced", customer_id)
        return False
    return True


def _advance_claimed(claim: Callable[[], list[int]], at: datetime) -> dict[int, bool]:
    """Advance together the customers that `claim` gets; which, and whether each could be."""
    claimed: list[int] = []
    try:
        with transaction.atomic():
            claimed = claim()
            _advance_all(claimed, at)
    except Exception:
        if not claimed:
            raise
        return {customer_id: _advance_alone(customer_id, at) for customer_id in claimed}
    return dict.fromkeys(claimed, True)


def _advance_all(customer_ids: Collection[int], at: datetime) -> None:
    """Needs the claims. What it costs hardly grows with the number of customers. Test clocks are heeded; for those in
    real time the tick has just done what is due."""
    own_time = clock_times(customer_ids)
    for moment in {at, *own_time.values()}:
        if together := [one for one in customer_ids if own_time.get(one, at) == moment]:
            due = _due_customers(moment, own_time.keys() & together) if own_time else []
            _advance_together(together, moment, due)


def _advance_together(customer_ids: Collection[int], at: datetime, due: Collection[int]) -> None:
    """`due`: those of whom something is due beside what is counted."""
    moved: set[int] = set()
    for customer_id in due:
        rolled = subscriptions.roll(customer_id=customer_id, at=at)
        if credits.issue_plan_grants(customer_id=customer_id, at=at) or rolled:
            moved.add(customer_id)
    since = metering.fold_all(customer_ids=customer_ids, at=at)
    with shared():
        moved |= since.keys() | credits.settle_all(customer_ids=customer_ids, at=at, since=since)
        authorizations.follow_all(customer_ids=customer_ids, moved=moved, at=at)
