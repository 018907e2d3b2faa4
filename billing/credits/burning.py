"""How fast credits are used, which are still to come, and when in the past each grant paid."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Final, NamedTuple, cast

from accounts.models import Customer
from billing.credits.allocation import Grant, burn_order
from billing.credits.booking import book
from billing.credits.models import CreditGrant
from billing.credits.outlook import Pace, Stock
from billing.credits.plan_credits import months
from billing.money import ZERO, exact, mul_div
from billing.periods import Anchor, Interval, PeriodUnit, local_date, next_period, quarter_ceil, quarter_floor
from billing.pricing.models import CreditEvery, CreditTerm, PlanVersion
from billing.pricing.queries import credit_terms
from billing.rating.core import LineKey
from billing.rating.queries import rated_by_meter, segments
from billing.subscriptions.models import BillingPeriod, PeriodStatus, SubscriptionStatus
from billing.subscriptions.queries import periods_between, recent_periods, segments_of

_WINDOW: Final = timedelta(days=7)
_ENOUGH: Final = timedelta(days=1)
_DAY: Final = timedelta(days=1)
_AHEAD: Final = 24  # periods of a plan that are looked ahead


# --- pace -----------------------------------------------------------------------------------------------------------


@exact()
def paces(customer: Customer, at: datetime) -> Mapping[str, Pace]:
    """By unit: the mean of the last seven days, or of the time since their first billing period began. Nothing with
    less than a day to go by."""
    first = min((one.starts_at for one in periods_between(customer, at - _WINDOW, at)), default=at)
    if at - max(first, at - _WINDOW) < _ENOUGH:
        return {}
    since, end = max(first, quarter_floor(at - _WINDOW)), quarter_ceil(at)
    edges = [since, *_midnights(since, end), end]
    used: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    by_day: dict[str, dict[datetime, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for row in rated_by_meter(customer, edges=edges):
        unit, meter = cast(str, row.group["unit"]), cast(str, row.group["meter"])
        used[unit][meter] += row.amount
        by_day[unit][row.start] += row.amount
    seconds = Decimal(int((at - since).total_seconds()))
    return {
        unit: Pace(
            {meter: mul_div(amount, Decimal(86_400), seconds) for meter, amount in meters.items()},
            [by_day[unit][day] for day in edges[1:-2]],
        )
        for unit, meters in used.items()
    }


def _midnights(start: datetime, end: datetime) -> list[datetime]:
    """In UTC, where counters of whole days are kept."""
    first = datetime.combine(start.astimezone(UTC).date(), time(), UTC) + _DAY
    return [first + number * _DAY for number in range((end - first) // _DAY + 1) if first + number * _DAY < end]


# --- what is to come ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Coming:
    """What the plan will give; `until`: how far that is looked ahead, None where nothing is to come. `heirs`: by the id
    of a grant, of those given as well, into which of these its rest rolls, and at most how much."""

    grants: Sequence[Grant]
    until: datetime | None
    heirs: Mapping[int, tuple[int, Decimal]]


def coming(customer: Customer, at: datetime, given: Iterable[CreditGrant]) -> Coming:
    """The credits of the next months and periods of each active subscription, as its plans stand today, and what rolls
    over to them from those `given`, which come with their period and term. No query
    besides the periods, and one where another version waits for a period's end."""
    lasting = [
        period
        for period in recent_periods(customer, at)
        if period.status == PeriodStatus.OPEN
        and period.subscription.status == SubscriptionStatus.ACTIVE
        and period.subscription.ends_at is None
    ]
    versions = _versions(lasting)
    ahead = {period.subscription_id: list(_ahead_of(period, versions)) for period in lasting}
    gifts = [
        (subscription, term, part)
        for subscription, own in ahead.items()
        for terms, interval, zone, day in own
        for term in terms
        for part in _parts_of(term, interval, zone, day)
        if part.start > at
    ]
    to_come = [_Gift(-number, *gift) for number, gift in enumerate(gifts, 1)]  # because they have no ids yet
    grants = [
        Grant(gift.id, gift.term.unit, gift.term.amount, "plan", gift.term.priority, gift.part.start, gift.part.end)
        for gift in to_come
    ]
    until = min((own[-1][1].end for own in ahead.values() if any(each[0] for each in own)), default=None)
    return Coming(grants, until, _heirs([*_plan_gifts(given), *to_come]))


class _Gift(NamedTuple):
    """What a plan gives in a part of a billing period."""

    id: int
    subscription_id: int
    term: CreditTerm
    part: Interval


def _plan_gifts(given: Iterable[CreditGrant]) -> Iterator[_Gift]:
    for grant in given:
        if grant.term and grant.period and grant.expires_at and grant.voided_at is None:
            part = Interval(grant.effective_at, grant.expires_at)
            yield _Gift(grant.pk, grant.period.subscription_id, grant.term, part)


def _heirs(gifts: Iterable[_Gift]) -> dict[int, tuple[int, Decimal]]:
    """Where rests go, by the rule of `plan_credits.ancestor_of`: to what the subscription gives next in the unit, of
    the same term if there is one."""
    heirs: dict[int, tuple[int, Decimal]] = {}
    ended: dict[tuple[int, str, datetime], list[_Gift]] = defaultdict(list)
    for gift in sorted(gifts, key=lambda gift: gift.part.start):
        before = ended[gift.subscription_id, gift.term.unit, gift.part.start] if gift.id < 0 else []
        ancestor = next((one for one in before if one.term.pk == gift.term.pk), before[0] if before else None)
        if ancestor is not None:
            before.remove(ancestor)
            heirs[ancestor.id] = gift.id, ancestor.term.rollover_max
        if gift.term.rollover_max > 0:
            ended[gift.subscription_id, gift.term.unit, gift.part.end].append(gift)
    return heirs


def stocks(left: Mapping[Grant, Decimal], ahead: Coming, unit: str) -> list[Stock]:
    """What may still be spent of a unit, in burn order. `left`: by grant, what remains of it."""
    all_of_it = {**left, **{grant: grant.amount for grant in ahead.grants}}
    found = []
    for grant in burn_order(all_of_it):
        if grant.unit == unit:
            heir, most = ahead.heirs.get(grant.id, (None, ZERO))
            until = grant.usable_until
            found.append(Stock(grant.id, all_of_it[grant], grant.effective_at, until, grant.meters, heir, most))
    return found


type _Ahead = tuple[Sequence[CreditTerm], Interval, str, int]  # what is given in an interval; its zone and anchor day


def _versions(lasting: Iterable[BillingPeriod]) -> Mapping[int, PlanVersion]:
    """Those that the subscriptions are on and will be on."""
    known = {part.version_id: part.version for period in lasting for part in segments_of(period)}
    subscriptions = [period.subscription for period in lasting]
    wanted = {pk for one in subscriptions for pk in (one.version_id, one.next_version_id) if pk is not None}
    missing = wanted - known.keys()
    return known | (PlanVersion.objects.in_bulk(missing) if missing else {})


def _ahead_of(period: BillingPeriod, versions: Mapping[int, PlanVersion]) -> Iterator[_Ahead]:
    """The open period, of which months may be to come, and the ones after it."""
    subscription = period.subscription
    version = versions[subscription.next_version_id or subscription.version_id]
    day, zone = subscription.anchor_day, period.timezone
    yield credit_terms(versions[subscription.version_id]), Interval(period.starts_at, period.ends_at), zone, day
    anchor = Anchor(
        interval=cast(PeriodUnit, version.interval),
        count=version.interval_count,
        starts_on=local_date(period.whole_starts_at, zone),
        day=day,
        month=subscription.anchor_month,
    )
    end = period.ends_at
    for _ in range(_AHEAD):
        interval = next_period(anchor, zone, end)
        end = interval.end
        yield credit_terms(version), interval, zone, day


def _parts_of(term: CreditTerm, interval: Interval, zone: str, day: int) -> Iterator[Interval]:
    if term.every == CreditEvery.MONTH:
        yield from months(interval, day, zone)
    else:
        yield interval


# --- what was paid when ---------------------------------------------------------------------------------------------


type _Parts = Mapping[tuple[LineKey, datetime], Sequence[tuple[int | None, Decimal]]]


@exact()
def paid_series(customer: Customer, edges: Sequence[datetime]) -> list[Mapping[int, Decimal]]:
    """What each grant paid for the usage of each [edges[i], edges[i + 1]). Adds up to the cells of whole segments.

    Inside a segment the grants of a line pay one after the other, in burn order.
    """
    found = periods_between(customer, edges[0], edges[-1])
    paid: list[dict[int, Decimal]] = [defaultdict(Decimal) for _ in edges[1:]]
    parts, starts = _parts(customer, found)
    for period in found:
        for at, amounts in _paid(period, parts, sorted(starts[period.pk]), edges):
            index = bisect_right(edges, at) - 1
            if 0 <= index < len(paid):
                for grant, amount in amounts.items():
                    paid[index][grant] += amount
    return list(paid)


def _parts(customer: Customer, found: Sequence[BillingPeriod]) -> tuple[_Parts, Mapping[int, set[datetime]]]:
    """Who pays each line of each segment, in burn order; and where each period's segments begin."""
    parts: dict[tuple[LineKey, datetime], list[tuple[int | None, Decimal]]] = defaultdict(list)
    starts: dict[int, set[datetime]] = {period.pk: {period.starts_at} for period in found}
    for (line, starts_at, grant), amount in book(customer, found).cells.items():
        parts[line, starts_at].append((grant, amount))
        starts[line.id[-1]].add(starts_at)
    return parts, starts


def _paid(
    period: BillingPeriod, parts: _Parts, starts: Sequence[datetime], edges: Sequence[datetime]
) -> Iterator[tuple[datetime, Mapping[int, Decimal]]]:
    """Stretch by stretch what the grants paid of the period's lines."""
    within = [edge for edge in edges if period.starts_at < edge < period.ends_at]
    used: dict[tuple[LineKey, datetime], Decimal] = defaultdict(Decimal)
    for stretch in segments(period, sorted({*starts, *within, period.ends_at})):
        segment = starts[bisect_right(starts, stretch.starts_at) - 1]
        paid: dict[int, Decimal] = defaultdict(Decimal)
        for line, amount in stretch.amounts.items():
            before = used[line, segment]
            used[line, segment] = before + amount
            for grant, part in _moved(parts.get((line, segment), ()), before, before + amount):
                paid[grant] += part
        yield stretch.starts_at, paid


def _moved(
    parts: Iterable[tuple[int | None, Decimal]], before: Decimal, after: Decimal
) -> Iterator[tuple[int, Decimal]]:
    """What each grant's part grew by while the line went from one amount to another."""
    passed = ZERO
    for grant, part in parts:
        moved = _inside(after - passed, part) - _inside(before - passed, part)
        passed += part
        if grant is not None and moved:
            yield grant, moved


def _inside(amount: Decimal, part: Decimal) -> Decimal:
    return min(max(amount, min(part, ZERO)), max(part, ZERO))
