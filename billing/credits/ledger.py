"""The one writer of the ledger: transactions of entries that debit and credit accounts.

What the database adds: entries balance per unit at commit, an account's sums move with its entries, a grant's account
is never overdrawn, and nothing is changed or deleted (migration 0003).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.credits.models import (
    AccountKind,
    AllocationCell,
    CreditGrant,
    Direction,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    TransactionCode,
)


@dataclass(frozen=True, slots=True)
class Move:
    """`amount` from one account to another: debited here, credited there. A negative one goes the other way."""

    debit: LedgerAccount
    credit: LedgerAccount
    amount: Decimal
    cell: AllocationCell | None = None


@dataclass(frozen=True, slots=True)
class Posting:
    """Moves that have one cause. A second one with the same key is refused."""

    code: TransactionCode
    idempotency_key: str
    effective_at: datetime
    moves: Sequence[Move]


def post(*, customer_id: int, postings: Sequence[Posting], at: datetime) -> None:
    """Write the postings. Their entries come in one statement, so that an account may be drawn and refilled by it.

    IntegrityError when a grant's account would be overdrawn, or when a key was used before.
    """
    written = [posting for posting in postings if any(move.amount for move in posting.moves)]
    transactions = LedgerTransaction.objects.bulk_create(
        LedgerTransaction(
            customer_id=customer_id,
            code=posting.code,
            idempotency_key=posting.idempotency_key,
            effective_at=posting.effective_at,
            recorded_at=at,
        )
        for posting in written
    )
    LedgerEntry.objects.bulk_create(
        entry
        for transaction, posting in zip(transactions, written, strict=True)
        for move in posting.moves
        if move.amount
        for entry in _entries(transaction, move)
    )


def _entries(transaction: LedgerTransaction, move: Move) -> tuple[LedgerEntry, LedgerEntry]:
    debit, credit = (move.debit, move.credit) if move.amount > 0 else (move.credit, move.debit)
    amount = abs(move.amount)
    return (
        LedgerEntry(transaction=transaction, account=debit, direction=Direction.DEBIT, amount=amount, cell=move.cell),
        LedgerEntry(transaction=transaction, account=credit, direction=Direction.CREDIT, amount=amount, cell=move.cell),
    )


def account(customer_id: int, unit: str, kind: AccountKind, grant: CreditGrant | None = None) -> LedgerAccount:
    """The account of this kind, made when it is first needed."""
    found, _ = LedgerAccount.objects.get_or_create(customer_id=customer_id, unit=unit, kind=kind, grant=grant)
    return found
