"""Reads what allocation needs, and allocates: which grant pays which part of which line of these periods."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import cast

from django.db.models import OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from accounts.models import Customer
from billing.credits import allocation
from billing.credits.models import AllocationCell, CreditGrant
from billing.metering.queries import read_totals_ahead
from billing.money import CONTEXT, ZERO, total
from billing.periods import Interval
from billing.rating.core import Segment
from billing.rating.queries import segments
from billing.reads import once, remember, shared
from billing.subscriptions.models import BillingPeriod, PlanSegment

type CellKey = tuple[int, int, int, datetime, int | None]  # period, price, row, segment, grant


def key_of(cell: allocation.Cell) -> CellKey:
    """The cell's key among `AllocationCell.key`s."""
    price, row, _, period = cell.line.id
    return period, price, row, cell.segment_starts_at, cell.grant


@dataclass(frozen=True, slots=True)
class Booking:
    """The cells of some periods as they ought to be, and the grants that could take part.

    `rolled`: by grant that began within the periods, what ought to have rolled over to it.
    """

    cells: dict[allocation.Cell, Decimal]
    grants: dict[int, CreditGrant]
    taken_elsewhere: dict[int, Decimal]  # by grant: what other periods took
    rolled: dict[int, Decimal]


def book(customer: Customer, periods: Sequence[BillingPeriod]) -> Booking:
    """As `books`, for one customer; once for each state of the database that several questions share."""
    return once(_key(customer.pk, periods), lambda: books({customer.pk: periods})[customer.pk])


def books(periods: Mapping[int, Sequence[BillingPeriod]]) -> dict[int, Booking]:
    """Allocate the lines of these periods, by customer id. What the grants paid in other periods stays as it is
    posted. Five queries however many customers there are, and one more for each period that is cut in segments."""
    every = [period for own in periods.values() for period in own]
    if not every:
        return {customer_id: Booking({}, {}, {}, {}) for customer_id in periods}
    grants = _grants(every)
    elsewhere = _taken_elsewhere(grants, every)
    boundaries = _boundaries(every)
    with shared():
        read_totals_ahead([(period.customer_id, period.starts_at, period.ends_at) for period in every])
        found = {
            customer_id: _booking(
                own, [grant for grant in grants if grant.customer_id == customer_id], elsewhere, boundaries[customer_id]
            )
            for customer_id, own in periods.items()
        }
        remember((_key(customer_id, own), found[customer_id]) for customer_id, own in periods.items())
    return found


def _key(customer_id: int, periods: Iterable[BillingPeriod]) -> Hashable:
    return "booking", customer_id, *sorted(period.pk for period in periods)


def _booking(
    periods: Sequence[BillingPeriod],
    grants: Sequence[CreditGrant],
    elsewhere: Mapping[int, Decimal],
    boundaries: Collection[datetime],
) -> Booking:
    offers = _offers(grants, elsewhere, since=_span(periods)[0])
    found: list[Segment] = []
    for period in periods:
        stretches = allocation.cuts(Interval(period.starts_at, period.ends_at), offers, boundaries)
        if not stretches:
            continue  # cancelled as it began
        found += segments(period, [stretches[0].start, *(stretch.end for stretch in stretches)])
    taken = {grant.pk: elsewhere[grant.pk] for grant in grants if grant.pk in elsewhere}
    allocated = allocation.distribute(found, offers)
    heirs = [grant.pk for grant in grants if grant.rolled_from_id and grant.effective_at > _span(periods)[0]]
    rolled = {pk: allocated.rolled.get(pk, ZERO) for pk in heirs}
    return Booking(allocated.cells, {grant.pk: grant for grant in grants}, taken, rolled)


def _offers(grants: Sequence[CreditGrant], elsewhere: Mapping[int, Decimal], since: datetime) -> list[allocation.Grant]:
    """The grants as allocation sees them. What rolled over before `since` stays as it is posted; what rolls over later
    is worked out anew, because usage that came late may have taken it before."""
    heirs = {
        grant.rolled_from_id: grant.pk
        for grant in grants
        if grant.rolled_from_id and grant.effective_at > since and not is_withdrawn(grant)
    }
    offers = []
    for grant in grants:
        given, taken = total_of(grant), elsewhere.get(grant.pk, ZERO)
        if grant.effective_at > since:
            given = CONTEXT.subtract(given, grant.rolled_in)
        if grant.expires_at is not None and grant.expires_at <= since:
            given = CONTEXT.subtract(given, grant.rolled_out)
        offer = offered(grant, given, taken)
        if grant.pk in heirs and grant.term is not None:
            offer = replace(offer, rolls_into=heirs[grant.pk], rollover_max=grant.term.rollover_max)
        offers.append(offer)
    return offers


def is_withdrawn(grant: CreditGrant) -> bool:
    """Whether it was never usable, because another one was given instead."""
    return grant.voided_at is not None and grant.voided_at <= grant.effective_at


def total_of(grant: CreditGrant) -> Decimal:
    """All that ever came to it: what was given, what operators corrected, what rolled over to it."""
    return total((grant.amount, grant.adjusted, grant.rolled_in))


def _boundaries(periods: Sequence[BillingPeriod]) -> Mapping[int, set[datetime]]:
    """Where segments are cut, by customer: at the ends of every plan segment of the time, also of periods that closed
    meanwhile."""
    start, end = _span(periods)
    customers = {period.customer_id for period in periods}
    ends = PlanSegment.objects.filter(period__customer__in=customers, ends_at__gt=start, starts_at__lt=end)
    found: dict[int, set[datetime]] = defaultdict(set)
    for customer_id, starts_at, ends_at in ends.values_list("period__customer_id", "starts_at", "ends_at"):
        found[customer_id] |= {starts_at, ends_at}
    return found


def _span(periods: Sequence[BillingPeriod]) -> tuple[datetime, datetime]:
    return min(period.starts_at for period in periods), max(period.ends_at for period in periods)


def has_ended(grant: CreditGrant, at: datetime) -> bool:
    """Whether nothing more can be spent of it, whatever is posted."""
    return grant.voided_at is not None or (grant.expires_at is not None and grant.expires_at <= at)


def _grants(periods: Sequence[BillingPeriod]) -> list[CreditGrant]:
    """Grants of the periods' customers that are usable at some time in them, or that paid for something there."""
    start, end = _span(periods)
    customers = {period.customer_id for period in periods}
    usable = Q(effective_at__lt=end) & (Q(expires_at=None) | Q(expires_at__gt=start))
    paid = Q(pk__in=AllocationCell.objects.filter(period__in=periods, grant__isnull=False).values("grant"))
    found = CreditGrant.objects.filter(usable | paid, customer__in=customers).select_related("term")
    return list(with_rolled_out(found).order_by("pk"))


def with_rolled_out(grants: QuerySet[CreditGrant]) -> QuerySet[CreditGrant]:
    """Each with `rolled_out`: what rolled over from it to the next one."""
    heirs = CreditGrant.objects.filter(rolled_from=OuterRef("pk")).values("rolled_from")
    rolled_out = Coalesce(Subquery(heirs.values(sum=Sum("rolled_in"))), ZERO)
    return grants.annotate(rolled_out=rolled_out)  # type: ignore[no-redef]  # the model says that it has it then


def _taken_elsewhere(grants: Collection[CreditGrant], periods: Sequence[BillingPeriod]) -> dict[int, Decimal]:
    if not grants:
        return {}
    cells = AllocationCell.objects.filter(grant__in=grants).exclude(period__in=periods)
    return dict(cells.values_list("grant").annotate(taken=Sum("posted")))


def offered(grant: CreditGrant, given: Decimal, elsewhere: Decimal = ZERO) -> allocation.Grant:
    """The grant as allocation sees it: what was given, less what other periods took. A void one pays no more than what
    it had paid by then."""
    paid = None
    if grant.voided_at is not None:
        paid = CONTEXT.subtract(CONTEXT.subtract(total_of(grant), grant.forfeited), elsewhere)
    return allocation.Grant(
        id=grant.pk,
        unit=grant.unit,
        amount=CONTEXT.subtract(given, elsewhere),
        most=paid,
        kind=cast(allocation.GrantKind, grant.kind),
        priority=grant.priority,
        effective_at=grant.effective_at,
        expires_at=grant.expires_at,
        voided_at=grant.voided_at,
        meters=frozenset(grant.meters),
    )
