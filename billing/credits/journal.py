"""The ledger as people read it: what each transaction did to the grants of a unit, and what caused it."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import Case, DecimalField, F, Q, QuerySet, Sum, When

from accounts.models import Customer
from billing.credits.models import (
    AccountKind,
    AllocationCell,
    Direction,
    GrantKind,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    TransactionCode,
)
from billing.metering.judging import Event
from billing.metering.receipts import latest_fed
from billing.money import CONTEXT, exact, total
from billing.pricing.queries import price_terms
from billing.pricing.schemes import select_row

_CHUNK: Final = 500  # transactions of a file that are read at once
# What reached an account; less than nothing where it left.
_CREDITED: Final = Sum(
    Case(
        When(direction=Direction.CREDIT, then=F("amount")),
        default=-F("amount"),
        output_field=DecimalField(max_digits=38, decimal_places=12),
    )
)
_KIND_NAMES: Final[Mapping[str, str]] = {kind.value: str(kind.label) for kind in GrantKind}
_PAID_BY: Final = Q(account__kind__in=[AccountKind.GRANT, AccountKind.OVERAGE])  # the other side tells the same


@dataclass(frozen=True, slots=True)
class Movement:
    """What a transaction did in one unit: `amount` came to the grants (or went, below zero), `moved` between them,
    `beyond` was used beyond them. `causes`: names of meters or grants, the largest part first."""

    transaction: LedgerTransaction
    unit: str
    amount: Decimal
    moved: Decimal
    beyond: Decimal
    causes: Sequence[str]


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Movements, newest first; `earlier`: the id of the last transaction, where there are more before it."""

    movements: Sequence[Movement]
    earlier: int | None


def journal(
    customer: Customer, *, units: Collection[str], before: int | None = None, code: str | None = None, limit: int
) -> JournalPage:
    """What happened in these units. Three queries, whatever is on the page."""
    if code in (None, TransactionCode.USAGE):
        ids = _touching(customer, units, before, limit + 1)
        found = LedgerTransaction.objects.filter(pk__in=ids)
    else:
        found = LedgerTransaction.objects.filter(customer=customer)
    if before is not None:
        found = found.filter(pk__lt=before)
    if code is not None:
        found = found.filter(code=code)
    read = list(found.order_by("-pk")[: limit + 1])
    shown = read[:limit]
    return JournalPage(_movements(shown, units), shown[-1].pk if len(read) > limit else None)


def _touching(customer: Customer, units: Collection[str], before: int | None, most: int) -> list[int]:
    """The latest transactions with an entry in these units. A customer that also pays by invoice has one each second
    in its currency, so they are looked up account by account."""
    with connection.cursor() as cursor:
        cursor.execute(_TOUCHING, {"customer": customer.pk, "units": list(units), "before": before, "most": most})
        return [pk for (pk,) in cursor.fetchall()]


_TOUCHING: Final = """
SELECT DISTINCT entry.transaction_id
FROM billing_ledgeraccount AS account CROSS JOIN LATERAL (
    SELECT transaction_id FROM billing_ledgerentry
    WHERE account_id = account.id AND (%(before)s::bigint IS NULL OR transaction_id < %(before)s)
    ORDER BY transaction_id DESC LIMIT %(most)s
) AS entry
WHERE account.customer_id = %(customer)s AND account.unit = ANY(%(units)s) AND account.kind IN ('grant', 'overage')
ORDER BY entry.transaction_id DESC LIMIT %(most)s
"""


@exact()
def _movements(transactions: Sequence[LedgerTransaction], units: Collection[str]) -> list[Movement]:
    parts: dict[tuple[int, str], list[tuple[str, str, Decimal]]] = defaultdict(list)
    entries = LedgerEntry.objects.filter(_PAID_BY, transaction__in=transactions, account__unit__in=units)
    names = ("account__grant", "account__grant__reason", "account__grant__kind", "cell__price__meter__name")
    grouped = entries.values_list("transaction", "account__unit", "account__kind", *names).annotate(sum=_CREDITED)
    for transaction, unit, kind, _, reason, grant_kind, meter, amount in grouped:
        parts[transaction, unit].append((kind, meter or reason or _KIND_NAMES.get(grant_kind, ""), amount))
    return [
        _movement(transaction, unit, parts[transaction.pk, unit])
        for transaction in transactions
        for unit in sorted(unit for pk, unit in parts if pk == transaction.pk)
    ]


def _movement(transaction: LedgerTransaction, unit: str, parts: Sequence[tuple[str, str, Decimal]]) -> Movement:
    sizes: dict[str, Decimal] = defaultdict(Decimal)
    for _, name, amount in parts:
        sizes[name] += abs(amount)
    grants = [amount for kind, _, amount in parts if kind == AccountKind.GRANT]
    return Movement(
        transaction=transaction,
        unit=unit,
        amount=total(grants),
        moved=min(total(one for one in grants if one > 0), -total(one for one in grants if one < 0)),
        beyond=-total(amount for kind, _, amount in parts if kind == AccountKind.OVERAGE),
        causes=sorted(sizes, key=lambda name: (-sizes[name], name)),
    )


def posted(customer: Customer) -> Mapping[str, Decimal]:
    """By unit, what all grants hold, those that begin later included: where the journal ends."""
    grants = LedgerAccount.objects.filter(customer=customer, kind=AccountKind.GRANT)
    sums = grants.values_list("unit").annotate(credits=Sum("credits"), debits=Sum("debits"))
    return {unit: CONTEXT.subtract(credits, debits) for unit, credits, debits in sums}


def transaction(customer: Customer, public_id: str) -> LedgerTransaction | None:
    """One of the customer's, by its id."""
    return LedgerTransaction.objects.filter(customer=customer, public_id=public_id).first()


def entries_of(transactions: Sequence[LedgerTransaction]) -> QuerySet[LedgerEntry]:
    """Who paid or was given how much, with what it was for, in the order of posting."""
    found = LedgerEntry.objects.filter(_PAID_BY, transaction__in=transactions)
    found = found.select_related("account__grant", "cell__period__customer", "cell__price__meter", "transaction")
    return found.order_by("pk")


def every_entry(customer: Customer) -> Iterator[LedgerEntry]:
    """All of the customer's, newest transaction first, read in pieces. `signed` tells their amounts."""
    before: int | None = None
    while True:
        found = LedgerTransaction.objects.filter(customer=customer).order_by("-pk")
        chunk = list((found if before is None else found.filter(pk__lt=before))[:_CHUNK])
        if not chunk:
            return
        entries = defaultdict(list)
        for entry in entries_of(chunk):
            entries[entry.transaction_id].append(entry)
        for each in chunk:
            yield from entries[each.pk]
        before = chunk[-1].pk


def signed(entry: LedgerEntry) -> Decimal:
    """What came to the account; below zero what left it."""
    return entry.amount if entry.direction == Direction.CREDIT else CONTEXT.minus(entry.amount)


# --- what usage caused an entry ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CellEvents:
    """Events of a line in a segment, the latest first, each with its quantity; `ends_at`: where the segment ends."""

    ends_at: datetime
    events: Sequence[tuple[Event, Decimal]]


def events_of(cell: AllocationCell, *, most: int) -> CellEvents:
    """The latest usage of the cell's line in its segment, among the meter's `most` latest events. Six queries."""
    period, price = cell.period, cell.price
    later = AllocationCell.objects.filter(period=period, segment_starts_at__gt=cell.segment_starts_at)
    ends_at = later.order_by("segment_starts_at").values_list("segment_starts_at", flat=True).first() or period.ends_at
    terms = price_terms(price)
    found = latest_fed(period.customer, price.meter, starts_at=cell.segment_starts_at, ends_at=ends_at, most=most)
    rows = [(event, fed.quantity) for event, fed in found if select_row(terms, fed.dimensions) == cell.row]
    return CellEvents(ends_at, rows)
