"""Questions about the catalog."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.db.models import QuerySet, prefetch_related_objects

from billing.metering.models import Meter
from billing.pricing.models import MatchRow, Plan, PlanVersion, Price, VersionStatus
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

_SAID = ("credits", "overage", "prices__meter", "prices__match")


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """A price with its meter, and as schemes calculate it."""

    price: Price
    meter: Meter
    terms: Terms


def plans() -> QuerySet[Plan]:
    """Every plan, by key."""
    return Plan.objects.order_by("key")


def versions(plan: Plan) -> QuerySet[PlanVersion]:
    """The plan's versions, newest first, with everything that they say."""
    return plan.versions.select_related("plan").prefetch_related(*_SAID).order_by("-number")


def latest_published(plan: Plan, at: datetime) -> PlanVersion | None:
    """The version that a new subscription takes: the one published last, and not after `at`."""
    published = plan.versions.filter(status=VersionStatus.PUBLISHED, published_at__lte=at)
    return published.select_related("plan").order_by("-published_at", "-number").first()


def terms(version: PlanVersion) -> tuple[PriceTerms, ...]:
    """The prices of a version, in the order they were written. Two queries."""
    return terms_by_version([version.pk])[version.pk]


def terms_by_version(version_ids: Collection[int]) -> dict[int, tuple[PriceTerms, ...]]:
    """The prices of some versions, by version id. Two queries, however many."""
    prices = Price.objects.filter(version_id__in=version_ids).select_related("meter").prefetch_related("match")
    found: dict[int, list[PriceTerms]] = {version_id: [] for version_id in version_ids}
    for price in prices.order_by("id"):
        found[price.version_id].append(PriceTerms(price, price.meter, price_terms(price)))
    return {version_id: tuple(items) for version_id, items in found.items()}


def price_terms(price: Price) -> Terms:
    """The price as schemes calculate it. Reads its meter and match rows."""
    return terms_of(_price_spec(price))


def spec_of(version: PlanVersion) -> VersionSpec:
    """What the version says, as plain values: the inverse of writing it."""
    prefetch_related_objects([version], *_SAID)
    return VersionSpec(
        interval=version.interval,
        interval_count=version.interval_count,
        base_fee=version.base_fee,
        base_fee_timing=version.base_fee_timing,
        postpaid=version.postpaid,
        credits=tuple(CreditSpec(term.unit, term.amount, term.priority) for term in version.credits.all()),
        prices=tuple(_price_spec(price) for price in version.prices.all()),
        overage=tuple(OverageSpec(term.unit, term.unit_amount) for term in version.overage.all()),
    )


def _price_spec(price: Price) -> PriceSpec:
    return PriceSpec(
        key=price.key,
        meter=price.meter.key,
        unit=price.unit,
        scheme=cast(Scheme, price.scheme),
        per=price.per,
        match=tuple(MatchSpec(where=row.where, **_amounts(row)) for row in price.match.all()),
        **_amounts(price),
    )


def _amounts(row: Price | MatchRow) -> dict[str, Any]:
    amounts = {name: getattr(row, name) for name in ROW_AMOUNTS}
    return {**amounts, "tiers": tuple(map(tier_from_stored, row.tiers))}
