"""The one writer of the ledger: transactions of entries that debit and credit accounts.

What the database adds: entries balance per unit at commit, an account's sums move with its entries, a grant's account
is never overdrawn, and nothing is changed or deleted (migration 0003).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import Case, DecimalField, F, Sum, When

from billing.credits.models import (
    AccountKind,
    CreditGrant,
    Direction,
    LedgerAccount,
    LedgerTransaction,
    TransactionCode,
)


def sum_of(direction: Direction) -> Sum:
    """Of entries: what was debited (or credited) to an account, less what went the other way."""
    signed = Case(
        When(direction=direction, then=F("amount")),
        default=-F("amount"),
        output_field=DecimalField(max_digits=38, decimal_places=12),
    )
    return Sum(signed)


@dataclass(frozen=True, slots=True)
class Move:
    """`amount` from one account to another: debited here, credited there. A negative one goes the other way. `cell`:
    the id of the allocation cell that caused it."""

    debit: LedgerAccount
    credit: LedgerAccount
    amount: Decimal
    cell: int | None = None


@dataclass(frozen=True, slots=True)
class Posting:
    """Moves that have one cause. A second one with the same key is refused. `counted`: of usage, the snapshot of the
    events that it took into account."""

    code: TransactionCode
    idempotency_key: str
    effective_at: datetime
    moves: Sequence[Move]
    reason: str = ""
    counted: str | None = None


def post(*, customer_id: int, postings: Sequence[Posting], at: datetime) -> None:
    """Write the postings of one customer, as `post_all`."""
    post_all(postings={customer_id: postings}, at=at)


def post_all(*, postings: Mapping[int, Sequence[Posting]], at: datetime) -> None:
    """Write postings, by customer. Their entries come in one statement, so that an account may be drawn and refilled
    by it.

    IntegrityError when a grant's account would be overdrawn, or when a key was used before.
    """
    written = [
        (customer_id, posting)
        for customer_id, own in postings.items()
        for posting in own
        if any(move.amount for move in posting.moves)
    ]
    if not written:
        return
    transactions = LedgerTransaction.objects.bulk_create(
        LedgerTransaction(
            customer_id=customer_id,
            code=posting.code,
            idempotency_key=posting.idempotency_key,
            effective_at=posting.effective_at,
            recorded_at=at,
            reason=posting.reason,
            counted=posting.counted,
        )
        for customer_id, posting in written
    )
    entries = [
        entry
        for transaction, (_, posting) in zip(transactions, written, strict=True)
        for move in posting.moves
        if move.amount
        for entry in _entries(transaction.pk, move)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_WRITE_ENTRIES, [list(column) for column in zip(*entries, strict=True)])


type _Entry = tuple[int, int, Direction, Decimal, int | None]  # transaction, account, direction, amount, cell

# They may be hundreds: models of them would cost as much as all the rest.
_WRITE_ENTRIES: Final = """
INSERT INTO billing_ledgerentry (transaction_id, account_id, direction, amount, cell_id)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::numeric[], %s::bigint[])
"""


def _entries(transaction_id: int, move: Move) -> tuple[_Entry, _Entry]:
    debit, credit = (move.debit, move.credit) if move.amount > 0 else (move.credit, move.debit)
    amount = abs(move.amount)
    return (
        (transaction_id, debit.pk, Direction.DEBIT, amount, move.cell),
        (transaction_id, credit.pk, Direction.CREDIT, amount, move.cell),
    )


def account(customer_id: int, unit: str, kind: AccountKind, grant: CreditGrant | None = None) -> LedgerAccount:
    """The account of this kind, made when it is first needed."""
    found, _ = LedgerAccount.objects.get_or_create(customer_id=customer_id, unit=unit, kind=kind, grant=grant)
    return found
