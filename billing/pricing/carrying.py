"""What was agreed with a customer goes on when its subscription moves to another plan version.

Amounts are carried over to the price of the same meter and to the row with the same condition, if that is priced in the
same unit, by the same scheme and for the same quantity: else they would say something else there.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q, QuerySet

from billing.pricing.models import MatchRow, PlanVersion, Price, PriceOverride, Scheme
from billing.pricing.queries import price_spec
from billing.pricing.schemes import figure, normalise_where
from billing.pricing.spec import ROW_AMOUNTS, PriceSpec
from billing.pricing.where import format_where


@dataclass(frozen=True, slots=True)
class Carried:
    """Agreed amounts under another version: the number of the row where they hold, or the reason why they fall away."""

    override: PriceOverride
    price: PriceSpec | None
    row: int
    reason: str = ""


def carried(overrides: Iterable[PriceOverride], prices: Collection[PriceSpec]) -> Iterator[Carried]:
    """What becomes of each under a version with these prices. Reads each override's price with its meter, and row."""
    by_meter = {price.meter: price for price in prices}
    for override in overrides:
        there = by_meter.get(override.price.meter.key)
        reason = _obstacle(override.price, there)
        if there is None or reason:
            yield Carried(override, None, 0, reason)
        elif override.row is None:
            yield Carried(override, there, 0)
        else:
            yield _to_match_row(override, override.row, there)


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


def carry_over(
    *, customer_id: int, before: PlanVersion, after: PlanVersion, starts_at: datetime, at: datetime
) -> list[PriceOverride]:
    """Let what was agreed under a version hold under another one from `starts_at` on, unless other amounts are agreed
    for the row there. Needs the claim."""
    if before.pk == after.pk:
        return []
    overrides = list(agreed([customer_id], [before.pk], starts_at))
    if not overrides:
        return []
    theirs = {one.key: one for one in after.prices.select_related("meter").prefetch_related("match")}
    made = []
    for one in carried(overrides, [price_spec(price) for price in theirs.values()]):
        if one.price is not None:
            price = theirs[one.price.key]
            row = [None, *price.match.all()][one.row]
            begins = max(starts_at, one.override.starts_at)
            if not overlapping(customer_id, price, row, begins, one.override.ends_at).exists():
                made.append(_copy(one.override, price, row, begins, at))
    return made


def call_off(*, customer_id: int, versions: Collection[int], since: datetime) -> None:
    """What was carried over to these versions from `since` on never holds: the change was taken back."""
    copies = PriceOverride.objects.filter(customer=customer_id, price__version__in=versions, created_at__gte=since)
    copies.exclude(carried_from=None).update(ends_at=F("starts_at"))


def overlapping(
    customer_id: int, price: Price, row: MatchRow | None, begins: datetime, ends: datetime | None
) -> QuerySet[PriceOverride]:
    """What is agreed with the customer for the row at some time in [begins, ends)."""
    same = PriceOverride.objects.filter(customer=customer_id, price=price, row=row).exclude(ends_at=F("starts_at"))
    lasting = same.filter(Q(ends_at=None) | Q(ends_at__gt=begins))
    return lasting if ends is None else lasting.filter(starts_at__lt=ends)


def _copy(
    override: PriceOverride, price: Price, row: MatchRow | None, starts_at: datetime, at: datetime
) -> PriceOverride:
    return PriceOverride.objects.create(
        customer_id=override.customer_id,
        price=price,
        row=row,
        starts_at=starts_at,
        ends_at=override.ends_at,
        reason=override.reason,
        created_by_id=override.created_by_id,
        created_at=at,
        carried_from_id=override.carried_from_id or override.pk,
        tiers=override.tiers,
        **{name: getattr(override, name) for name in ROW_AMOUNTS},
    )
