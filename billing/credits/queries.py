"""Questions about credits: what is left, what was spent, and the ledger."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import Case, DecimalField, F, Q, QuerySet, Sum, When

from accounts.models import Customer
from billing.credits.booking import book
from billing.credits.models import (
    AllocationCell,
    CreditGrant,
    Direction,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    Settlement,
    TransactionCode,
)
from billing.money import CONTEXT, ZERO, exact, total
from billing.periods import Interval, quarter_ceil, quarter_floor
from billing.pricing.models import OverageTerm
from billing.rating.queries import SeriesRow, lines, rated_series
from billing.subscriptions.models import BillingPeriod, PeriodStatus
from billing.subscriptions.queries import periods

_EVERYTHING: Final[Mapping[str, str]] = {}
_BURN_WINDOW: Final = timedelta(days=7)
_ENOUGH: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class GrantBalance:
    """Where a grant's amount went: used + expired + voided + remaining."""

    grant: CreditGrant
    used: Decimal
    expired: Decimal
    voided: Decimal
    remaining: Decimal


@dataclass(frozen=True, slots=True)
class Balance:
    """What a customer has of a unit. Grants in the order in which they are spent; those that ended come last."""

    unit: str
    balance: Decimal
    reserved: Decimal
    unsettled: Decimal
    overage: Decimal
    runs_out_at: datetime | None
    settled_through: datetime | None
    parked_reason: str
    grants: Sequence[GrantBalance]

    @property
    def available(self) -> Decimal:
        return CONTEXT.subtract(CONTEXT.subtract(self.balance, self.reserved), self.unsettled)


# --- balances -----------------------------------------------------------------------------------------------


@exact()
def balances(customer: Customer, at: datetime, *, recorded_by: datetime | None = None) -> list[Balance]:
    """One balance per unit that has grants or overage. What has expired by `at` is gone, posted or not.

    `recorded_by`: as the ledger stood then.
    """
    state = Settlement.objects.filter(customer=customer).first() or Settlement(customer=customer)
    used = _used(customer, recorded_by)
    grants: dict[str, list[GrantBalance]] = defaultdict(list)
    for grant in _in_burn_order(customer, at, recorded_by):
        grants[grant.unit].append(_grant_balance(grant, used.get(grant.pk, ZERO), at))
    overage = _overage(customer)
    unsettled = _unsettled(customer) if state.parked_reason else {}
    left = {
        unit: total(item.remaining for item in items if item.grant.effective_at <= at) for unit, items in grants.items()
    }
    return [
        Balance(
            unit=unit,
            balance=left.get(unit, ZERO),
            reserved=ZERO,
            unsettled=unsettled.get(unit, ZERO),
            overage=overage.get(unit, ZERO),
            runs_out_at=_runs_out_at(customer, unit, left[unit], at) if left.get(unit) else None,
            settled_through=state.settled_through,
            parked_reason=state.parked_reason,
            grants=grants.get(unit, []),
        )
        for unit in sorted(grants.keys() | overage.keys())
    ]


def settled_through(customer: Customer) -> datetime | None:
    """Usage counted before this instant is allocated to grants; None before the first settlement."""
    return Settlement.objects.filter(customer=customer).values_list("settled_through", flat=True).first()


def grant_balance(grant: CreditGrant, at: datetime) -> GrantBalance:
    """Where this grant's amount went."""
    paid = AllocationCell.objects.filter(grant=grant).aggregate(used=Sum("posted"))["used"]
    return _grant_balance(grant, paid or ZERO, at)


def _in_burn_order(customer: Customer, at: datetime, recorded_by: datetime | None) -> list[CreditGrant]:
    """As `allocation.burn_order` spends them, those that have ended last."""
    found = CreditGrant.objects.filter(customer=customer).select_related("customer")
    if recorded_by is not None:
        found = found.filter(created_at__lte=recorded_by)
    rank = {"promotional": 0, "plan": 1, "paid": 2}
    return sorted(
        found,
        key=lambda grant: (
            _has_ended(grant, at),
            grant.priority,
            grant.expires_at is None,
            grant.expires_at or grant.effective_at,
            rank[grant.kind],
            grant.effective_at,
            grant.pk,
        ),
    )


def _has_ended(grant: CreditGrant, at: datetime) -> bool:
    return grant.voided_at is not None or (grant.expires_at is not None and grant.expires_at <= at)


@exact()
def _grant_balance(grant: CreditGrant, used: Decimal, at: datetime) -> GrantBalance:
    rest = grant.amount - used
    if not _has_ended(grant, at):
        return GrantBalance(grant, used, expired=ZERO, voided=ZERO, remaining=rest)
    if grant.voided_at is not None:
        return GrantBalance(grant, used, expired=ZERO, voided=rest, remaining=ZERO)
    return GrantBalance(grant, used, expired=rest, voided=ZERO, remaining=ZERO)


def _used(customer: Customer, recorded_by: datetime | None) -> dict[int, Decimal]:
    """What each grant has paid: from the cells, or for an earlier day from the ledger's entries."""
    if recorded_by is None:
        cells = AllocationCell.objects.filter(grant__customer=customer)
        return dict(cells.values_list("grant").annotate(used=Sum("posted")))
    entries = LedgerEntry.objects.filter(
        account__grant__customer=customer,
        transaction__code=TransactionCode.USAGE,
        transaction__recorded_at__lte=recorded_by,
    )
    signed = Case(
        When(direction=Direction.DEBIT, then=F("amount")),
        default=-F("amount"),
        output_field=DecimalField(max_digits=38, decimal_places=12),
    )
    return dict(entries.values_list("account__grant").annotate(used=Sum(signed)))


def _overage(customer: Customer) -> dict[str, Decimal]:
    """Of the open periods."""
    cells = AllocationCell.objects.filter(period__customer=customer, period__status=PeriodStatus.OPEN, grant=None)
    return {unit: amount for unit, amount in cells.values_list("unit").annotate(sum=Sum("posted")) if amount}


def _unsettled(customer: Customer) -> dict[str, Decimal]:
    """Rated but not allocated, of the periods that are not closed."""
    waiting = [period for period in periods(customer) if period.status != PeriodStatus.CLOSED]
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for line in (line for period in waiting for line in lines(period)):
        amounts[line.unit] += line.amount
    for unit, posted in AllocationCell.objects.filter(period__in=waiting).values_list("unit").annotate(Sum("posted")):
        amounts[unit] -= posted
    return amounts


def _runs_out_at(customer: Customer, unit: str, left: Decimal, at: datetime) -> datetime | None:
    """When it is gone at the mean pace of the last seven days; None with less than a day of them, or at rest."""
    first = periods(customer, ends_at=at).first()
    since = quarter_floor(at - _BURN_WINDOW)
    if first is not None:
        since = max(since, first.starts_at)
    if first is None or at - since < _ENOUGH:
        return None
    burned = total(row.amount for row in rated_series(customer, edges=[since, quarter_ceil(at)], unit=unit))
    if burned <= 0:
        return None
    seconds = Decimal(int((at - since).total_seconds())) * left / burned
    return at + timedelta(seconds=int(seconds)) if seconds < _FAR else None


_FAR: Final = Decimal(10 * 365 * 86400)


# --- spend --------------------------------------------------------------------------------------------------


def spend(customer: Customer, *, unit: str, interval: Interval) -> Decimal:
    """Rated usage in the unit plus, for a currency, credit overage at its rate: before grants, fees and tax."""
    return total(row.amount for row in spend_series(customer, edges=[interval.start, interval.end], unit=unit))


def spend_series(
    customer: Customer,
    *,
    edges: Sequence[datetime],
    unit: str,
    group_by: Sequence[str] = (),
    filters: Mapping[str, str] = _EVERYTHING,
) -> list[SeriesRow]:
    """As `rating.queries.rated_series`, with overage: its `price` is "overage:<unit>", its dimensions are absent."""
    rated = rated_series(customer, edges=edges, unit=unit, group_by=group_by, filters=filters)
    extra = _overage_rows(customer, edges, unit, group_by, filters)
    if not extra:
        return rated
    if group_by:
        return sorted([*rated, *extra], key=lambda row: row.start)
    beyond = {row.start: row.amount for row in extra}  # ungrouped, so one row a bucket
    return [_joined(row, beyond.get(row.start)) for row in rated]


def _joined(row: SeriesRow, beyond: Decimal | None) -> SeriesRow:
    if beyond is None:
        return row
    return SeriesRow(row.start, row.end, row.group, None, CONTEXT.add(row.amount, beyond))


@exact()
def _overage_rows(
    customer: Customer, edges: Sequence[datetime], unit: str, group_by: Sequence[str], filters: Mapping[str, str]
) -> list[SeriesRow]:
    """What grants did not cover, at the rate of each period's plan version."""
    rates = _overage_rates(customer, edges, unit)
    if not rates or filters.keys() - {"price", "meter"}:
        return []
    concerned = [period for period in _neighbours(customer, edges) if period.version_id in rates]
    rate_of = {period.pk: rates[period.version_id] for period in concerned}
    sums: dict[tuple[int, tuple[str | None, ...]], Decimal] = defaultdict(Decimal)
    for (line, starts_at, grant), amount in book(customer, concerned, at=edges).cells.items():
        index = bisect_right(edges, starts_at) - 1
        rate = rate_of[line.id[0]].get(line.unit)
        names = {"price": f"overage:{line.unit}", "meter": line.meter}
        if grant is None and rate and 0 <= index < len(edges) - 1 and _passes(names, filters):
            sums[index, tuple(names.get(name) for name in group_by)] += amount * rate
    return [
        SeriesRow(edges[index], edges[index + 1], dict(zip(group_by, group, strict=True)), None, amount)
        for (index, group), amount in sorted(sums.items(), key=lambda item: item[0][0])
        if amount
    ]


def _passes(names: Mapping[str, str], filters: Mapping[str, str]) -> bool:
    return all(names[name] == value for name, value in filters.items())


def _overage_rates(customer: Customer, edges: Sequence[datetime], unit: str) -> dict[int, dict[str, Decimal]]:
    """By plan version: what one of each unit costs beyond the grants, where that is something."""
    terms = OverageTerm.objects.filter(
        version__in=periods(customer, starts_at=edges[0], ends_at=edges[-1]).values("version"),
        version__plan__currency=unit,
        unit_amount__gt=0,
    )
    rates: dict[int, dict[str, Decimal]] = defaultdict(dict)
    for term in terms:
        rates[term.version_id][term.unit] = term.unit_amount
    return rates


def _neighbours(customer: Customer, edges: Sequence[datetime]) -> list[BillingPeriod]:
    return list(periods(customer, starts_at=edges[0], ends_at=edges[-1]))


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


def due_customers(at: datetime) -> list[int]:
    """Ids of customers with something to post that no event announces: grants that ended with something left, and
    periods that lack their plan's grants."""
    ended = LedgerAccount.objects.filter(
        Q(grant__expires_at__lte=at) | Q(grant__voided_at__isnull=False), credits__gt=F("debits")
    )
    bare = BillingPeriod.objects.filter(version__credits__isnull=False, grants=None)
    ids = {*ended.values_list("customer", flat=True), *bare.values_list("customer", flat=True)}
    return sorted(ids)
