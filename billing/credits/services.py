"""Actions on credits: grant, void, give what a plan gives, and settle usage against grants.

All need or take the customer's claim, so that a customer's books have one writer at a time.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.core.exceptions import ValidationError
from django.db import OperationalError, connection, transaction
from django.db.models import Sum

from accounts.ids import new_id
from accounts.models import Customer, User
from billing.credits import plan_credits, sealing, settlement
from billing.credits.billed import bill
from billing.credits.booking import total_of
from billing.credits.ledger import Move, Posting, account, post
from billing.credits.models import (
    WITHDRAWN,
    AccountKind,
    CreditGrant,
    Direction,
    GrantKind,
    LedgerEntry,
    Settlement,
    TransactionCode,
)
from billing.credits.statements import keep_discounts
from billing.errors import Conflict
from billing.metering import services as metering
from billing.metering.models import Meter
from billing.money import ZERO, display, is_currency
from billing.periods import QUARTER, quarter_ceil, quarter_floor
from billing.subscriptions.models import PeriodStatus, PlanSegment

logger = logging.getLogger(__name__)

_FAR: Final = timedelta(days=3653)


@transaction.atomic
def grant(
    *,
    customer: Customer,
    unit: str,
    amount: Decimal,
    kind: GrantKind,
    at: datetime,
    priority: int = 50,
    effective_at: datetime | None = None,
    expires_at: datetime | None = None,
    cost_basis: Decimal | None = None,
    meters: Sequence[str] = (),
    reason: str = "",
    created_by: User | None = None,
) -> CreditGrant:
    """Give credits (or prepaid money) from the start of the quarter hour of `effective_at` (default: `at`) on, until
    `expires_at`, rounded up to a quarter hour. Usage that it covers is settled at once. ValidationError by field."""
    _check_reach(effective_at or at, expires_at, at)
    metering.claim(customer_id=customer.pk)
    given = CreditGrant(
        customer=customer,
        unit=unit,
        amount=amount,
        kind=kind,
        priority=priority,
        effective_at=quarter_floor(effective_at or at),
        expires_at=expires_at and quarter_ceil(expires_at),
        cost_basis=cost_basis,
        meters=list(meters),
        reason=reason,
        created_by=created_by,
        created_at=at,
    )
    _check(given)
    _issue(given, at)
    settle(customer_id=customer.pk, at=at, since=given.effective_at)
    metering.publish(customer_id=customer.pk)
    return given


@transaction.atomic
def void(*, grant: CreditGrant, at: datetime, reason: str = "") -> CreditGrant:
    """Settle what the grant has paid for so far and forfeit the rest. Conflict `already_void`, `already_expired`,
    `parked`."""
    locked = _settled_grant(grant, at)
    rest = locked.account.credits - locked.account.debits
    # What was used in this quarter hour stays paid, so it ends with the quarter hour.
    locked.voided_at, locked.forfeited = quarter_floor(at) + QUARTER, rest
    locked.save(update_fields=["voided_at", "forfeited"])
    voided = account(locked.customer_id, locked.unit, AccountKind.VOIDED)
    moves = [Move(locked.account, voided, rest)]
    posting = Posting(TransactionCode.VOID, f"void:{locked.public_id}", at, moves, reason)
    post(customer_id=locked.customer_id, postings=[posting], at=at)
    metering.publish(customer_id=locked.customer_id)
    return locked


@transaction.atomic
def adjust(*, grant: CreditGrant, amount: Decimal, reason: str, at: datetime) -> CreditGrant:
    """Correct what was given: add to the grant, or take from what is left of it (below zero). It holds as if it had
    been given so, so usage since the grant began is settled anew. Conflict as `void`; ValidationError by field."""
    locked = _settled_grant(grant, at)
    left = min(locked.account.credits - locked.account.debits, locked.amount + locked.adjusted)
    _check_adjustment(amount, reason, left, locked.unit)
    locked.adjusted += amount
    locked.save(update_fields=["adjusted"])
    moves = [Move(account(locked.customer_id, locked.unit, AccountKind.ISSUED), locked.account, amount)]
    posting = Posting(TransactionCode.ADJUSTMENT, f"adjust:{new_id('adj')}", at, moves, reason)
    post(customer_id=locked.customer_id, postings=[posting], at=at)
    settle(customer_id=locked.customer_id, at=at, since=locked.effective_at)
    metering.publish(customer_id=locked.customer_id)
    return locked


def _check_adjustment(amount: Decimal, reason: str, left: Decimal, unit: str) -> None:
    errors = {}
    if not amount:
        errors["amount"] = "Send an amount other than 0: above it to add, below it to take."
    elif -amount > left:
        errors["amount"] = f"No more than {display(left, unit)} can be taken: the rest is used."
    if not reason.strip():
        errors["reason"] = "Say why: it stays in the ledger."
    if errors:
        raise ValidationError(errors)


def _settled_grant(grant: CreditGrant, at: datetime) -> CreditGrant:
    """The grant, locked and with all usage so far taken from it, if it can still be changed. Takes the claim."""
    metering.claim(customer_id=grant.customer_id)
    since = metering.fold(customer_id=grant.customer_id, at=at)
    settle(customer_id=grant.customer_id, at=at, since=since)
    locked = CreditGrant.objects.select_related("account").select_for_update(of=["self"]).get(pk=grant.pk)
    if locked.voided_at is not None:
        raise Conflict("This grant is void already.", code="already_void")
    if locked.expires_at is not None and locked.expires_at <= at:
        raise Conflict("This grant has expired, so nothing is left to change.", code="already_expired")
    if Settlement.objects.filter(customer=locked.customer_id).exclude(parked_reason="").exists():
        raise Conflict("This customer's books are parked: the grant cannot be settled first.", code="parked")
    return locked


def issue_plan_grants(*, customer_id: int, at: datetime) -> bool:
    """Needs the claim. Give each plan segment, in periods that are not closed, its share of the plan's credits, once;
    whether any were given or withdrawn.

    They last as long as the segment, or the month of it, so that they expire when the next ones come, to which a rest
    may roll over. Where a change of plan cut the segment, they are withdrawn as if they had never been there, and what
    it is due now is given instead. What an operator has voided does not come back.
    """
    segments = PlanSegment.objects.filter(period__customer=customer_id, is_trial=False, version__credits__isnull=False)
    segments = segments.exclude(period__status=PeriodStatus.CLOSED).select_related("period__subscription").distinct()
    wanted = plan_credits.grants_of(list(segments.order_by("starts_at", "period_id")), at)
    given = CreditGrant.objects.filter(customer=customer_id, kind=GrantKind.PLAN).exclude(WITHDRAWN)
    standing = {_place(grant): grant for grant in given.exclude(period__status=PeriodStatus.CLOSED)}
    new = [grant for grant in wanted if not _stands(grant, standing.get(_place(grant)))]
    kept = {_place(grant) for grant in wanted if _stands(grant, standing.get(_place(grant)))}
    old = [grant for place, grant in standing.items() if place not in kept]
    _withdraw(customer_id, old, at)
    due = [grant for grant in new if plan_credits.is_due(grant, at)]
    for grant in due:
        grant.rolled_from = plan_credits.ancestor_of(grant)
        _issue(grant, at)
    return bool(due or old)


def _place(grant: CreditGrant) -> tuple[int | None, int | None, datetime]:
    return grant.period_id, grant.term_id, grant.effective_at


def _stands(wanted: CreditGrant, given: CreditGrant | None) -> bool:
    return given is not None and (given.voided_at is not None or given.expires_at == wanted.expires_at)


def _withdraw(customer_id: int, grants: Sequence[CreditGrant], at: datetime) -> None:
    """As if they had never been usable: settlement moves what they paid to others, and the whole amount to voided. What
    is posted as expired, because the change was at that instant, comes back first."""
    post(customer_id=customer_id, postings=[posting for grant in grants for posting in _unexpire(grant, at)], at=at)
    for grant in grants:
        grant.voided_at, grant.forfeited = grant.effective_at, total_of(grant)
        grant.reason = "Withdrawn, because the plan changed within the billing period."
        grant.save(update_fields=["voided_at", "forfeited", "reason"])
    if grants:
        state, _ = Settlement.objects.get_or_create(customer_id=customer_id)
        since = min(grant.effective_at for grant in grants)
        state.resettle_from = min(since, state.resettle_from or since)
        state.save(update_fields=["resettle_from"])


def _unexpire(grant: CreditGrant, at: datetime) -> list[Posting]:
    entries = LedgerEntry.objects.filter(account=grant.account, transaction__code=TransactionCode.EXPIRY)
    sums = dict(entries.values_list("direction").annotate(Sum("amount")))
    lapsed = sums.get(Direction.DEBIT, ZERO) - sums.get(Direction.CREDIT, ZERO)
    expired, voided = (
        account(grant.customer_id, grant.unit, kind) for kind in (AccountKind.EXPIRED, AccountKind.VOIDED)
    )
    key = f"withdraw:{grant.public_id}"
    return [
        Posting(TransactionCode.EXPIRY, f"{key}:back", at, [Move(grant.account, expired, -lapsed)]),
        Posting(TransactionCode.VOID, key, at, [Move(grant.account, voided, lapsed)]),
    ]


def _issue(given: CreditGrant, at: datetime) -> None:
    given.save(force_insert=True)
    issued = account(given.customer_id, given.unit, AccountKind.ISSUED)
    moves = [Move(issued, account(given.customer_id, given.unit, AccountKind.GRANT, given), given.amount)]
    posting = Posting(TransactionCode.GRANT, f"grant:{given.public_id}", given.effective_at, moves)
    post(customer_id=given.customer_id, postings=[posting], at=at)


def _check_reach(effective_at: datetime, expires_at: datetime | None, at: datetime) -> None:
    errors = {}
    if abs(effective_at - at) > _FAR:
        errors["effective_at"] = "Choose an instant within ten years of now."
    if expires_at is not None and expires_at - at > 10 * _FAR:
        errors["expires_at"] = "Choose an instant within a century, or none for credits that never expire."
    if errors:
        raise ValidationError(errors)


def _check(given: CreditGrant) -> None:
    given.clean_fields(exclude=["customer", "created_at"])
    errors = {}
    if is_currency(given.unit.upper()) and not is_currency(given.unit):
        errors["unit"] = f"Write the currency as {given.unit.upper()}: nothing is priced in {given.unit}."
    if given.amount <= 0:
        errors["amount"] = "Send more than 0."
    if given.cost_basis is not None and given.cost_basis < 0:
        errors["cost_basis"] = "Send 0 or more."
    if given.expires_at is not None and given.expires_at <= given.effective_at:
        errors["expires_at"] = "A grant expires after it begins."
    known = set(Meter.objects.filter(key__in=given.meters).values_list("key", flat=True))
    if unknown := sorted(set(given.meters) - known):
        errors["meters"] = f"There is no meter {', '.join(unknown)}."
    if errors:
        raise ValidationError(errors)


def settle(*, customer_id: int, at: datetime, since: datetime | None = None) -> bool:
    """As `settle_all`, for one customer; whether anything was posted."""
    return bool(settle_all(customer_ids=[customer_id], at=at, since={} if since is None else {customer_id: since}))


def settle_all(*, customer_ids: Collection[int], at: datetime, since: Mapping[int, datetime]) -> set[int]:
    """Needs the claims. Post the difference between what grants ought to have paid and what is posted; for whom there
    was any.

    `since`, by customer: the earliest usage that has just been counted, so that closed periods it belongs to are
    settled again. A customer whose books fail a check is parked with the reason: it still counts, and is settled when
    it passes.
    """
    states = _states(customer_ids, since)
    held = [state for state in states if state.failed_check]
    Settlement.objects.bulk_update(held, ["resettle_from"])
    states = [state for state in states if not state.failed_check]
    parked = [state for state in states if state.parked_reason]
    moved = _settle([state for state in states if not state.parked_reason], at)
    return moved.union(*(_settle([state], at) for state in parked))


def _states(customer_ids: Collection[int], since: Mapping[int, datetime]) -> list[Settlement]:
    found = Settlement.objects.in_bulk(customer_ids)
    new = [Settlement(customer_id=customer_id) for customer_id in customer_ids if customer_id not in found]
    states = [*found.values(), *(Settlement.objects.bulk_create(new) if new else ())]
    for state in states:
        first = since.get(state.pk)
        if first is not None and (state.resettle_from is None or first < state.resettle_from):
            state.resettle_from = first
    return states


def _settle(states: Sequence[Settlement], at: datetime) -> set[int]:
    """All at once, or where that fails each alone, so that only those are parked whose own books fail."""
    if not states:
        return set()
    postings = {state.pk: state.postings for state in states}
    try:
        with transaction.atomic():
            moved = settlement.settle(states, at)
            if moved:
                _check_balance_now()
            keep_discounts(bill(states, at), at)
    except OperationalError:
        raise  # a busy database says nothing about the books: all of it is done again
    except Exception as error:
        for state in states:
            state.postings = postings[state.pk]
        if len(states) > 1:
            return set().union(*(_settle([state], at) for state in states))
        return _park(states[0], error)
    moved |= {state.pk for state in states if state.parked_reason}
    _settled(states)
    return moved


def _settled(states: Sequence[Settlement]) -> None:
    """Whatever is counted is settled now; what an unfinished fold left is not."""
    numbers = [state.postings for state in states]
    with connection.cursor() as cursor:
        cursor.execute(_SETTLED, {"customers": [state.pk for state in states], "postings": numbers})


_SETTLED: Final = """
UPDATE billing_settlement AS state
SET resettle_from = NULL, parked_reason = '', postings = settled.postings, settled_through = watermark.counted_through
FROM unnest(%(customers)s::bigint[], %(postings)s::bigint[]) AS settled (customer_id, postings)
JOIN billing_watermark AS watermark USING (customer_id)
WHERE state.customer_id = settled.customer_id
"""


def _park(state: Settlement, error: Exception) -> set[int]:
    """Whom that is news to."""
    was_parked = bool(state.parked_reason)
    reason = f"{type(error).__name__}: {error}"[:1000]
    if reason != state.parked_reason:
        logger.error("Customer %s is parked", state.customer_id, exc_info=error)
    state.parked_reason = reason
    state.save(update_fields=["resettle_from", "parked_reason"])
    return set() if was_parked else {state.pk}


@transaction.atomic
def hold(*, customer_id: int, reason: str) -> bool:
    """Park the customer because a check of its books failed: nothing is settled until `release`. Whether that is
    news."""
    metering.claim(customer_id=customer_id)
    state, _ = Settlement.objects.get_or_create(customer_id=customer_id)
    if state.failed_check == reason:
        return False
    logger.error("Customer %s is parked: %s", customer_id, reason)
    state.failed_check = state.parked_reason = reason
    state.save(update_fields=["failed_check", "parked_reason"])
    metering.publish(customer_id=customer_id)
    return True


@transaction.atomic
def release(*, customer_id: int, at: datetime) -> bool:
    """The checks pass again: settle what waited, unless settlement itself fails. Whether the customer is free now."""
    metering.claim(customer_id=customer_id)
    Settlement.objects.filter(customer=customer_id).update(failed_check="")
    settle(customer_id=customer_id, at=at)
    metering.publish(customer_id=customer_id)
    return not Settlement.objects.filter(customer=customer_id).exclude(parked_reason="").exists()


def seal_all() -> int:
    """Seal what was posted since the last seals, each customer in a transaction of its own; how many transactions."""
    sealed = 0
    for customer_id in sealing.unsealed():
        number = sealing.AT_ONCE
        while number == sealing.AT_ONCE:
            with transaction.atomic():
                number = sealing.seal(customer_id)
            sealed += number
    return sealed


def _check_balance_now() -> None:
    """A ledger that does not balance fails here, in the savepoint, and not at the commit of everything else."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ledger_transaction_balances IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ledger_transaction_balances DEFERRED")
