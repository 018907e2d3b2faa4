"""List prices of models as unit costs. They come from the package `genai-prices`, which need not be installed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Literal

from django.db import transaction

from billing.metering.models import Meter
from billing.money import CONTEXT, quantise
from billing.periods import quarter_floor
from billing.pricing.costs import cost_in_force, record_cost
from billing.pricing.models import UnitCost

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

CURRENCY: Final = "USD"
INSTALL: Final = "List prices come from a package that is not installed: pip install genai-prices."


class NotInstalledError(Exception):
    """The package is not there; its text says how to get it."""


class UnknownNameError(Exception):
    """There is no such provider or unit; its text names those that there are."""


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What `per` of a unit costs in USD. `note`: what a unit cost cannot say of it."""

    model: str
    amount: Decimal
    per: Decimal
    note: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A unit cost to record: of a meter, for one value of a dimension. `before` holds by then; without `price` the
    provider has none for this."""

    meter: Meter
    where: Mapping[str, str]
    before: UnitCost | None
    price: ListPrice | None
    source: str

    @property
    def kind(self) -> Literal["new", "changed", "same", "unknown"]:
        if self.price is None:
            return "unknown"
        if self.before is None:
            return "new"
        return "same" if _is_same(self.before, self.price) else "changed"


def _is_same(cost: UnitCost, price: ListPrice) -> bool:
    equal = CONTEXT.multiply(cost.unit_amount, price.per) == CONTEXT.multiply(price.amount, cost.per)
    return equal and cost.currency == CURRENCY


class PriceList:
    """Of one provider, at an instant. Raises NotInstalledError, UnknownNameError."""

    def __init__(self, provider: str, at: datetime) -> None:
        found = {one.id: one for one in _providers()}
        if provider not in found:
            raise UnknownNameError(f"There is no provider {provider}. Known are: {', '.join(sorted(found))}.")
        self.at, self._all, self._provider = at, list(found.values()), found[provider]
        self.source = f"genai-prices {metadata.version('genai-prices')}, {provider}"

    def price(self, model: str, unit: str) -> ListPrice | None:
        """What a unit such as `input_tokens` costs with this model; None where the list does not say."""
        said = _units()[unit]
        found = self._provider.find_model(model, all_providers=self._all)
        amount = getattr(found.get_prices(self.at), said["price_key"], None) if found else None
        if found is None or amount is None:
            return None
        return _list_price(found, amount, Decimal(said["per"]))


def _list_price(model: "ModelInfo", amount: Any, per: Decimal) -> ListPrice:
    """Tiers are by the size of a request, which a counter does not know: the first one's amount is taken."""
    if isinstance(amount, Decimal):
        return ListPrice(model.id, quantise(amount), per)
    more = ", ".join(f"{tier.price:f} in requests beyond {tier.start:,} tokens" for tier in amount.tiers)
    return ListPrice(model.id, quantise(amount.base), per, note=more)


def units() -> list[str]:
    """What a list price may be of: `input_tokens`, `cache_read_tokens` ... Raises NotInstalledError."""
    return list(_units())


def providers() -> list[tuple[str, str]]:
    """Ids and names. Raises NotInstalledError."""
    return sorted((one.id, one.name) for one in _providers())


def propose(
    prices: PriceList, *, meters: Mapping[Meter, str], dimension: str, models: Mapping[str, str], effective_at: datetime
) -> list[Proposal]:
    """For each meter and the unit that it counts, and for each value of the dimension and the model that it stands for.

    `effective_at` is rounded down to a quarter hour. Raises UnknownNameError for a unit.
    """
    known = units()
    for unit in meters.values():
        if unit not in known:
            raise UnknownNameError(f"There is no unit {unit}. Known are: {', '.join(known)}.")
    return [
        Proposal(
            meter=meter,
            where={dimension: value},
            before=cost_in_force(meter, {dimension: value}, quarter_floor(effective_at)),
            price=prices.price(model, unit),
            source=prices.source,
        )
        for meter, unit in meters.items()
        for value, model in sorted(models.items())
    ]


@transaction.atomic
def record(proposals: Iterable[Proposal], *, effective_at: datetime, at: datetime) -> Sequence[UnitCost]:
    """Those that are new or changed, all or none. Raises ValidationError as `costs.record_cost`."""
    return [
        record_cost(
            meter=one.meter,
            where=one.where,
            unit_amount=one.price.amount,
            per=one.price.per,
            currency=CURRENCY,
            effective_at=effective_at,
            source=f"{one.source}: {one.price.model}"[:200],
            at=at,
        )
        for one in proposals
        if one.price is not None and one.kind in ("new", "changed")
    ]


def _providers() -> "list[Provider]":
    try:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 -- optional, and large
    except ImportError as error:
        raise NotInstalledError(INSTALL) from error
    return get_snapshot().providers


def _units() -> Mapping[str, Mapping[str, Any]]:
    try:
        from genai_prices.data_units import unit_data  # noqa: PLC0415 -- optional
    except ImportError as error:
        raise NotInstalledError(INSTALL) from error
    return unit_data
