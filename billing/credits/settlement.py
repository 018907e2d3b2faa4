"""Settlement: what grants ought to have paid, less what is posted, is what is posted now.

Late events, expiries, voids and repeats need no case of their own: they change the target or nothing.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal

from django.db.models import F, Q

from accounts.models import Customer
from billing.credits.booking import Booking, CellKey, book, has_ended, key_of
from billing.credits.ledger import Move, Posting, account, post
from billing.credits.models import AccountKind, AllocationCell, CreditGrant, LedgerAccount, Settlement, TransactionCode
from billing.money import ZERO, exact, plain
from billing.subscriptions.models import BillingPeriod, PeriodStatus
from billing.subscriptions.queries import periods as periods_of


@exact()
def settle(state: Settlement, at: datetime) -> bool:
    """Bring cells and ledger to their target; whether anything was posted. Counts the posting in `state`."""
    customer = Customer.objects.get(pk=state.customer_id)
    periods = _unsettled_periods(customer, state.resettle_from)
    booking = book(customer, periods)
    accounts = _Accounts(customer)
    cells = {cell.key: cell for cell in AllocationCell.objects.filter(period__in=periods)}
    _check_accounts(accounts, cells.values(), booking, at)
    moves = _usage_moves(accounts, cells, booking)
    key = f"settle:{customer.pk}:{state.postings + 1}"
    endings = _endings(accounts, moves, key, at)
    if not moves and not endings:
        return False
    state.postings += 1
    post(customer_id=customer.pk, postings=[Posting(TransactionCode.USAGE, key, at, moves), *endings], at=at)
    return True


def _unsettled_periods(customer: Customer, since: datetime | None) -> list[BillingPeriod]:
    """Periods that are not closed, and closed ones that hold usage which came late."""
    wanted = ~Q(status=PeriodStatus.CLOSED)
    if since is not None:
        wanted |= Q(ends_at__gt=since)
    return list(periods_of(customer).filter(wanted))


class BooksDiffer(Exception):  # noqa: N818 -- a state of the books
    """An account and the cells do not tell the same story, so nothing may be built on them."""


def _check_accounts(accounts: "_Accounts", cells: Collection[AllocationCell], booking: Booking, at: datetime) -> None:
    """What is left of a grant by its account must be what is left by its cells."""
    left = {pk: grant.amount - booking.taken_elsewhere.get(pk, ZERO) for pk, grant in booking.grants.items()}
    for cell in cells:
        if cell.grant_id is not None:
            left[cell.grant_id] -= cell.posted
    for pk, grant in booking.grants.items():
        rest = accounts.grants[pk].credits - accounts.grants[pk].debits
        ended = has_ended(grant, at) or (rest == 0 and grant.expires_at is not None)  # by a clock that runs ahead
        if rest != left[pk] and not ended:
            raise BooksDiffer(
                f"{grant.public_id} has {plain(rest)} left by its account, {plain(left[pk])} by its cells."
            )


def _usage_moves(accounts: "_Accounts", cells: dict[CellKey, AllocationCell], booking: Booking) -> list[Move]:
    """From grants (or overage) to what was consumed, cell by cell; updates the cells."""
    targets = {key_of(cell): amount for cell, amount in booking.cells.items()}
    units = {key_of(cell): cell.line.unit for cell in booking.cells}
    cells |= {key: _new_cell(key, units[key]) for key in targets if key not in cells}  # in the order of spending
    changed = [(cell, targets.get(key, ZERO) - cell.posted) for key, cell in cells.items()]
    changed = [(cell, difference) for cell, difference in changed if difference]
    for cell, difference in changed:
        cell.posted += difference
    AllocationCell.objects.bulk_create([cell for cell, _ in changed if cell.pk is None])
    AllocationCell.objects.bulk_update([cell for cell, _ in changed], ["posted"])
    return [
        Move(accounts.source(cell), accounts.of(cell.unit, AccountKind.CONSUMED), difference, cell)
        for cell, difference in changed
    ]


def _new_cell(key: CellKey, unit: str) -> AllocationCell:
    period, price, row, segment, grant = key
    return AllocationCell(
        period_id=period, price_id=price, row=row, segment_starts_at=segment, grant_id=grant, unit=unit
    )


class _Accounts:
    """The customer's accounts, each looked up once."""

    def __init__(self, customer: Customer) -> None:
        self.customer = customer
        self.known: dict[tuple[str, AccountKind], LedgerAccount] = {}
        self.grants = {
            found.grant_id: found for found in LedgerAccount.objects.filter(customer=customer, kind=AccountKind.GRANT)
        }

    def source(self, cell: AllocationCell) -> LedgerAccount:
        if cell.grant_id is None:
            return self.of(cell.unit, AccountKind.OVERAGE)
        return self.grants[cell.grant_id]

    def of(self, unit: str, kind: AccountKind) -> LedgerAccount:
        key = unit, kind
        if key not in self.known:
            self.known[key] = account(self.customer.pk, unit, kind)
        return self.known[key]


def _endings(accounts: _Accounts, usage: Sequence[Move], key: str, at: datetime) -> list[Posting]:
    """What is left of grants that have ended, once this usage is posted, to expired or voided; and back, when late
    usage needs it."""
    drawn: dict[int, Decimal] = {}
    for move in usage:
        if move.debit.grant_id is not None:
            drawn[move.debit.grant_id] = drawn.get(move.debit.grant_id, ZERO) + move.amount
    ended = Q(expires_at__lte=at) | Q(voided_at__isnull=False)
    moving = Q(pk__in=drawn) | Q(account__credits__gt=F("account__debits"))
    postings = []
    grants = CreditGrant.objects.filter(ended, moving, customer=accounts.customer)
    for grant in grants.select_related("account").order_by("pk"):
        left = grant.account.credits - grant.account.debits - drawn.get(grant.pk, ZERO)
        if left:
            postings.append(_ending(grant, accounts, left, f"{key}:{grant.pk}", at))
    return postings


def _ending(grant: CreditGrant, accounts: _Accounts, left: Decimal, key: str, at: datetime) -> Posting:
    if grant.voided_at is not None:
        move = Move(grant.account, accounts.of(grant.unit, AccountKind.VOIDED), left)
        return Posting(TransactionCode.VOID, key, at, [move])
    assert grant.expires_at is not None
    move = Move(grant.account, accounts.of(grant.unit, AccountKind.EXPIRED), left)
    return Posting(TransactionCode.EXPIRY, key, grant.expires_at, [move])
