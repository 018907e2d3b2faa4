"""What the books of one customer must say of themselves, whatever has happened. Each raises where they do not."""

from collections import defaultdict
from datetime import datetime
from decimal import Decimal

from django.db.models import F, Sum

from accounts.models import Customer
from billing.credits import liability
from billing.credits.booking import book
from billing.credits.models import AccountKind, AllocationCell, BilledLine, LedgerAccount
from billing.credits.queries import spend
from billing.credits.statements import period_statement
from billing.cycle.bridge import bridges
from billing.metering.models import UnmatchedEvent, UsageEvent
from billing.periods import Interval
from billing.rating.queries import lines
from billing.reads import shared
from billing.subscriptions.models import BillingPeriod
from billing.subscriptions.queries import periods, periods_between

type Used = tuple[Decimal, int]  # the quantity, and how many events


def the_trial_balance_is_nought(customer: Customer) -> None:
    """Debits equal credits in each unit, and what was given and used beyond it lies somewhere."""
    units = LedgerAccount.objects.filter(customer=customer).values("unit")
    assert all(row["rest"] == 0 for row in units.annotate(rest=Sum(F("debits") - F("credits"))))
    balances: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for account in LedgerAccount.objects.filter(customer=customer):
        balances[account.unit, account.kind] += account.credits - account.debits
    for unit in {unit for unit, _ in balances}:
        given = -balances[unit, AccountKind.ISSUED] - balances[unit, AccountKind.OVERAGE]
        kinds = (AccountKind.GRANT, AccountKind.CONSUMED, AccountKind.EXPIRED, AccountKind.VOIDED)
        assert given == sum(balances[unit, kind] for kind in kinds)
        assert all(balances[unit, kind] >= 0 for kind in kinds)


def grants_pay_in_their_time_and_scope(customer: Customer) -> None:
    """No grant pays before it begins, once it has ended, or for a meter that it is not for."""
    paid = AllocationCell.objects.filter(period__customer=customer, grant__isnull=False).exclude(posted=0)
    for cell in paid.select_related("grant", "price__meter"):
        grant, at = cell.grant, cell.segment_starts_at
        assert cell.posted > 0
        assert grant.effective_at <= at
        assert grant.expires_at is None or at < grant.expires_at
        assert grant.voided_at is None or at < grant.voided_at
        assert not grant.meters or cell.price.meter.key in grant.meters


def what_is_owed_is_what_is_left(customer: Customer, left: Decimal, value: Decimal, at: datetime) -> None:
    """The liability report, at cost basis: deferred revenue is what is left times what it was sold for."""
    [found] = liability.by_unit(at)
    assert (found.outstanding, found.value) == (left, value)
    assert found.given == found.used + found.expired + found.voided + found.outstanding


def each_event_is_billed_or_open_once(customer: Customer, sent: int, used: Used) -> None:
    """Every event that was sent is stored once; all that hold are on lines that are billed, or on lines of periods that
    are not, and on none of them twice."""
    assert UsageEvent.objects.filter(customer=customer).values("identity").distinct().count() == sent
    assert UsageEvent.objects.filter(customer=customer).count() == sent
    assert not UnmatchedEvent.objects.exists()
    billed = BilledLine.objects.filter(segment__period__customer=customer).aggregate(Sum("quantity"), Sum("events"))
    quantity, events = billed["quantity__sum"] or Decimal(0), billed["events__sum"] or 0
    for period in BillingPeriod.objects.filter(customer=customer, billed_at=None):
        for line in lines(period):
            quantity, events = quantity + line.quantity, events + line.events
    assert (quantity, events) == used


def billed_anew_from_events_it_is_the_same(period: BillingPeriod, meter: str, used: Used, beyond: Decimal) -> None:
    """What was billed of a closed period, then and later, is what its events come to."""
    rows = BilledLine.objects.filter(segment__period=period, price__meter__key=meter)
    names = ("quantity", "events", "amount", "covered", "beyond")
    sums = rows.aggregate(**{f"of_{name}": Sum(name) for name in names})
    quantity, events = used
    assert tuple(sums[f"of_{name}"] or 0 for name in names) == (quantity, events, quantity, quantity - beyond, beyond)


def nothing_is_unexplained(period: BillingPeriod, at: datetime) -> None:
    """From the chart to the amount due: usage from the buckets, credits from the ledger, lines from the statement."""
    for bridge in bridges(period_statement(period, at=at)):
        assert bridge.unexplained == 0, (period, bridge)


def spend_is_what_allocation_rated(customer: Customer) -> None:
    """Budgets take what allocation has just rated: it is what they would have rated themselves."""
    for period in periods(customer):
        whole = Interval(period.starts_at, period.ends_at)
        for unit in ("credits", "USD"):
            alone = spend(customer, unit=unit, interval=whole)
            with shared():
                book(customer, periods_between(customer, whole.start, whole.end))
                assert spend(customer, unit=unit, interval=whole) == alone


class Frozen:
    """What has been billed stays as it was then, to the last place."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[object, ...]] = {}
        self._statements: dict[int, list[tuple[object, ...]]] = {}

    def lines_stay(self, customer: Customer) -> None:
        now = {row[0]: row for row in BilledLine.objects.filter(segment__period__customer=customer).values_list()}
        assert {pk: now.get(pk) for pk in self._lines} == self._lines
        self._lines = now

    def statements_stay(self, customer: Customer, at: datetime) -> None:
        for period in BillingPeriod.objects.filter(customer=customer, billed_at__isnull=False):
            now = _figures(period, at)
            assert self._statements.setdefault(period.pk, now) == now


def _figures(period: BillingPeriod, at: datetime) -> list[tuple[object, ...]]:
    """Every amount of a statement. What the bridge calls usage moves with late corrections, and so does what it calls
    late: see `nothing_is_unexplained`."""
    found = period_statement(period, at=at)
    return [(one.unit, row.amount, row.credits, row.due) for one in found.units for row in one.rows]
