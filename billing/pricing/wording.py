"""What a row of a price costs, in words: the price book's sentences."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Final

from billing.money import counted
from billing.pricing.schemes import Row, Tier, figure


def row_in_words(row: Row, unit: str) -> str:
    """For instance "5 USD per 1,000,000, the first 1,000 included, at least 1 USD, at most 100 USD"."""
    parts = [_SCHEMES[row.scheme](row, unit)]
    if row.included:
        parts.append(f"the first {figure(row.included)} included")
    if row.minimum_amount is not None:
        parts.append(f"at least {_money(row.minimum_amount, unit)}")
    if row.maximum_amount is not None:
        parts.append(f"at most {_money(row.maximum_amount, unit)}")
    return ", ".join(parts)


def _money(amount: Decimal, unit: str) -> str:
    return f"{figure(amount)} {counted(unit, amount)}"


def _each(amount: Decimal, row: Row, unit: str) -> str:
    return f"{_money(amount, unit)} per {figure(row.per)}" if row.per != 1 else f"{_money(amount, unit)} each"


def _per_unit(row: Row, unit: str) -> str:
    return _each(row.unit_amount, row, unit)


def _graduated(row: Row, unit: str) -> str:
    return _tiers(row, unit, "then")


def _volume(row: Row, unit: str) -> str:
    return "all of it: " + _tiers(row, unit, "if more")


def _tiers(row: Row, unit: str, last: str) -> str:
    if len(row.tiers) == 1:
        return _tier(row.tiers[0], row, unit)
    lows = [Decimal(0), *(tier.up_to for tier in row.tiers if tier.up_to is not None)]
    spans = [f"{figure(low)} to {figure(high)}" for low, high in pairwise(lows)]
    return "; ".join(f"{span}: {_tier(tier, row, unit)}" for span, tier in zip([*spans, last], row.tiers, strict=True))


def _tier(tier: Tier, row: Row, unit: str) -> str:
    flat = f" + {_money(tier.flat_amount, unit)}" if tier.flat_amount else ""
    return _each(tier.unit_amount, row, unit) + flat


def _package(row: Row, unit: str) -> str:
    return f"{_money(row.package_amount, unit)} per started {figure(row.package_size * row.per)}"


def _percentage(row: Row, unit: str) -> str:
    fixed = f" + {_money(row.fixed_amount, unit)} per event" if row.fixed_amount else ""
    return f"{figure(row.rate)} %{fixed}"


_SCHEMES: Final[Mapping[str, Callable[[Row, str], str]]] = {
    "per_unit": _per_unit,
    "graduated": _graduated,
    "volume": _volume,
    "package": _package,
    "percentage": _percentage,
}
