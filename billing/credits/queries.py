"""Questions about credits: what is left, what was spent, and the ledger."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db.models import F, Min, Q, QuerySet, Sum

from accounts.models import Customer
from billing.credits import plan_credits
from billing.credits.allocation import burn_order
from billing.credits.booking import grants_of, offered, paid, rated_already, total_of, with_rolled_out
from billing.credits.burning import coming, paces, stocks
from billing.credits.ledger import sum_of
from billing.credits.models import (
    AccountKind,
    AllocationCell,
    CreditGrant,
    Direction,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    Settlement,
    TransactionCode,
)
from billing.credits.outlook import Outlook, outlook
from billing.credits.overage import overage_rows
from billing.money import CONTEXT, ZERO, exact, total
from billing.periods import QUARTER, Interval
from billing.rating.queries import SeriesRow, lines, rated_series
from billing.subscriptions.models import PeriodStatus
from billing.subscriptions.queries import periods

_EVERYTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class GrantBalance:
    """Where a grant's amount, what operators corrected and what rolled over to it went: used + expired + voided +
    rolled_out + remaining."""

    grant: CreditGrant
    used: Decimal
    expired: Decimal
    voided: Decimal
    remaining: Decimal

    @property
    def total(self) -> Decimal:
        return total_of(self.grant)

    @property
    def rolled_out(self) -> Decimal:
        return self.grant.rolled_out


@dataclass(frozen=True, slots=True)
class Balance:
    """What a customer has of a unit. Grants in the order in which they are spent; those that ended come last."""

    unit: str
    balance: Decimal
    reserved: Decimal
    unsettled: Decimal
    overage: Decimal
    outlook: Outlook | None
    settled_through: datetime | None
    parked_reason: str
    grants: Sequence[GrantBalance]

    @property
    def available(self) -> Decimal:
        return CONTEXT.subtract(CONTEXT.subtract(self.balance, self.reserved), self.unsettled)

    @property
    def runs_out_at(self) -> datetime | None:
        """From when on usage that grants pay for finds none, at the pace of the last seven days."""
        return self.outlook.runs_out_at if self.outlook else None


# --- balances -----------------------------------------------------------------------------------------------


@exact()
def balances(customer: Customer, at: datetime, *, recorded_by: datetime | None = None) -> list[Balance]:
    """One balance per unit that has grants or overage. What has expired by `at` is gone, posted or not.

    `recorded_by`: as the ledger stood then.
    """
    state = Settlement.objects.filter(customer=customer).first() or Settlement(customer=customer)
    used, overage = _used(customer, recorded_by), _overage(customer, at, recorded_by)
    grants: dict[str, list[GrantBalance]] = defaultdict(list)
    for grant in _in_burn_order(_grants(customer, recorded_by), at):
        grants[grant.unit].append(balance_of(grant, used.get(grant.pk, ZERO), at))
    unsettled = _unsettled(customer) if state.parked_reason else {}
    left = {
        unit: total(item.remaining for item in items if item.grant.effective_at <= at) for unit, items in grants.items()
    }
    outlooks = _outlooks(customer, at, grants) if any(left.values()) else {}
    return [
        Balance(
            unit=unit,
            balance=left.get(unit, ZERO),
            reserved=ZERO,
            unsettled=unsettled.get(unit, ZERO),
            overage=overage.get(unit, ZERO),
            outlook=outlooks.get(unit),
            settled_through=state.settled_through,
            parked_reason=state.parked_reason,
            grants=grants.get(unit, []),
        )
        for unit in sorted(grants.keys() | overage.keys())
    ]


def parked_amounts(customer: Customer) -> dict[str, Decimal]:
    """By unit, of a customer whose books are parked: what is rated but not allocated. Empty for all others."""
    parked = Settlement.objects.filter(customer=customer).exclude(parked_reason="").exists()
    return dict(_unsettled(customer)) if parked else {}


def settled_through(customer: Customer) -> datetime | None:
    """Usage acknowledged before this instant is allocated to grants; None before the first settlement."""
    return Settlement.objects.filter(customer=customer).values_list("settled_through", flat=True).first()


def grant_balance(grant: CreditGrant, at: datetime) -> GrantBalance:
    """Where this grant's amount went."""
    paid = AllocationCell.objects.filter(grant=grant).aggregate(used=Sum("posted"))["used"]
    found = with_rolled_out(CreditGrant.objects.filter(pk=grant.pk)).select_related("customer").get()
    return balance_of(found, paid or ZERO, at)


def _grants(customer: Customer, recorded_by: datetime | None) -> list[CreditGrant]:
    """Those that the books knew of; what was voided later is not void yet."""
    if recorded_by is None:
        return grants_of(customer)
    found = CreditGrant.objects.filter(customer=customer, created_at__lte=recorded_by)
    grants = list(with_rolled_out(found).select_related("customer", "period", "term"))
    void = set(_entries(customer, recorded_by, TransactionCode.VOID).values_list("account__grant", flat=True))
    adjusted = _taken(_entries(customer, recorded_by, TransactionCode.ADJUSTMENT))
    rollovers = _entries(customer, recorded_by, TransactionCode.ROLLOVER)
    # One is effective when the grant that it came to begins, which is when the one that it came from expires.
    came = _taken(rollovers.filter(transaction__effective_at=F("account__grant__effective_at")))
    went = _taken(rollovers.filter(transaction__effective_at=F("account__grant__expires_at")))
    for grant in grants:
        if grant.pk not in void and not _ended_with_nothing(grant, recorded_by):
            grant.voided_at = None
        grant.adjusted, grant.rolled_in = -adjusted.get(grant.pk, ZERO), -came.get(grant.pk, ZERO)
        grant.rolled_out = went.get(grant.pk, ZERO)
    return grants


def _ended_with_nothing(grant: CreditGrant, recorded_by: datetime) -> bool:
    """Voided when nothing was left, which no entry tells: in the quarter hour whose end is `voided_at`."""
    return grant.voided_at is not None and not grant.forfeited and grant.voided_at - QUARTER <= recorded_by


def _taken(entries: QuerySet[LedgerEntry]) -> dict[int, Decimal]:
    """By grant, what these entries took from it."""
    of_grants = entries.filter(account__kind=AccountKind.GRANT)
    return dict(of_grants.values_list("account__grant").annotate(taken=sum_of(Direction.DEBIT)))


def _in_burn_order(grants: Iterable[CreditGrant], at: datetime) -> list[CreditGrant]:
    """As allocation spends them, those that have ended last."""
    offers = burn_order(offered(grant, total_of(grant)) for grant in grants)
    place = {offer.id: number for number, offer in enumerate(offers)}
    return sorted(grants, key=lambda grant: (grant.has_ended(at), place[grant.pk]))


@exact()
def balance_of(grant: CreditGrant, used: Decimal, at: datetime) -> GrantBalance:
    """Where the grant's amount went; `grant` as `with_rolled_out` reads it."""
    rest = total_of(grant) - grant.rolled_out - used
    if not grant.has_ended(at):
        return GrantBalance(grant, used, expired=ZERO, voided=ZERO, remaining=rest)
    if grant.voided_at is not None:
        return GrantBalance(grant, used, expired=ZERO, voided=rest, remaining=ZERO)
    return GrantBalance(grant, used, expired=rest, voided=ZERO, remaining=ZERO)


def _entries(customer: Customer, recorded_by: datetime, code: TransactionCode) -> QuerySet[LedgerEntry]:
    return LedgerEntry.objects.filter(
        transaction__customer=customer, transaction__code=code, transaction__recorded_at__lte=recorded_by
    )


def _used(customer: Customer, recorded_by: datetime | None) -> dict[int, Decimal]:
    """What each grant has paid: from the cells, or for an earlier day from the ledger's entries."""
    if recorded_by is None:
        used: dict[int, Decimal] = defaultdict(Decimal)
        for one in paid(customer):
            if one.grant_id is not None:
                used[one.grant_id] = CONTEXT.add(used[one.grant_id], one.amount)
        return used
    return _taken(_entries(customer, recorded_by, TransactionCode.USAGE))


def _overage(customer: Customer, at: datetime, recorded_by: datetime | None) -> dict[str, Decimal]:
    """Of the periods that `at` lies in: from the cells, or for an earlier day from the ledger's entries."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    if recorded_by is None:
        for one in paid(customer):
            if one.grant_id is None and one.starts_at <= at < one.ends_at:
                sums[one.unit] = CONTEXT.add(sums[one.unit], one.amount)
    else:
        open_then = Q(cell__period__starts_at__lte=at, cell__period__ends_at__gt=at)
        entries = _entries(customer, recorded_by, TransactionCode.USAGE).filter(open_then)
        entries = entries.filter(account__kind=AccountKind.OVERAGE)
        sums = dict(entries.values_list("account__unit").annotate(sum=sum_of(Direction.DEBIT)))
    return {unit: amount for unit, amount in sums.items() if amount}


def _unsettled(customer: Customer) -> dict[str, Decimal]:
    """Rated but not allocated, of the periods that are not closed."""
    waiting = [period for period in periods(customer) if period.status != PeriodStatus.CLOSED]
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for line in (line for period in waiting for line in lines(period)):
        amounts[line.unit] += line.amount
    for unit, posted in AllocationCell.objects.filter(period__in=waiting).values_list("unit").annotate(Sum("posted")):
        amounts[unit] -= posted
    return amounts


def _outlooks(customer: Customer, at: datetime, grants: Mapping[str, Sequence[GrantBalance]]) -> Mapping[str, Outlook]:
    """By unit, where it goes at the pace of the last days; nothing for what is at rest."""
    ahead, found = coming(customer, at, [item.grant for items in grants.values() for item in items]), {}
    for unit, pace in paces(customer, at).items():
        left = {offered(item.grant, item.total): item.remaining for item in grants.get(unit, ()) if item.remaining}
        if left and pace.per_day > 0:
            found[unit] = outlook(stocks(left, ahead, unit), pace, at, ahead.until)
    return found


# --- spend --------------------------------------------------------------------------------------------------


def spend(customer: Customer, *, unit: str, interval: Interval) -> Decimal:
    """Rated usage in the unit plus, for a currency, credit overage at its rate: before grants, fees and tax."""
    edges = [interval.start, interval.end]
    rated = rated_already(customer, unit, interval)
    if rated is None:
        return total(row.amount for row in spend_series(customer, edges=edges, unit=unit))
    return total([rated, *(row.amount for row in overage_rows(customer, edges, unit, (), _EVERYTHING))])


def spend_series(
    customer: Customer,
    *,
    edges: Sequence[datetime],
    unit: str,
    group_by: Sequence[str] = (),
    filters: Mapping[str, str] = _EVERYTHING,
    within: Collection[int] | None = None,
) -> list[SeriesRow]:
    """As `rating.queries.rated_series`, with overage: its `price` is "overage:<unit>", its dimensions are absent."""
    rated = rated_series(customer, edges=edges, unit=unit, group_by=group_by, filters=filters, within=within)
    extra = overage_rows(customer, edges, unit, group_by, filters, within=within)
    beyond = {_place(row): row for row in extra}
    joined = [_joined(row, beyond.pop(_place(row), None)) for row in rated]
    return sorted([*joined, *beyond.values()], key=lambda row: row.start) if beyond else joined


def _place(row: SeriesRow) -> tuple[datetime, *tuple[str | None, ...]]:
    """The bucket and the group: a series has one row of each."""
    return row.start, *row.group.values()


def _joined(row: SeriesRow, beyond: SeriesRow | None) -> SeriesRow:
    if beyond is None:
        return row
    return SeriesRow(row.start, row.end, row.group, None, CONTEXT.add(row.amount, beyond.amount))


# --- ledger -------------------------------------------------------------------------------------------------


def ledger(
    customer: Customer,
    *,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    code: str | None = None,
) -> QuerySet[LedgerTransaction]:
    """The customer's transactions by the time of recording, with their entries, accounts and causes."""
    found = LedgerTransaction.objects.filter(customer=customer)
    if starts_at is not None:
        found = found.filter(recorded_at__gte=starts_at)
    if ends_at is not None:
        found = found.filter(recorded_at__lt=ends_at)
    if code is not None:
        found = found.filter(code=code)
    return found.prefetch_related("entries__account__grant", "entries__cell__price", "entries__cell__period")


def parked() -> QuerySet[Settlement]:
    """Customers that are not settled, with the reason."""
    return Settlement.objects.exclude(parked_reason="").select_related("customer__test_clock").order_by("customer")


def parked_customers() -> int:
    """How many customers are not settled, because their books fail a check."""
    return parked().count()


def due_customers(at: datetime, among: Collection[int] | None = None) -> list[int]:
    """Ids of customers, of these or of all that live in real time, with something to post that no event announces:
    grants that ended with something left, and new periods that lack their plan's grants."""
    ended = LedgerAccount.objects.filter(
        Q(grant__expires_at__lte=at) | Q(grant__voided_at__isnull=False),
        kind=AccountKind.GRANT,
        credits__gt=F("debits"),
    )
    whose = Q(customer__test_clock=None) if among is None else Q(customer__in=among)
    ended_by = ended.filter(whose).values_list("customer", flat=True)
    return sorted({*ended_by, *plan_credits.lacking(at, among)})


def next_due(customer_ids: Collection[int], after: datetime) -> dict[int, datetime]:
    """By customer: when a grant ends next, after this instant; where plan credits end, the next ones come."""
    ends = CreditGrant.objects.filter(customer__in=customer_ids, expires_at__gt=after, voided_at=None)
    return dict(ends.values_list("customer").annotate(Min("expires_at")))
