"""Reads what allocation needs, and allocates: which grant pays which part of which line of these periods."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import cast

from django.db.models import Q, Sum

from accounts.models import Customer
from billing.credits import allocation
from billing.credits.models import AllocationCell, CreditGrant
from billing.money import CONTEXT, ZERO
from billing.periods import Interval
from billing.rating.core import Segment
from billing.rating.queries import segments
from billing.subscriptions.models import BillingPeriod

type CellKey = tuple[int, int, int, datetime, int | None]  # period, price, row, segment, grant


def key_of(cell: allocation.Cell) -> CellKey:
    """The cell's key among `AllocationCell.key`s."""
    price, row, period = cell.line.id
    return period, price, row, cell.segment_starts_at, cell.grant


@dataclass(frozen=True, slots=True)
class Booking:
    """The cells of some periods as they ought to be, and the grants that could take part."""

    cells: dict[allocation.Cell, Decimal]
    grants: dict[int, CreditGrant]
    taken_elsewhere: dict[int, Decimal]  # by grant: what other periods took


def book(customer: Customer, periods: Sequence[BillingPeriod]) -> Booking:
    """Allocate the lines of the periods. What the grants paid in other periods stays as it is posted."""
    if not periods:
        return Booking({}, {}, {})
    grants = _grants(customer, periods)
    elsewhere = _taken_elsewhere(grants, periods)
    offers = [offered(grant, elsewhere.get(grant.pk, ZERO)) for grant in grants]
    boundaries = _boundaries(customer, periods)
    found: list[Segment] = []
    for period in periods:
        stretches = allocation.cuts(Interval(period.starts_at, period.ends_at), offers, boundaries)
        found += segments(period, [stretches[0].start, *(stretch.end for stretch in stretches)])
    return Booking(allocation.allocate(found, offers), {grant.pk: grant for grant in grants}, elsewhere)


def _boundaries(customer: Customer, periods: Sequence[BillingPeriod]) -> set[datetime]:
    """Where segments are cut: at the ends of every period of the time, also of those that closed meanwhile."""
    start, end = _span(periods)
    ends = BillingPeriod.objects.filter(customer=customer, ends_at__gt=start, starts_at__lt=end)
    return {instant for pair in ends.values_list("starts_at", "ends_at") for instant in pair}


def _span(periods: Sequence[BillingPeriod]) -> tuple[datetime, datetime]:
    return min(period.starts_at for period in periods), max(period.ends_at for period in periods)


def has_ended(grant: CreditGrant, at: datetime) -> bool:
    """Whether nothing more can be spent of it, whatever is posted."""
    return grant.voided_at is not None or (grant.expires_at is not None and grant.expires_at <= at)


def _grants(customer: Customer, periods: Sequence[BillingPeriod]) -> list[CreditGrant]:
    """Grants that are usable at some time in the periods, or that paid for something in them."""
    start, end = _span(periods)
    usable = Q(effective_at__lt=end) & (Q(expires_at=None) | Q(expires_at__gt=start))
    paid = Q(pk__in=AllocationCell.objects.filter(period__in=periods, grant__isnull=False).values("grant"))
    return list(CreditGrant.objects.filter(usable | paid, customer=customer).order_by("pk"))


def _taken_elsewhere(grants: Collection[CreditGrant], periods: Sequence[BillingPeriod]) -> dict[int, Decimal]:
    cells = AllocationCell.objects.filter(grant__in=grants).exclude(period__in=periods)
    return dict(cells.values_list("grant").annotate(taken=Sum("posted")))


def offered(grant: CreditGrant, elsewhere: Decimal = ZERO) -> allocation.Grant:
    """The grant as allocation sees it, less what other periods took."""
    return allocation.Grant(
        id=grant.pk,
        unit=grant.unit,
        amount=CONTEXT.subtract(CONTEXT.subtract(grant.amount, grant.forfeited), elsewhere),
        kind=cast(allocation.GrantKind, grant.kind),
        priority=grant.priority,
        effective_at=grant.effective_at,
        expires_at=grant.expires_at,
        voided_at=grant.voided_at,
        meters=frozenset(grant.meters),
    )
