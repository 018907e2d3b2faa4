"""What coupons take off a billing period, as a pure function. No database, no clock."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Final

from billing.money import CONTEXT, ZERO, exponent, mul_div, round_to_unit, total

_HUNDRED: Final = Decimal(100)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a coupon gives: `percent` of what is left to pay, or an `amount` of the currency, never more than that."""

    key: str
    name: str
    percent: Decimal | None = None
    amount: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Discount[K: Hashable]:
    """What one coupon takes off: `shares` say of what, and add up to `amount`, which is positive."""

    offer: Offer
    amount: Decimal
    shares: Mapping[K, Decimal]


def discounts[K: Hashable](offers: Iterable[Offer], amounts: Mapping[K, Decimal], unit: str) -> list[Discount[K]]:
    """What the coupons take off amounts that are rounded to the currency `unit`; amounts below zero are left alone.

    Percentages come before amounts, each in the order given, and each finds what the ones before it left. A discount
    is rounded once, half up, and shared by amount in whole minor units; of what is over each largest remainder gets
    one. Those that take nothing off are left out.
    """
    left = {key: amount for key, amount in amounts.items() if amount > 0}
    found: list[Discount[K]] = []
    for offer in sorted(offers, key=lambda offer: offer.percent is None):
        whole = total(left.values())
        amount = min(round_to_unit(_wanted(offer, whole), unit), whole)
        if amount > 0:
            shares = share(amount, left, unit)
            left = {key: CONTEXT.subtract(left[key], shares[key]) for key in left}
            found.append(Discount(offer, amount, {key: part for key, part in shares.items() if part}))
    return found


def _wanted(offer: Offer, whole: Decimal) -> Decimal:
    if offer.percent is not None:
        return mul_div(whole, offer.percent, _HUNDRED)
    return offer.amount or ZERO


def share[K: Hashable](amount: Decimal, weights: Mapping[K, Decimal], unit: str) -> dict[K, Decimal]:
    """Share an amount in whole minor units by weights, which are not negative and not all zero."""
    step = Decimal(1).scaleb(-exponent(unit))
    whole = total(weights.values())
    exact = {key: mul_div(amount, weight, whole) for key, weight in weights.items()}
    shares = {key: part.quantize(step, rounding=ROUND_DOWN, context=CONTEXT) for key, part in exact.items()}
    over = int(CONTEXT.divide(CONTEXT.subtract(amount, total(shares.values())), step))
    by_remainder = sorted(exact, key=lambda key: CONTEXT.subtract(shares[key], exact[key]))
    for key in by_remainder[:over]:
        shares[key] = CONTEXT.add(shares[key], step)
    return shares
