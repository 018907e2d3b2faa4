"""The ledger as people read it: what each transaction did to the grants of a unit, and what caused it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import BooleanField, Exists, F, Func, OuterRef, Q, QuerySet, Sum

from accounts.models import Customer
from billing.credits.ledger import sum_of
from billing.credits.models import (
    AccountKind,
    AllocationCell,
    CreditGrant,
    Direction,
    GrantKind,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    TransactionCode,
)
from billing.metering.arrivals import Between, Place, arrivals
from billing.metering.judging import Event
from billing.metering.receipts import Fed
from billing.money import CONTEXT, exact, total
from billing.pricing.queries import price_terms
from billing.pricing.schemes import select_row
from billing.subscriptions.queries import segments_between

_CHUNK: Final = 500  # transactions of a file that are read at once
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
    grouped = entries.values_list("transaction", "account__unit", "account__kind", *names).annotate(
        sum=sum_of(Direction.CREDIT)
    )
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
class Cause:
    """An event that a posting took into account, and what that changed of the line's quantity. Where it was corrected:
    what it had counted for `before`, and does `after`; None where it counts for another line or for nothing."""

    event: Event
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True, slots=True)
class CellEvents:
    """The events behind an entry, the latest first. `ends_at`: where its segment ended when it was posted; `since`: the
    posting before of the same line, after which these events were counted; `next`: where to go on."""

    ends_at: datetime
    since: datetime | None
    causes: Sequence[Cause]
    next: Place | None


def events_of(entry: LedgerEntry, *, after: Place | None = None, most: int) -> CellEvents:
    """The events of the entry's line that were counted after the line was posted before, and by this posting: each
    event is behind one posting, and again behind those that a correction of it caused. `most` are looked at, from
    `after` on. Eight queries."""
    cell, posting = entry.cell, entry.transaction
    assert cell is not None, "no usage caused this entry"
    period, price = cell.period, cell.price
    earlier = _posting_before(cell, posting)
    ends_at = _segment_end(cell, posting)
    terms = price_terms(price)
    found = arrivals(
        period.customer,
        price.meter,
        Between(earlier.counted if earlier else None, posting.counted),
        starts_at=cell.segment_starts_at,
        ends_at=ends_at,
        after=after,
        most=most,
    )

    def counted(fed: Fed | None) -> Decimal | None:
        return fed.quantity if fed and select_row(terms, fed.dimensions) == cell.row else None

    rows = [Cause(one.event, counted(one.before), counted(one.after)) for one in found.found]
    changed = [row for row in rows if row.before != row.after]
    return CellEvents(ends_at, earlier.recorded_at if earlier else None, changed, found.next)


def first_postings(cells: QuerySet[AllocationCell], numbers: Iterable[int]) -> list[LedgerTransaction]:
    """Of these cells: for each number of a transaction that wrote an event or a correction, the first posting that had
    counted it. A query for each."""
    entries = LedgerEntry.objects.filter(cell__in=cells)
    postings = LedgerTransaction.objects.filter(pk__in=entries.values("transaction"), counted__isnull=False)
    firsts = [postings.filter(_sees(number)).order_by("pk").first() for number in numbers]
    return sorted({posting for posting in firsts if posting}, key=lambda posting: posting.pk)


def _sees(number: int) -> Func:
    """Whether a posting's snapshot sees what the transaction of this number wrote."""
    sees = f"pg_visible_in_snapshot('{number:d}'::xid8, %(expressions)s::pg_snapshot)"
    return Func(F("counted"), template=sees, output_field=BooleanField())


def _posting_before(cell: AllocationCell, posting: LedgerTransaction) -> LedgerTransaction | None:
    """The last one before it that moved the cell's line in its segment, whoever paid."""
    line = {"period": cell.period_id, "price": cell.price_id, "row": cell.row}
    cells = AllocationCell.objects.filter(**line, segment_starts_at=cell.segment_starts_at).values_list("pk", flat=True)
    moved = LedgerEntry.objects.filter(transaction=OuterRef("pk"), cell__in=list(cells))
    earlier = LedgerTransaction.objects.filter(customer=posting.customer_id, code=TransactionCode.USAGE)
    return earlier.filter(Exists(moved), pk__lt=posting.pk, counted__isnull=False).order_by("-pk").first()


def _segment_end(cell: AllocationCell, posting: LedgerTransaction) -> datetime:
    """Where the cell's segment ended when it was posted: grants that came later cut it shorter."""
    period = cell.period
    parts = segments_between(period.customer, period.starts_at, period.ends_at)
    known = LedgerEntry.objects.filter(account__grant=OuterRef("pk"), transaction__lt=posting.pk)
    grants = CreditGrant.objects.filter(Exists(known), customer=period.customer)
    cuts = {instant for own in grants.values_list("effective_at", "expires_at", "voided_at") for instant in own}
    cuts |= {instant for part in parts for instant in (part.starts_at, part.ends_at)}
    later = [instant for instant in cuts if instant is not None and instant > cell.segment_starts_at]
    return min([*later, period.ends_at])
