"""Settlement: what grants ought to have paid, less what is posted, is what is posted now.

Late events, expiries, voids and repeats need no case of their own: they change the target or nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import F, Q

from billing.credits.booking import Booking, CellKey, books, key_of, total_of
from billing.credits.ledger import Move, Posting, account, post_all
from billing.credits.models import (
    AccountKind,
    AllocationCell,
    CreditGrant,
    LedgerAccount,
    Settlement,
    TransactionCode,
)
from billing.metering.queries import counted_snapshots
from billing.money import ZERO, exact, plain
from billing.subscriptions.models import BillingPeriod, PeriodStatus
from billing.subscriptions.queries import SEGMENTS


@exact()
def settle(states: Sequence[Settlement], at: datetime) -> set[int]:
    """Bring cells and ledger of these customers to their target; the ids of those for whom anything was posted. Counts
    the postings in the states. Takes as many queries for one as for many, unless a period is cut in segments."""
    periods = _unsettled_periods(states)
    bookings = books(periods)
    posted = _posted(periods)
    accounts = _accounts(bookings)
    changes: dict[int, dict[CellKey, _Change]] = {}
    for customer_id, booking in bookings.items():
        _check_accounts(accounts[customer_id], posted[customer_id], booking, at)
        changes[customer_id] = _changes(posted[customer_id], booking)
    cells = _store_cells([change for own in changes.values() for change in own.values()])
    counted = counted_snapshots([pk for pk, own in changes.items() if own])
    postings: dict[int, list[Posting]] = {}
    for state in states:
        own = accounts[state.pk]
        moves = [own.move(change, cells[key]) for key, change in changes[state.pk].items()]
        key = f"settle:{state.pk}:{state.postings + 1}"
        rollovers = list(_rollovers(own, bookings[state.pk], key))
        endings = list(_endings(own, [*moves, *(move for one in rollovers for move in one.moves)], key, at))
        if moves or rollovers or endings:
            state.postings += 1
            postings[state.pk] = [
                Posting(TransactionCode.USAGE, key, at, moves, counted=counted.get(state.pk)),
                *rollovers,
                *endings,
            ]
    post_all(postings=postings, at=at)
    return set(postings)


def _unsettled_periods(states: Sequence[Settlement]) -> dict[int, list[BillingPeriod]]:
    """By customer: periods that are not closed, and closed ones that hold usage which came late."""
    since = {state.pk: state.resettle_from for state in states}
    wanted = ~Q(status=PeriodStatus.CLOSED)
    if late := [instant for instant in since.values() if instant is not None]:
        wanted |= Q(ends_at__gt=min(late))
    found: dict[int, list[BillingPeriod]] = {customer_id: [] for customer_id in since}
    candidates = BillingPeriod.objects.filter(wanted, customer__in=since)
    candidates = candidates.select_related("customer", "subscription", "version__plan")
    for period in candidates.prefetch_related(SEGMENTS).order_by("starts_at", "id"):
        first = since[period.customer_id]
        if period.status != PeriodStatus.CLOSED or (first is not None and period.ends_at > first):
            found[period.customer_id].append(period)
    return found


class BooksDiffer(Exception):  # noqa: N818 -- a state of the books
    """An account and the cells do not tell the same story, so nothing may be built on them."""


def _check_accounts(accounts: "_Accounts", posted: "_Posted", booking: Booking, at: datetime) -> None:
    """What is left of a grant by its account must be what is left by its cells."""
    left = {
        pk: total_of(grant) - grant.rolled_out - booking.taken_elsewhere.get(pk, ZERO)
        for pk, grant in booking.grants.items()
    }
    for (*_, grant_id), (_, amount) in posted.items():
        if grant_id is not None:
            left[grant_id] -= amount
    for pk, grant in booking.grants.items():
        rest = accounts.grants[pk].credits - accounts.grants[pk].debits
        ended = grant.has_ended(at) or (rest == 0 and grant.expires_at is not None)  # by a clock that runs ahead
        if rest != left[pk] and not ended:
            raise BooksDiffer(
                f"{grant.public_id} has {plain(rest)} left by its account, {plain(left[pk])} by its cells."
            )


# --- cells --------------------------------------------------------------------------------------------------

type _Posted = dict[CellKey, tuple[str, Decimal]]  # the unit, and what is posted


@dataclass(frozen=True, slots=True)
class _Change:
    """What a cell holds from now on, and by how much that is more than before."""

    key: CellKey
    unit: str
    posted: Decimal
    difference: Decimal


def _posted(periods: Mapping[int, Sequence[BillingPeriod]]) -> dict[int, _Posted]:
    """What the cells of the periods hold, by customer."""
    found: dict[int, _Posted] = {customer_id: {} for customer_id in periods}
    owners = {period.pk: period.customer_id for own in periods.values() for period in own}
    cells = AllocationCell.objects.filter(period__in=owners).order_by("pk")
    for *key, unit, posted in cells.values_list(*_CELL_KEY, "unit", "posted"):
        period_id, price_id, row, segment, grant_id = key
        found[owners[period_id]][period_id, price_id, row, segment, grant_id] = unit, posted
    return found


_CELL_KEY: Final = ("period_id", "price_id", "row", "segment_starts_at", "grant_id")


def _changes(posted: _Posted, booking: Booking) -> dict[CellKey, _Change]:
    """What must be posted, cell by cell; new cells in the order of spending."""
    targets = {key_of(cell): (cell.line.unit, amount) for cell, amount in booking.cells.items()}
    changes = {}
    for key in {**posted, **targets}:
        unit, before = posted.get(key) or (targets[key][0], ZERO)
        _, target = targets.get(key, (unit, ZERO))
        if target != before:
            changes[key] = _Change(key, unit, target, target - before)
    return changes


def _store_cells(changes: Sequence[_Change]) -> dict[CellKey, int]:
    """Write what cells hold; their ids."""
    if not changes:
        return {}
    columns = [*map(list, zip(*(change.key for change in changes), strict=True))]
    values = [*columns, [change.unit for change in changes], [change.posted for change in changes]]
    with connection.cursor() as cursor:
        cursor.execute(_STORE_CELLS, values)
        return {
            (period_id, price_id, row, segment, grant_id): pk
            for pk, period_id, price_id, row, segment, grant_id in cursor.fetchall()
        }


_STORE_CELLS: Final = """
INSERT INTO billing_allocationcell AS cell (period_id, price_id, row, segment_starts_at, grant_id, unit, posted)
SELECT period_id, price_id, row, segment_starts_at, grant_id, unit, posted
FROM unnest(%s::bigint[], %s::bigint[], %s::int[], %s::timestamptz[], %s::bigint[], %s::text[], %s::numeric[])
    WITH ORDINALITY AS change (period_id, price_id, row, segment_starts_at, grant_id, unit, posted, place)
ORDER BY place
ON CONFLICT ON CONSTRAINT one_cell_per_line_segment_and_grant DO UPDATE SET posted = excluded.posted
RETURNING id, period_id, price_id, row, segment_starts_at, grant_id
"""


# --- accounts -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Accounts:
    """A customer's accounts that may take part, each looked up once."""

    customer_id: int
    known: dict[tuple[str, str], LedgerAccount] = field(default_factory=dict)
    grants: dict[int, LedgerAccount] = field(default_factory=dict)

    def add(self, found: LedgerAccount) -> None:
        if found.grant_id is None:
            self.known[found.unit, found.kind] = found
        else:
            self.grants[found.grant_id] = found

    def move(self, change: _Change, cell_id: int) -> Move:
        """From the cell's grant, or overage, to what was consumed."""
        *_, grant_id = change.key
        source = self.of(change.unit, AccountKind.OVERAGE) if grant_id is None else self.grants[grant_id]
        return Move(source, self.of(change.unit, AccountKind.CONSUMED), change.difference, cell_id)

    def of(self, unit: str, kind: AccountKind) -> LedgerAccount:
        key = unit, kind
        if key not in self.known:
            self.known[key] = account(self.customer_id, unit, kind)
        return self.known[key]


def _accounts(bookings: Mapping[int, Booking]) -> dict[int, _Accounts]:
    """By customer. Of the grants' accounts those that take part, and those with a rest, which may have ended."""
    found = {customer_id: _Accounts(customer_id) for customer_id in bookings}
    booked = [pk for booking in bookings.values() for pk in booking.grants]
    wanted = ~Q(kind=AccountKind.GRANT) | Q(grant__in=booked) | Q(credits__gt=F("debits"))
    for one in LedgerAccount.objects.filter(wanted, customer__in=bookings).select_related("grant").order_by("pk"):
        found[one.customer_id].add(one)
    return found


# --- endings ------------------------------------------------------------------------------------------------


def _rollovers(accounts: _Accounts, booking: Booking, key: str) -> Iterator[Posting]:
    """What ought to have rolled over to each grant less what has; less than nothing where late usage takes it back."""
    changed = [
        (grant, target - grant.rolled_in)
        for pk, target in booking.rolled.items()
        for grant in [booking.grants[pk]]
        if target != grant.rolled_in
    ]
    for grant, difference in changed:
        grant.rolled_in += difference
        if grant.voided_at is not None:  # what came and is taken back was never forfeited
            grant.forfeited = max(grant.forfeited + difference, ZERO)
        assert grant.rolled_from_id is not None
        move = Move(accounts.grants[grant.rolled_from_id], accounts.grants[grant.pk], difference)
        yield Posting(TransactionCode.ROLLOVER, f"{key}:{grant.pk}:in", grant.effective_at, [move])
    CreditGrant.objects.bulk_update([grant for grant, _ in changed], ["rolled_in", "forfeited"])


def _endings(accounts: _Accounts, moves: Iterable[Move], key: str, at: datetime) -> Iterator[Posting]:
    """What is left of grants that have ended, once these moves are posted, to expired or voided; and back, when late
    usage needs it."""
    drawn: dict[int, Decimal] = defaultdict(Decimal)
    for move in moves:
        if move.debit.grant_id is not None:
            drawn[move.debit.grant_id] += move.amount
        if move.credit.grant_id is not None:
            drawn[move.credit.grant_id] -= move.amount
    for grant_id, own in sorted(accounts.grants.items()):
        left = own.credits - own.debits - drawn[grant_id]
        if left and own.grant is not None and own.grant.has_ended(at):
            yield _ending(own, accounts, left, f"{key}:{grant_id}", at)


def _ending(own: LedgerAccount, accounts: _Accounts, left: Decimal, key: str, at: datetime) -> Posting:
    grant = own.grant
    assert grant is not None
    if grant.voided_at is not None:
        return Posting(TransactionCode.VOID, key, at, [Move(own, accounts.of(grant.unit, AccountKind.VOIDED), left)])
    assert grant.expires_at is not None
    move = Move(own, accounts.of(grant.unit, AccountKind.EXPIRED), left)
    return Posting(TransactionCode.EXPIRY, key, grant.expires_at, [move])
