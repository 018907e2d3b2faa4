"""Freezing the lines of closed billing periods, and billing later differences in the period that is open by then.

Where none is open, nobody is billed: they stand on the closing statement of the subscription that has ended, until
another one in the currency begins and bills them.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import Q, Sum

from billing.credits.models import BilledLine, Settlement
from billing.credits.paid import LineId, Paid, line_id
from billing.money import CONTEXT, ZERO, exact, quantise
from billing.pricing.queries import overage_rates
from billing.pricing.schemes import Breakdown, Rated, rate_row
from billing.rating.queries import Line, lines, lines_of, priced_in
from billing.subscriptions.models import BillingPeriod, PeriodStatus
from billing.subscriptions.queries import SEGMENTS, segments_of


@dataclass(frozen=True, slots=True)
class Figures:
    """What is billed of a line, or is to be."""

    quantity: Decimal = ZERO
    events: int = 0
    amount: Decimal = ZERO
    covered: Decimal = ZERO
    beyond: Decimal = ZERO
    overage: Decimal = ZERO

    def less(self, other: "Figures") -> "Figures":
        return Figures(
            quantity=CONTEXT.subtract(self.quantity, other.quantity),
            events=self.events - other.events,
            amount=CONTEXT.subtract(self.amount, other.amount),
            covered=CONTEXT.subtract(self.covered, other.covered),
            beyond=CONTEXT.subtract(self.beyond, other.beyond),
            overage=CONTEXT.subtract(self.overage, other.overage),
        )

    def plus(self, other: "Figures") -> "Figures":
        return self.less(NONE.less(other))

    def __bool__(self) -> bool:
        return self != NONE


NONE: Final = Figures()
_SUMS: Final = tuple(asdict(NONE))


@exact()
def bill(states: Sequence[Settlement], at: datetime) -> list[BillingPeriod]:
    """Needs the claims, and settled lines. Freeze the lines of periods that have closed, which it answers in time
    order; bill what has changed since then of others, whose usage, corrections or grants these states settle again; and
    bill what nobody was billed for where that can be now. Two queries where there is nothing.
    """
    late = {state.pk: state.resettle_from for state in states if state.resettle_from is not None}
    wanted = Q(billed_at=None)
    if late:
        wanted |= Q(customer__in=late, ends_at__gt=min(late.values()))
    closed = BillingPeriod.objects.filter(
        wanted, customer__in=[state.pk for state in states], status=PeriodStatus.CLOSED
    )
    closed = closed.select_related("customer", "subscription", "version__plan").prefetch_related(SEGMENTS)
    frozen = []
    for period in closed.order_by("starts_at", "pk"):
        since = late.get(period.customer_id)
        if period.billed_at is None:
            _record(period, period, at)
            BillingPeriod.objects.filter(pk=period.pk).update(billed_at=at)
            frozen.append(period)
        elif since is not None and period.ends_at > since:
            _record(period, _open_now(period), _later(period, at))
    _bill_at_last([state.pk for state in states], at)
    return frozen


def _bill_at_last(customer_ids: Collection[int], at: datetime) -> None:
    """Take what nobody is billed for to the periods that are open in its currency: less for nobody, more for them."""
    whose = Q(segment__period__customer__in=customer_ids)
    if not BilledLine.objects.filter(whose, period=None).exists():  # as nearly always, and much faster
        return
    found = unbilled(whose)
    opened = {period: _open_now(period) for period in {one.segment.period for one in found}}
    BilledLine.objects.bulk_create(
        _row(one, billed_in, figures, _later(one.segment.period, at))
        for one in found
        if (period := opened[one.segment.period]) is not None
        for billed_in, figures in [(None, NONE.less(figures_of(one))), (period, figures_of(one))]
    )


def _later(period: BillingPeriod, at: datetime) -> datetime:
    """After the period was frozen, also where a test clock stands still: so a frozen row is told from a later one."""
    assert period.billed_at is not None
    return max(at, period.billed_at + timedelta(microseconds=1))


def unbilled(whose: Q) -> list[BilledLine]:
    """What nobody is billed for, line by line: late adjustments that found no open period. They are not stored so."""
    rows = BilledLine.objects.filter(whose, period=None).select_related(
        "segment__version__plan",
        "segment__period__version__plan",
        "segment__period__subscription__version__plan",
        "segment__period__customer",
        "price__meter",
    )
    sums: dict[LineId, Figures] = {}
    firsts: dict[LineId, BilledLine] = {}
    for one in rows.order_by("segment__starts_at", "pk"):
        line = LineId(one.segment_id, one.price_id, one.row)
        firsts.setdefault(line, one)
        sums[line] = sums.get(line, NONE).plus(figures_of(one))
    return [_row(first, None, figures, first.recorded_at) for line, first in firsts.items() if (figures := sums[line])]


def figures_of(billed: BilledLine) -> Figures:
    return Figures(**{name: getattr(billed, name) for name in _SUMS})


def _row(of: Line | BilledLine, billed_in: BillingPeriod | None, figures: Figures, at: datetime) -> BilledLine:
    return BilledLine(
        period=billed_in,
        segment=of.segment,
        price=of.price,
        row=of.row,
        unit=of.unit,
        recorded_at=at,
        **asdict(figures),
    )


def _record(period: BillingPeriod, billed_in: BillingPeriod | None, at: datetime) -> None:
    before = of_segments([period])
    BilledLine.objects.bulk_create(
        _row(line, billed_in, difference, at)
        for line, figures in figures_now(period)
        if (difference := figures.less(before.get(line_id(line), NONE)))
    )


def figures_now(period: BillingPeriod) -> list[tuple[Line, Figures]]:
    """The period's lines as they are counted and settled now."""
    paid = Paid([period])
    return [(line, _figures(line, paid)) for line in lines(period)]


def differences(billed: Sequence[BillingPeriod]) -> Iterator[tuple[LineId, Figures, Figures]]:
    """Where what is billed of the lines of these periods, in any period, is not what the lines are now: which line,
    what is billed, what it is. Of one customer, with everything settled."""
    if not billed:
        return
    parts = [part for period in billed for part in segments_of(period)]
    starts_at, ends_at = min(one.starts_at for one in billed), max(one.ends_at for one in billed)
    paid, rows = Paid(billed), of_segments(billed)
    found = lines_of(billed[0].customer, priced_in(parts), starts_at=starts_at, ends_at=ends_at)
    now = {line_id(line): _figures(line, paid) for line in found}
    for key in sorted(rows.keys() | now.keys()):
        if rows.get(key, NONE) != now.get(key, NONE):
            yield key, rows.get(key, NONE), now.get(key, NONE)


def _figures(line: Line, paid: Paid) -> Figures:
    beyond = paid.beyond(line)
    rate = overage_rates(line.segment.version).get(line.unit, ZERO)
    overage = quantise(CONTEXT.multiply(beyond, rate))
    return Figures(line.quantity, line.events, line.amount, paid.of(line), beyond, overage)


def _open_now(period: BillingPeriod) -> BillingPeriod | None:
    """Where a difference is billed: the open period of the subscription, else of another one in the same currency."""
    opened = BillingPeriod.objects.filter(
        customer=period.customer_id, status=PeriodStatus.OPEN, version__plan__currency=period.version.plan.currency
    )
    own = opened.filter(subscription=period.subscription_id).first()
    return own or opened.order_by("subscription__starts_at", "pk").first()


def of_segments(periods: Iterable[BillingPeriod], **billed: object) -> dict[LineId, Figures]:
    """What is billed in all of the lines of these periods; `billed` narrows down where."""
    rows = BilledLine.objects.filter(segment__period__in=periods, **billed).values_list("segment", "price", "row")
    sums = rows.annotate(*(Sum(name) for name in _SUMS)).order_by("segment", "price", "row")
    return {LineId(*found[:3]): Figures(*found[3:]) for found in sums}


def adjustments(periods: Sequence[BillingPeriod]) -> list[BilledLine]:
    """Late adjustments that are billed in these periods, of lines of earlier ones."""
    rows = BilledLine.objects.filter(period__in=periods).exclude(segment__period__in=periods)
    return list(rows.select_related("segment__version__plan", "segment__period", "price__meter"))


def billed_elsewhere(periods: Sequence[BillingPeriod]) -> list[BilledLine]:
    """Late adjustments of the lines of these periods, that later ones bill, or nobody."""
    rows = BilledLine.objects.filter(segment__period__in=periods).exclude(period__in=periods)
    return list(rows.select_related("segment__version__plan"))


def as_billed(line: Line, figures: Figures) -> Line:
    """The line as it was when it was billed."""
    if (line.quantity, line.events, line.amount) == (figures.quantity, figures.events, figures.amount):
        return line
    rated = rate_row(line.terms, figures.quantity, figures.events)
    if rated.amount != figures.amount:
        part = Breakdown(line.terms.where, None, figures.quantity, ZERO, ZERO, figures.amount)
        rated = Rated(figures.amount, (part,), lambda: "As billed when the period closed")
    return replace(line, quantity=figures.quantity, events=figures.events, rated=rated)
