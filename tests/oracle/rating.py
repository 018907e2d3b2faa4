"""Rates raw events by brute force, in fractions: no counters, no cumulative sums, no shared code.

Rounding happens where the definition says so and nowhere else: the amount of a row, half up to 12 places.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from math import floor

PICO = 10**12


@dataclass(frozen=True)
class Event:
    """A call at an instant: how much of which meter, and the properties that choose its price."""

    at: datetime
    meter: str
    quantity: Decimal
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PerUnit:
    """A per-unit price as it is sent. Each match is (where, unit_amount)."""

    key: str
    meter: str
    unit: str
    unit_amount: Decimal
    per: Decimal = Decimal(1)
    included: Decimal = Decimal(0)
    match: Sequence[tuple[Mapping[str, object], Decimal]] = ()


def row_of(price: PerUnit, event: Event) -> int:
    """0 for the default row, else the number of the match row that names most of the event's properties."""
    candidates = [(len(where), -number) for number, (where, _) in enumerate(price.match, 1) if holds(where, event)]
    return -max(candidates)[1] if candidates else 0


def holds(where: Mapping[str, object], event: Event) -> bool:
    for name, wanted in where.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if event.properties.get(name) not in allowed:
            return False
    return True


def amount(price: PerUnit, row: int, quantity: Fraction) -> Decimal:
    """What a quantity of one row costs, half up to 12 places."""
    unit_amount, included = (price.unit_amount, price.included) if row == 0 else (price.match[row - 1][1], Decimal(0))
    billable = max(quantity - Fraction(included), Fraction(0))
    return Decimal(floor(billable * Fraction(unit_amount) / Fraction(price.per) * PICO + Fraction(1, 2))).scaleb(-12)


def lines(price: PerUnit, events: Iterable[Event], start: datetime, end: datetime) -> dict[int, Decimal]:
    """The amount of every row that was used in [start, end), which begins with the billing period."""
    used: dict[int, Fraction] = defaultdict(Fraction)
    for event in events:
        if event.meter == price.meter and start <= event.at < end:
            used[row_of(price, event)] += Fraction(event.quantity)
    return {row: amount(price, row, quantity) for row, quantity in used.items()}


def spend(
    prices: Iterable[PerUnit],
    events: Sequence[Event],
    *,
    unit: str,
    period_start: datetime,
    start: datetime,
    end: datetime,
) -> Decimal:
    """What [start, end) of one billing period cost: spent through its end less spent through its start."""

    def through(instant: datetime) -> Fraction:
        return sum(
            (
                Fraction(line)
                for price in prices
                if price.unit == unit
                for line in lines(price, events, period_start, instant).values()
            ),
            Fraction(0),
        )

    return Decimal(int((through(end) - through(start)) * PICO)).scaleb(-12)
