"""Reads what allocation needs, and allocates: which grant pays which part of which line of these periods."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import cast

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from accounts.models import Customer
from billing.credits import allocation
from billing.credits.models import AllocationCell, CreditGrant
from billing.metering.queries import read_totals_ahead
from billing.money import CONTEXT, ZERO, total
from billing.periods import Interval
from billing.pricing.queries import read_overrides_ahead
from billing.rating.core import Segment
from billing.rating.queries import segments
from billing.reads import once, recall, remember, shared
from billing.subscriptions.models import BillingPeriod
from billing.subscriptions.queries import periods_between, read_periods_ahead, segments_of

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
    return once(_key(customer.pk, periods), lambda: _book(customer, periods))


def _book(customer: Customer, periods: Sequence[BillingPeriod]) -> Booking:
    with shared():
        grants_of(customer)
        paid(customer)
        return books({customer.pk: periods})[customer.pk]


def grants_of(customer: Customer) -> list[CreditGrant]:
    """All of the customer's grants as `with_rolled_out`, with period and term. Read once where reads are shared, and
    then `book` needs no query for them."""
    found = CreditGrant.objects.filter(customer=customer).select_related("customer", "period", "term")
    return once(("grants", customer.pk), lambda: list(with_rolled_out(found).order_by("pk")))


@dataclass(frozen=True, slots=True)
class Paid:
    """What is posted in a period to a grant, or without one beyond the grants."""

    grant_id: int | None
    period_id: int
    unit: str
    starts_at: datetime
    ends_at: datetime
    amount: Decimal


def paid(customer: Customer) -> list[Paid]:
    """All that the customer's cells hold, by grant and period. Read once where reads are shared, as `grants_of`."""
    cells = AllocationCell.objects.filter(period__customer=customer).values_list("grant_id", "period_id", "unit")
    by_period = cells.annotate(starts_at=F("period__starts_at"), ends_at=F("period__ends_at"), amount=Sum("posted"))
    return once(("paid", customer.pk), lambda: [Paid(*row) for row in by_period])


def books(periods: Mapping[int, Sequence[BillingPeriod]]) -> dict[int, Booking]:
    """Allocate the lines of these periods, by customer id. What the grants paid in other periods stays as it is
    posted. Six queries however many customers there are, and one more for each period that is cut in segments."""
    every = [period for own in periods.values() for period in own]
    if not every:
        return {customer_id: Booking({}, {}, {}, {}) for customer_id in periods}
    grants = _grants(periods)
    elsewhere = _taken_elsewhere([grant for own in grants.values() for grant in own], every)
    offers = {pk: _offers(grants[pk], elsewhere, since=_span(own)[0]) for pk, own in periods.items() if own}
    with shared():
        cuts = _cuts(periods, offers)
        read_overrides_ahead(periods)
        whole = [(one.customer_id, one.starts_at, one.ends_at) for one in every]
        read_totals_ahead([one for one, period in zip(whole, every, strict=True) if cuts[period.pk] == [*one[1:]]])
        found = {
            customer_id: _booking(own, cuts, grants[customer_id], offers.get(customer_id, ()), elsewhere)
            for customer_id, own in periods.items()
        }
        remember((_key(customer_id, own), found[customer_id]) for customer_id, own in periods.items())
    return found


def _key(customer_id: int, periods: Iterable[BillingPeriod]) -> Hashable:
    return "booking", customer_id, *sorted(period.pk for period in periods)


def _booking(
    periods: Sequence[BillingPeriod],
    cuts: Mapping[int, Sequence[datetime]],
    grants: Sequence[CreditGrant],
    offers: Sequence[allocation.Grant],
    elsewhere: Mapping[int, Decimal],
) -> Booking:
    charged = [period for period in periods if len(cuts[period.pk]) > 1]  # others were cancelled as they began
    rated = {period.pk: segments(period, cuts[period.pk]) for period in charged}
    remember((("rated", pk), _by_unit(found)) for pk, found in rated.items())
    allocated = allocation.distribute([segment for found in rated.values() for segment in found], offers)
    taken = {grant.pk: elsewhere[grant.pk] for grant in grants if grant.pk in elsewhere}
    heirs = [grant.pk for grant in grants if grant.rolled_from_id and grant.effective_at > _span(periods)[0]]
    rolled = {pk: allocated.rolled.get(pk, ZERO) for pk in heirs}
    return Booking(allocated.cells, {grant.pk: grant for grant in grants}, taken, rolled)


def _by_unit(rated: Iterable[Segment]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for segment in rated:
        for line, amount in segment.amounts.items():
            sums[line.unit] = CONTEXT.add(sums.get(line.unit, ZERO), amount)
    return sums


def rated_already(customer: Customer, unit: str, interval: Interval) -> Decimal | None:
    """What `rating.queries.rated_series` would say of the whole interval, where reads are shared and `books` has rated
    all that was used in it, in whole periods; else None."""
    sums: list[dict[str, Decimal]] = []
    for period in periods_between(customer, interval.start, interval.end):
        known = recall(("rated", period.pk))
        if known is None or period.starts_at < interval.start or period.ends_at > interval.end:
            return None
        sums.append(known)
    return total(known.get(unit, ZERO) for known in sums)


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


def _cuts(
    periods: Mapping[int, Sequence[BillingPeriod]], offers: Mapping[int, Sequence[allocation.Grant]]
) -> dict[int, list[datetime]]:
    """Where each period is cut in segments, its start and end included: where grants begin and end, and at the ends of
    every plan segment of the time, also of periods that closed meanwhile. Only the start of one that was cancelled as
    it began."""
    spans = {customer_id: _span(own) for customer_id, own in periods.items() if own}
    every = [period for own in periods.values() for period in own if period.ends_at > period.starts_at]
    read_periods_ahead([(customer_id, *span) for customer_id, span in spans.items()], known=every)
    cuts: dict[int, list[datetime]] = {}
    for customer_id, (start, end) in spans.items():
        around = periods_between(periods[customer_id][0].customer, start, end)
        parts = [part for one in around for part in segments_of(one)]
        boundaries = {instant for part in parts for instant in (part.starts_at, part.ends_at)}
        for period in periods[customer_id]:
            whole = Interval(period.starts_at, period.ends_at)
            stretches = allocation.cuts(whole, offers[customer_id], boundaries)
            cuts[period.pk] = [period.starts_at, *(stretch.end for stretch in stretches)]
    return cuts


def _span(periods: Sequence[BillingPeriod]) -> tuple[datetime, datetime]:
    return min(period.starts_at for period in periods), max(period.ends_at for period in periods)


def _grants(periods: Mapping[int, Sequence[BillingPeriod]]) -> dict[int, list[CreditGrant]]:
    """By customer: grants that are usable at some time in these periods, or that paid for something there."""
    every = [period for own in periods.values() for period in own]
    if all(recall(("grants", pk)) is not None and recall(("paid", pk)) is not None for pk in periods):
        return {pk: _known_grants(pk, own) for pk, own in periods.items()}
    start, end = _span(every)
    usable = Q(effective_at__lt=end) & (Q(expires_at=None) | Q(expires_at__gt=start))
    cells = AllocationCell.objects.filter(period__in=every, grant=OuterRef("pk"))
    found = CreditGrant.objects.annotate(paid=Exists(cells)).filter(usable | Q(paid=True), customer__in=periods)
    mine: dict[int, list[CreditGrant]] = {customer_id: [] for customer_id in periods}
    for grant in with_rolled_out(found.select_related("term")).order_by("pk"):
        own = periods[grant.customer_id]
        if own and (grant.paid or _overlaps(grant, *_span(own))):  # type: ignore[attr-defined]  # annotated
            mine[grant.customer_id].append(grant)
    return mine


def _known_grants(customer_id: int, periods: Sequence[BillingPeriod]) -> list[CreditGrant]:
    """The same of a customer whose grants and cells were read before."""
    if not periods:
        return []
    own, span = {period.pk for period in periods}, _span(periods)
    payers = {one.grant_id for one in recall(("paid", customer_id)) if one.period_id in own}
    return [grant for grant in recall(("grants", customer_id)) if grant.pk in payers or _overlaps(grant, *span)]


def _overlaps(grant: CreditGrant, start: datetime, end: datetime) -> bool:
    return grant.effective_at < end and (grant.expires_at is None or grant.expires_at > start)


def with_rolled_out(grants: QuerySet[CreditGrant]) -> QuerySet[CreditGrant]:
    """Each with `rolled_out`: what rolled over from it to the next one."""
    heirs = CreditGrant.objects.filter(rolled_from=OuterRef("pk")).values("rolled_from")
    rolled_out = Coalesce(Subquery(heirs.values(sum=Sum("rolled_in"))), ZERO)
    return grants.annotate(rolled_out=rolled_out)  # type: ignore[no-redef]  # the model says that it has it then


def _taken_elsewhere(grants: Collection[CreditGrant], periods: Sequence[BillingPeriod]) -> dict[int, Decimal]:
    if not grants:
        return {}
    known = [recall(("paid", customer_id)) for customer_id in {grant.customer_id for grant in grants}]
    if all(one is not None for one in known):
        return _known_elsewhere(grants, periods, [row for own in known for row in own])
    cells = AllocationCell.objects.filter(grant__in=grants).exclude(period__in=periods)
    return dict(cells.values_list("grant").annotate(taken=Sum("posted")))


def _known_elsewhere(
    grants: Collection[CreditGrant], periods: Sequence[BillingPeriod], rows: Iterable[Paid]
) -> dict[int, Decimal]:
    here, ours = {period.pk for period in periods}, {grant.pk for grant in grants}
    taken: dict[int, Decimal] = {}
    for row in rows:
        if row.grant_id in ours and row.period_id not in here:
            taken[row.grant_id] = CONTEXT.add(taken.get(row.grant_id, ZERO), row.amount)
    return taken


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
