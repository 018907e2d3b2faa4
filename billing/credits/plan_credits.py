"""What plans give: each plan segment's grants as they ought to be, and from which grant a rest comes."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from django.db.models import Exists, OuterRef, Q

from billing.credits.models import WITHDRAWN, CreditGrant, GrantKind
from billing.periods import Anchor, Interval, local_date, next_period
from billing.pricing.models import CreditEvery, CreditTerm
from billing.subscriptions.models import PeriodStatus, PlanSegment
from billing.subscriptions.proration import Share


def grants_of(segments: Sequence[PlanSegment], at: datetime) -> list[CreditGrant]:
    """The grants of these segments, in time order and not saved: their share of what the plan gives for the billing
    period, or for each month of it. Months that have not begun are among them."""
    terms: dict[int, list[CreditTerm]] = {}
    for term in CreditTerm.objects.filter(version__in={segment.version_id for segment in segments}):
        terms.setdefault(term.version_id, []).append(term)
    found = [
        CreditGrant(
            customer_id=segment.period.customer_id,
            unit=term.unit,
            amount=amount,
            kind=GrantKind.PLAN,
            priority=term.priority,
            effective_at=share.part.start,
            expires_at=share.part.end,
            period=segment.period,
            term=term,
            created_at=at,
        )
        for segment in segments
        for term in terms[segment.version_id]
        for share in _shares(segment, term)
        if (amount := share.of(term.amount))
    ]
    return sorted(found, key=lambda grant: grant.effective_at)


def _shares(segment: PlanSegment, term: CreditTerm) -> Iterator[Share]:
    if term.every == CreditEvery.PERIOD:
        yield segment.share
        return
    period = segment.period
    for month in months(segment.share.whole, period.subscription.anchor_day, period.timezone):
        start, end = max(month.start, segment.starts_at), min(month.end, segment.ends_at)
        if start < end:
            yield Share(Interval(start, end), month)


def months(whole: Interval, anchor_day: int, zone: str) -> Iterator[Interval]:
    """The months of a billing period: from its first day on, each to the same day of the next month."""
    anchor = Anchor(interval="month", count=1, starts_on=local_date(whole.start, zone), day=anchor_day)
    start = whole.start
    while start < whole.end:
        end = min(next_period(anchor, zone, start).end, whole.end)
        yield Interval(start, end)
        start = end


def is_due(grant: CreditGrant, at: datetime) -> bool:
    """Whether it is given by now: those of a month when the month begins, all others with their billing period."""
    assert grant.term is not None
    return grant.term.every == CreditEvery.PERIOD or grant.effective_at <= at


def ancestor_of(grant: CreditGrant) -> CreditGrant | None:
    """The plan's grant whose rest comes to this one: of the same subscription and unit, ending when this one begins."""
    assert grant.period is not None
    heirs = CreditGrant.objects.filter(rolled_from=OuterRef("pk")).exclude(WITHDRAWN)
    ended = CreditGrant.objects.filter(
        ~Exists(heirs),
        kind=GrantKind.PLAN,
        unit=grant.unit,
        period__subscription=grant.period.subscription_id,
        expires_at=grant.effective_at,
        voided_at=None,
        term__rollover_max__gt=0,
    )
    own = ended.filter(term=grant.term).first()
    return own or ended.order_by("pk").first()


def lacking(at: datetime, among: Collection[int] | None = None) -> set[int]:
    """Ids of the customers, of these or of all that live in real time, that a plan owes credits: new periods, and
    months that have begun."""
    paid_for = PlanSegment.objects.filter(
        period__status=PeriodStatus.OPEN, is_trial=False, version__credits__isnull=False
    )
    in_real_time = Q(period__customer__test_clock=None)
    paid_for = paid_for.filter(in_real_time if among is None else Q(period__customer__in=among))
    this_month = CreditGrant.objects.filter(
        period=OuterRef("period"), term__every=CreditEvery.MONTH, effective_at__lte=at, expires_at__gt=at
    )
    begun = paid_for.filter(~Exists(this_month), version__credits__every=CreditEvery.MONTH)
    return {
        *paid_for.filter(period__grants=None).values_list("period__customer", flat=True),
        *begun.filter(starts_at__lte=at, ends_at__gt=at).values_list("period__customer", flat=True),
    }
