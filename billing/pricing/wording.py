"""What a row of a price costs, in words: the price book's sentences."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Final

from billing.money import price
from billing.pricing.schemes import Row, Tier, figure


def row_in_words(row: Row, unit: str, things: str = "") -> str:
    """For instance "$5.00 per 1,000,000 tokens, the first 1,000 included, at least $1.00, at most $100.00".

    `things`: what is counted, in the plural, where that is to be said.
    """
    parts = [_SCHEMES[row.scheme](row, unit, things)]
    if row.included:
        parts.append(f"the first {figure(row.included)} included")
    if row.minimum_amount is not None:
        parts.append(f"at least {price(row.minimum_amount, unit)}")
    if row.maximum_amount is not None:
        parts.append(f"at most {price(row.maximum_amount, unit)}")
    return ", ".join(parts)


def _each(amount: Decimal, row: Row, unit: str, things: str) -> str:
    return f"{price(amount, unit)} {f'per {_many(row.per, things)}' if row.per != 1 else 'each'}"


def _many(number: Decimal, things: str) -> str:
    return f"{figure(number)} {things}" if things and number != 1 else figure(number)


def _per_unit(row: Row, unit: str, things: str) -> str:
    return _each(row.unit_amount, row, unit, things)


def _graduated(row: Row, unit: str, things: str) -> str:
    return _tiers(row, unit, things, "then")


def _volume(row: Row, unit: str, things: str) -> str:
    return "all of it: " + _tiers(row, unit, things, "if more")


def _tiers(row: Row, unit: str, things: str, last: str) -> str:
    if len(row.tiers) == 1:
        return _tier(row.tiers[0], row, unit, things)
    lows = [Decimal(0), *(tier.up_to for tier in row.tiers if tier.up_to is not None)]
    spans = [f"{figure(low)} to {figure(high)}" for low, high in pairwise(lows)]
    return "; ".join(
        f"{span}: {_tier(tier, row, unit, things)}" for span, tier in zip([*spans, last], row.tiers, strict=True)
    )


def _tier(tier: Tier, row: Row, unit: str, things: str) -> str:
    flat = f" + {price(tier.flat_amount, unit)}" if tier.flat_amount else ""
    return _each(tier.unit_amount, row, unit, things) + flat


def _package(row: Row, unit: str, things: str) -> str:
    return f"{price(row.package_amount, unit)} per started {_many(row.package_size * row.per, things)}"


def _percentage(row: Row, unit: str, _things: str) -> str:
    fixed = f" + {price(row.fixed_amount, unit)} per event" if row.fixed_amount else ""
    return f"{figure(row.rate)} %{fixed}"


_SCHEMES: Final[Mapping[str, Callable[[Row, str, str], str]]] = {
    "per_unit": _per_unit,
    "graduated": _graduated,
    "volume": _volume,
    "package": _package,
    "percentage": _percentage,
}
