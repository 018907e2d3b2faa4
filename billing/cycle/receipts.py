"""The receipt of an event: from what was sent to the lines it is part of, their arithmetic and their ledger entries."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from accounts.models import Customer
from billing.credits.journal import first_postings
from billing.credits.models import AllocationCell, LedgerTransaction
from billing.metering import queries as counters
from billing.metering.arrivals import written_in
from billing.metering.receipts import EventReceipt, Fed, decides
from billing.money import ZERO, mul_div, quantise
from billing.periods import QUARTER
from billing.pricing.queries import PriceTerms
from billing.pricing.schemes import select_row
from billing.rating.queries import Line, lines, priced_between


@dataclass(frozen=True, slots=True)
class Share:
    """What of a line's amount falls to the event: `exact` where every unit costs the same, else its average."""

    amount: Decimal
    kind: Literal["exact", "average"]


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """A line that the event is part of. Of a meter that does not add up an event has no share: it decides or not."""

    line: Line
    share: Share | None
    decides: bool | None
    transactions: Sequence[LedgerTransaction]


def receipt_lines(receipt: EventReceipt) -> list[tuple[Fed, list[ReceiptLine]]]:
    """Each meter that the event feeds, with its lines; none where it is unpriced."""
    if receipt.customer is None or not receipt.fed:
        return []
    starts_at, written = receipt.fed[0].starts_at, written_in(receipt.event)
    priced = priced_between(receipt.customer, starts_at=starts_at, ends_at=starts_at + QUARTER)
    rated: dict[int, list[Line]] = {segment.pk: [] for segment, _ in priced}
    for period in {segment.period for segment, _ in priced}:
        for line in lines(period):
            rated.setdefault(line.segment.pk, []).append(line)
    return [
        (
            fed,
            [
                _line(receipt.customer, written, fed, item, line)
                for segment, item in priced
                if item.meter.pk == fed.meter.pk
                for line in rated[segment.pk]
                if (line.price.pk, line.row) == (item.price.pk, select_row(item.terms, fed.dimensions))
            ],
        )
        for fed in receipt.fed
    ]


def _line(customer: Customer, written: Sequence[int], fed: Fed, item: PriceTerms, line: Line) -> ReceiptLine:
    is_additive = fed.meter.is_additive
    return ReceiptLine(
        line=line,
        share=share(line, fed.quantity) if is_additive else None,
        decides=None if is_additive else _decides(customer, fed, item, line),
        transactions=_transactions(written, fed, line),
    )


def share(line: Line, quantity: Decimal) -> Share:
    """What of the line's amount falls to a part of its quantity."""
    row = line.terms
    amount = quantise(mul_div(line.amount, quantity, line.quantity)) if line.quantity else ZERO
    is_even = row.scheme == "per_unit" and not row.included
    is_whole = quantity == line.quantity or not quantity
    limited = row.maximum_amount is not None and line.amount >= row.maximum_amount
    return Share(amount, "exact" if is_whole or (is_even and not limited) else "average")


def _decides(customer: Customer, fed: Fed, item: PriceTerms, line: Line) -> bool:
    segment = line.segment
    starts_at, ends_at = segment.starts_at, segment.ends_at
    counted = counters.totals(customer, starts_at=starts_at, ends_at=ends_at, meter_ids=[fed.meter.pk])
    beside = [one for one in counted if select_row(item.terms, one.dimensions) == line.row]
    return decides(fed, customer, starts_at=starts_at, ends_at=ends_at, beside=beside)


def _transactions(written: Sequence[int], fed: Fed, line: Line) -> list[LedgerTransaction]:
    """The postings that took the event into account, and its corrections, in the segment of the line where it lies.
    `written`: the transactions that wrote them."""
    cells = AllocationCell.objects.filter(
        period=line.period,
        price=line.price,
        row=line.row,
        segment_starts_at__gte=line.segment.starts_at,
        segment_starts_at__lte=fed.starts_at,
    )
    segment = cells.order_by("-segment_starts_at").values("segment_starts_at")[:1]
    return first_postings(cells.filter(segment_starts_at__in=segment), written)
