"""What was agreed with a customer goes on when its subscription moves to another plan version.

Amounts are carried over to the price of the same meter and to the row with the same condition, if that is priced in the
same unit, by the same scheme and for the same quantity: else they would say something else there. While other amounts
are agreed for that row, those hold.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.db.models import F, Q, QuerySet

from billing.pricing.models import MatchRow, PlanVersion, Price, PriceOverride, Scheme
from billing.pricing.queries import price_spec
from billing.pricing.schemes import figure, normalise_where
from billing.pricing.spec import ROW_AMOUNTS, PriceSpec
from billing.pricing.where import format_where

type Stretch = tuple[datetime, datetime | None]


@dataclass(frozen=True, slots=True)
class Carried:
    """Agreed amounts under another version: the number of the row where they hold, or the reason why they fall away.

    `stretches`: when they hold there; `is_cut` where that is less than it was, because other amounts are agreed."""

    override: PriceOverride
    price: PriceSpec | None
    row: int
    reason: str = ""
    stretches: Sequence[Stretch] = ()
    is_cut: bool = False

    def copies(self) -> list[PriceOverride]:
        """The amounts in each stretch; the price and row of the other version are not said, and nothing is written."""
        return [_copy(self.override, *stretch) for stretch in self.stretches]


def carried(
    overrides: Iterable[PriceOverride],
    prices: Iterable[PriceSpec],
    own: Iterable[PriceOverride] = (),
    since: datetime | None = None,
) -> Iterator[Carried]:
    """What becomes of each, from `since` on, under a version with these prices; `own` is what was agreed for that
    version itself, in time order. Reads each override's price with its meter, and row."""
    by_meter = {price.meter: price for price in prices}
    taken: dict[tuple[int, str, int], list[PriceOverride]] = defaultdict(list)
    for other in own:
        if (there := _counterpart(other, by_meter)).price is not None:
            taken[other.customer_id, there.price.key, there.row].append(other)
    for override in overrides:
        found = _counterpart(override, by_meter)
        if found.price is None:
            yield found
        else:
            yield _beside(found, taken[override.customer_id, found.price.key, found.row], since)


def _beside(found: Carried, taken: Iterable[PriceOverride], since: datetime | None) -> Carried:
    one = found.override
    whole = (one.starts_at if since is None else max(since, one.starts_at), one.ends_at)
    stretches = list(_free(*whole, taken))
    if not stretches:
        return Carried(one, None, 0, "other amounts are agreed there")
    return replace(found, stretches=stretches, is_cut=stretches != [whole])


def _free(start: datetime, end: datetime | None, taken: Iterable[PriceOverride]) -> Iterator[Stretch]:
    """What is left of [start, end) beside what is taken, which is in time order."""
    for other in taken:
        if other.ends_at is not None and other.ends_at <= start:
            continue
        if end is not None and end <= other.starts_at:
            break
        if start < other.starts_at:
            yield start, other.starts_at
        if other.ends_at is None:
            return
        start = other.ends_at
    if end is None or start < end:
        yield start, end


def _counterpart(override: PriceOverride, by_meter: Mapping[str, PriceSpec]) -> Carried:
    """The row that says the same there."""
    there = by_meter.get(override.price.meter.key)
    reason = _obstacle(override.price, there)
    if there is None or reason:
        return Carried(override, None, 0, reason)
    if override.row is None:
        return Carried(override, there, 0)
    return _to_match_row(override, override.row, there)


def _obstacle(price: Price, there: PriceSpec | None) -> str:
    if there is None:
        return f"{price.meter.key} has no price there"
    if there.unit != price.unit:
        return f"{price.meter.key} is priced in {there.unit} there, not in {price.unit}"
    if there.scheme != price.scheme:
        by, not_by = (Scheme(scheme).label.lower() for scheme in (there.scheme, price.scheme))
        return f"{price.meter.key} is priced by another scheme there: {by}, not {not_by}"
    if there.per != price.per:
        return f"{price.meter.key} is priced per {figure(there.per)} there, not per {figure(price.per)}"
    return ""


def _to_match_row(override: PriceOverride, row: MatchRow, there: PriceSpec) -> Carried:
    wanted = normalise_where(row.where)
    for number, other in enumerate(there.match, 1):
        if normalise_where(other.where) == wanted:
            return Carried(override, there, number)
    return Carried(override, None, 0, f"{there.meter} has no row for {format_where(row.where)} there")


def agreed(customer_ids: Collection[int], version_ids: Collection[int], since: datetime) -> QuerySet[PriceOverride]:
    """Amounts that hold from `since` on, or will, under these versions. One query."""
    lasting = PriceOverride.objects.filter(Q(ends_at=None) | Q(ends_at__gt=since)).exclude(ends_at=F("starts_at"))
    found = lasting.filter(customer__in=customer_ids, price__version__in=version_ids)
    return found.select_related("price__meter", "row").order_by("starts_at", "id")


def carry_over(*, customer_id: int, before: PlanVersion, after: PlanVersion, starts_at: datetime, at: datetime) -> None:
    """Let what was agreed under a version hold under another one from `starts_at` on, but not while other amounts are
    agreed for the row there. Needs the claim."""
    found = list(agreed([customer_id], [before.pk, after.pk], starts_at))
    own = [one for one in found if one.price.version_id == after.pk]
    if len(own) == len(found):
        return
    theirs = {one.key: one for one in after.prices.select_related("meter").prefetch_related("match")}
    made = []
    others = (one for one in found if one.price.version_id != after.pk)
    for one in carried(others, map(price_spec, theirs.values()), own, starts_at):
        if one.price is not None:
            price = theirs[one.price.key]
            row = [None, *price.match.all()][one.row]
            for copy in one.copies():
                copy.price, copy.row, copy.created_at = price, row, at
                made.append(copy)
    PriceOverride.objects.bulk_create(made)


def call_off(*, customer_id: int, versions: Collection[int], since: datetime) -> None:
    """What was carried over to these versions from `since` on never holds: the change was taken back."""
    copies = PriceOverride.objects.filter(customer=customer_id, price__version__in=versions, created_at__gte=since)
    copies.exclude(carried_from=None).update(ends_at=F("starts_at"))


def _copy(override: PriceOverride, starts_at: datetime, ends_at: datetime | None) -> PriceOverride:
    return PriceOverride(
        customer_id=override.customer_id,
        starts_at=starts_at,
        ends_at=ends_at,
        reason=override.reason,
        created_by_id=override.created_by_id,
        carried_from_id=override.carried_from_id or override.pk,
        tiers=override.tiers,
        **{name: getattr(override, name) for name in ROW_AMOUNTS},
    )
