"""Questions about the catalog."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, cast

from django.db.models import F, QuerySet, prefetch_related_objects

from billing.metering.models import Meter
from billing.periods import Interval
from billing.pricing.models import (
    CreditTerm,
    OverageTerm,
    Plan,
    PlanVersion,
    Price,
    PriceOverride,
    RowAmounts,
    VersionStatus,
)
from billing.pricing.schemes import Scheme, Terms
from billing.pricing.spec import (
    ROW_AMOUNTS,
    CreditSpec,
    MatchSpec,
    OverageSpec,
    PriceSpec,
    VersionSpec,
    terms_of,
    tier_from_stored,
)
from billing.reads import once, recall, remember

_SAID = ("credits", "overage", "prices__meter", "prices__match")


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """A price with its meter, and as schemes calculate it; `changes` are the terms that hold from an instant on."""

    price: Price
    meter: Meter
    terms: Terms
    changes: tuple[tuple[datetime, Terms], ...] = ()


def plans() -> QuerySet[Plan]:
    """Every plan, by key."""
    return Plan.objects.order_by("key")


def versions(plan: Plan) -> QuerySet[PlanVersion]:
    """The plan's versions, newest first, with everything that they say."""
    return plan.versions.select_related("plan").prefetch_related(*_SAID).order_by("-number")


def version_before(version: PlanVersion) -> PlanVersion | None:
    """The plan's version with the next lower number."""
    earlier = PlanVersion.objects.filter(plan=version.plan_id, number__lt=version.number)
    return earlier.select_related("plan").order_by("-number").first()


def listed(currency: str, at: datetime) -> list[PlanVersion]:
    """The version that a new subscription takes of each listed plan in the currency, by key. One query."""
    published = PlanVersion.objects.filter(status=VersionStatus.PUBLISHED, published_at__lte=at)
    offered = published.filter(plan__is_listed=True, plan__is_add_on=False, plan__currency=currency)
    latest = offered.select_related("plan").order_by("plan__key", "-published_at", "-number")
    return list(latest.distinct("plan__key"))


def latest_published(plan: Plan, at: datetime, *, without: PlanVersion | None = None) -> PlanVersion | None:
    """The version that a new subscription takes: the one published last, not after `at`, and not retired."""
    published = plan.versions.filter(status=VersionStatus.PUBLISHED, published_at__lte=at)
    if without is not None:
        published = published.exclude(pk=without.pk)
    return published.select_related("plan").order_by("-published_at", "-number").first()


def terms(version: PlanVersion) -> tuple[PriceTerms, ...]:
    """The prices of a version, in the order they were written. One query for a published version, three for a draft."""
    return terms_by_version([version])[version.pk]


def terms_by_version(versions: Iterable[PlanVersion]) -> dict[int, tuple[PriceTerms, ...]]:
    """The prices of some versions, by version id. One query when all are published, however many."""
    said = {version.pk: _said(version).prices for version in versions}
    meters = once(("meters",), Meter.objects.in_bulk) if any(said.values()) else {}
    return {
        pk: tuple(PriceTerms(price, meters[price.meter_id], terms) for price, terms in found)
        for pk, found in said.items()
    }


def terms_said(spec: VersionSpec) -> tuple[PriceTerms, ...]:
    """The prices of a version that need not be stored, as far as their meters exist. One query."""
    keys = [price.meter for price in spec.prices]
    meters = {meter.key: meter for meter in Meter.objects.filter(key__in=keys)}
    return tuple(
        PriceTerms(Price(key=price.key, unit=price.unit), meters[price.meter], terms_of(price))
        for price in spec.prices
        if price.meter in meters
    )


def overage_rates(version: PlanVersion) -> Mapping[str, Decimal]:
    """By unit: what one of it costs beyond the grants, in the plan's currency; units that are not in it cost nothing
    and are denied."""
    return _said(version).overage


def credit_terms(version: PlanVersion) -> Sequence[CreditTerm]:
    """The credits that a published version gives each period or month. From this process's memory, as prices are."""
    assert version.published_at is not None, "nobody is on a draft"
    return _published_credits(version.pk, version.published_at)


@lru_cache(maxsize=1_000)
def _published_credits(version_id: int, _published_at: datetime) -> tuple[CreditTerm, ...]:
    return tuple(CreditTerm.objects.filter(version=version_id))


# --- for one customer -----------------------------------------------------------------------------------------


def overrides(customer_id: int) -> Mapping[int, Sequence[PriceOverride]]:
    """By price: the amounts that were agreed with the customer, in time order. One query, or none where reads are
    shared and it was asked before."""
    return once(("overrides", customer_id), lambda: _overrides([customer_id]).get(customer_id, {}))


def read_overrides_ahead(customer_ids: Collection[int]) -> None:
    """Inside `reads.shared`: read what `overrides` is going to be asked, in one query; none for what is known."""
    asked = [customer_id for customer_id in customer_ids if recall(("overrides", customer_id)) is None]
    found = _overrides(asked) if asked else {}
    remember((("overrides", customer_id), found.get(customer_id, {})) for customer_id in asked)


def _overrides(customer_ids: Collection[int]) -> dict[int, dict[int, list[PriceOverride]]]:
    found: dict[int, dict[int, list[PriceOverride]]] = {}
    agreed = PriceOverride.objects.filter(customer__in=customer_ids).exclude(ends_at=F("starts_at"))
    for one in agreed.select_related("price__meter", "row").order_by("starts_at", "id"):
        found.setdefault(one.customer_id, {}).setdefault(one.price_id, []).append(one)
    return found


def placed(price: Price, agreed: Sequence[PriceOverride]) -> list[tuple[int, PriceOverride]]:
    """The agreed amounts of a price with the numbers of their rows. Reads its match rows where there are any."""
    if not agreed:
        return []
    numbers = {row_id: number for number, row_id in enumerate([None, *(row.pk for row in price.match.all())])}
    return [(numbers[one.row_id], one) for one in agreed]


def phases(
    terms: Terms, agreed: Sequence[tuple[int, PriceOverride]], interval: Interval
) -> list[tuple[datetime, Terms]]:
    """The terms in the interval, with what was agreed with one customer for their rows: from when on which hold."""
    bounds = {bound for _, one in agreed for bound in (one.starts_at, one.ends_at) if bound is not None}
    starts = [interval.start, *sorted(bound for bound in bounds if interval.start < bound < interval.end)]
    return [(start, _agreed_terms(terms, agreed, start)) for start in starts]


def _agreed_terms(terms: Terms, agreed: Iterable[tuple[int, PriceOverride]], at: datetime) -> Terms:
    holding = {row: one for row, one in agreed if one.starts_at <= at and (one.ends_at is None or at < one.ends_at)}
    if not holding:
        return terms
    rows = [
        replace(row, **_amounts(holding[number])) if number in holding else row for number, row in enumerate(terms.rows)
    ]
    return Terms(terms.key, terms.unit, rows[0], tuple(rows[1:]))


@dataclass(frozen=True, slots=True)
class _Said:
    """What a version says of prices. `prices` must not lead to what can change: their meters are read each time."""

    prices: tuple[tuple[Price, Terms], ...]
    overage: Mapping[str, Decimal]


def _said(version: PlanVersion) -> _Said:
    """From this process's memory for a version that is published, for it never changes again."""
    if version.published_at is None:
        return _read(version.pk)
    return _published(version.pk, version.published_at)


@lru_cache(maxsize=1_000)
def _published(version_id: int, _published_at: datetime) -> _Said:
    """By the instant too: a publication that was rolled back is another."""
    return _read(version_id)


def forget_published() -> None:
    """For tests and measurements, where one database follows another."""
    _published.cache_clear()
    _published_spec.cache_clear()
    _published_credits.cache_clear()


def _read(version_id: int) -> _Said:
    found = Price.objects.filter(version=version_id).select_related("meter").prefetch_related("match").order_by("id")
    priced = [(price, price_terms(price)) for price in found]
    rates = OverageTerm.objects.filter(version=version_id).values_list("unit", "unit_amount")
    return _Said(tuple(priced), dict(rates))


def price_terms(price: Price) -> Terms:
    """The price as schemes calculate it. Reads its meter and match rows."""
    return terms_of(price_spec(price))


def spec_of(version: PlanVersion) -> VersionSpec:
    """What the version says, as plain values: the inverse of writing it. From this process's memory for one that is
    published, as prices are."""
    if version.published_at is None or "prices" in getattr(version, "_prefetched_objects_cache", ()):
        return _read_spec(version)
    return _published_spec(version, version.published_at)


@lru_cache(maxsize=1_000)
def _published_spec(version: PlanVersion, _published_at: datetime) -> VersionSpec:
    return _read_spec(version)


def _read_spec(version: PlanVersion) -> VersionSpec:
    prefetch_related_objects([version], *_SAID)
    return VersionSpec(
        interval=version.interval,
        interval_count=version.interval_count,
        base_fee=version.base_fee,
        base_fee_timing=version.base_fee_timing,
        trial_days=version.trial_days,
        minimum_spend=version.minimum_spend,
        postpaid=version.postpaid,
        credits=tuple(map(credit_spec, version.credits.all())),
        prices=tuple(price_spec(price) for price in version.prices.all()),
        overage=tuple(map(overage_spec, version.overage.all())),
    )


def credit_spec(term: CreditTerm) -> CreditSpec:
    """The credits of a version as plain values."""
    return CreditSpec(term.unit, term.amount, term.priority, term.every, term.rollover_max)


def overage_spec(term: OverageTerm) -> OverageSpec:
    """What a credit costs beyond the grants, as plain values."""
    return OverageSpec(term.unit, term.unit_amount)


def price_spec(price: Price) -> PriceSpec:
    """The price as plain values. Reads its meter and match rows."""
    return PriceSpec(
        key=price.key,
        meter=price.meter.key,
        unit=price.unit,
        scheme=cast(Scheme, price.scheme),
        per=price.per,
        match=tuple(MatchSpec(where=row.where, **_amounts(row)) for row in price.match.all()),
        **_amounts(price),
    )


def _amounts(row: RowAmounts) -> dict[str, Any]:
    amounts = {name: getattr(row, name) for name in ROW_AMOUNTS}
    return {**amounts, "tiers": tuple(map(tier_from_stored, row.tiers))}
