"""From what the dashboard shows to what is due: every row read from its own source, so that a difference shows.

Usage is added up from the buckets, which the statement's lines are not; credits from the ledger's entries, which the
statement's are not. What the rows leave open of the amount due is `unexplained`: nothing, unless something is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import Final

from django.db.models import Case, DecimalField, F, Q, Sum, When

from billing.credits.billed import adjustments, billed_elsewhere
from billing.credits.models import AccountKind, BilledLine, Direction, LedgerEntry
from billing.credits.queries import spend_series
from billing.credits.statements import PeriodStatement, Source, late_charges
from billing.money import CONTEXT, ZERO, exact, total
from billing.rating.statement import Statement
from billing.subscriptions.models import BillingPeriod

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Bridge:
    """One unit of a statement; everything in it."""

    unit: str
    usage: Decimal
    fees: Decimal
    true_ups: Decimal
    late_adjustments: Decimal
    discounts: Decimal
    credits_applied: Decimal
    tax: Decimal
    rounding: Decimal
    amount_due: Decimal

    @property
    @exact()
    def unexplained(self) -> Decimal:
        added = self.usage + self.fees + self.true_ups + self.late_adjustments + self.tax + self.rounding
        return self.amount_due - (added - self.discounts - self.credits_applied)


def bridges(found: PeriodStatement) -> list[Bridge]:
    """One per unit of the statement. Read it and this in one snapshot."""
    applied = _applied(found.covered)
    elsewhere, here = billed_elsewhere(found.covered), adjustments(found.covered)
    return [_bridge(found, one, applied.get(one.unit, ZERO), elsewhere, here) for one in found.units]


@exact()
def _bridge(
    found: PeriodStatement,
    one: Statement[Source],
    applied: Decimal,
    elsewhere: Sequence[BilledLine],
    here: Sequence[BilledLine],
) -> Bridge:
    """What came late is in the usage and the ledger of its own period, and in the bill of another one."""
    late = late_charges(elsewhere, one.unit, found.main.unit)
    return Bridge(
        unit=one.unit,
        usage=_usage(found.covered, one.unit),
        fees=one.fees,
        true_ups=one.true_ups,
        late_adjustments=one.late_adjustments - total(charge.amount for charge in late),
        discounts=one.discounts,
        credits_applied=applied
        - total(charge.credits for charge in late)
        + total(row.covered for row in here if row.unit == one.unit),
        tax=one.tax,
        rounding=one.rounding,
        amount_due=one.amount_due,
    )


def _usage(covered: Sequence[BillingPeriod], unit: str) -> Decimal:
    """Spend, by a series that is cut at noon: no whole day lies in a cut, so every bucket itself is read."""
    edges = _noons(min(period.starts_at for period in covered), max(period.ends_at for period in covered))
    within = {period.pk for period in covered}
    rows = spend_series(covered[0].customer, edges=edges, unit=unit, within=within)
    return total(row.amount for row in rows)


def _noons(start: datetime, end: datetime) -> list[datetime]:
    """The start, every noon (UTC) between, the end."""
    first = datetime.combine(start.astimezone(UTC), time(12), UTC)
    noons = (first + number * _DAY for number in range((end - start).days + 2))
    return [start, *(noon for noon in takewhile(lambda noon: noon < end, noons) if noon > start), end]


def _applied(covered: Sequence[BillingPeriod]) -> dict[str, Decimal]:
    """What grants paid of the periods by unit, as the mean of what the ledger took from grants and what it booked as
    consumed: they are equal, and if one were wrong, the mean would be."""
    paid = LedgerEntry.objects.filter(cell__period__in=covered, cell__grant__isnull=False)
    sums = paid.values_list("account__unit").annotate(sum=_PAID)
    return {unit: CONTEXT.divide(amount, Decimal(2)) for unit, amount in sums}


_PAID: Final = Sum(
    Case(
        When(Q(account__kind=AccountKind.GRANT, direction=Direction.DEBIT), then=F("amount")),
        When(Q(account__kind=AccountKind.CONSUMED, direction=Direction.CREDIT), then=F("amount")),
        default=-F("amount"),
        output_field=DecimalField(max_digits=38, decimal_places=12),
    )
)
