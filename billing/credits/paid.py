"""What grants paid of the lines of billing periods."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from django.db.models import Sum

from billing.credits.models import AllocationCell, CreditGrant
from billing.money import ZERO, exact
from billing.rating.queries import Line
from billing.subscriptions.models import BillingPeriod
from billing.subscriptions.queries import segments_of


class LineId(NamedTuple):
    segment: int
    price: int
    row: int


def line_id(line: Line) -> LineId:
    return LineId(line.segment.pk, line.price.pk, line.row)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a grant paid of the period's usage, in the grant's unit."""

    grant: CreditGrant
    amount: Decimal


class Paid:
    """What grants paid of each line and what is beyond them, by the cells."""

    @exact()
    def __init__(self, covered: Sequence[BillingPeriod]) -> None:
        self._of: dict[LineId, Decimal] = defaultdict(Decimal)
        self._beyond: dict[LineId, Decimal] = defaultdict(Decimal)
        self._by_grant: dict[int, Decimal] = defaultdict(Decimal)
        parts = {period.pk: segments_of(period) for period in covered}
        places = "period", "segment_starts_at", "price", "row", "grant"
        cells = AllocationCell.objects.filter(period__in=covered).values_list(*places)
        for period, starts_at, price, row, grant, amount in cells.annotate(Sum("posted")).order_by("grant"):
            part = next((one.pk for one in parts[period] if one.starts_at <= starts_at < one.ends_at), 0)
            place = LineId(part, price, row)
            if grant is None:
                self._beyond[place] += amount
            else:
                self._of[place] += amount
                self._by_grant[grant] += amount

    def settle(self, line: Line, *, covered: Decimal, beyond: Decimal) -> None:
        """Say otherwise for one line: what was so when it was billed."""
        self._of[line_id(line)], self._beyond[line_id(line)] = covered, beyond

    def of(self, line: Line) -> Decimal:
        return self._of.get(line_id(line), ZERO)

    def beyond(self, line: Line) -> Decimal:
        return self._beyond.get(line_id(line), ZERO)

    def applied(self) -> list[Applied]:
        grants = CreditGrant.objects.in_bulk(self._by_grant.keys())
        return [Applied(grants[pk], amount) for pk, amount in self._by_grant.items() if amount]
