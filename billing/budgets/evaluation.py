"""Which thresholds a value crosses: a pure function of the value, the levels and what fired before."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from billing.money import CONTEXT, mul_div, quantise

type Direction = Literal["fired", "resolved"]

_HUNDRED: Final = Decimal(100)
# A value that jitters around a level would otherwise fire and resolve in turns.
_CALM: Final = Decimal("0.98")


@dataclass(frozen=True, slots=True)
class Watched:
    """A threshold in one period: its level in the budget's unit, and whether it has fired in this epoch."""

    id: int
    level: Decimal
    epoch: int = 0
    fired: bool = False


@dataclass(frozen=True, slots=True)
class Crossing:
    """An alert to write: unique per threshold, period, epoch and direction."""

    threshold: int
    level: Decimal
    epoch: int
    direction: Direction


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What to write. `fired` is ordered from the highest level down: a message names the first, lists the rest."""

    fired: tuple[Crossing, ...]
    resolved: tuple[Crossing, ...]


def level(limit: Decimal, *, percent: Decimal | None = None, amount: Decimal | None = None) -> Decimal:
    """What a threshold comes to: its amount, or its percent of the budget's limit."""
    if amount is not None:
        return amount
    if percent is None:
        raise ValueError("A threshold has a percent or an amount.")
    return quantise(mul_div(limit, percent, _HUNDRED))


def history(alerts: Iterable[tuple[int, Direction]]) -> tuple[int, bool]:
    """(epoch, fired) of a threshold in a period, from its alerts there as (epoch, direction), in any order.

    Each resolved alert ends an epoch; the next may fire again.
    """
    seen = set(alerts)
    epoch = sum(1 for _, direction in seen if direction == "resolved")
    return epoch, (epoch, "fired") in seen


def evaluate(value: Decimal, thresholds: Iterable[Watched]) -> Evaluation:
    """Compare a value with its thresholds.

    At or above its level a threshold fires, once per epoch. Below 98 % of it, after a raise of the budget or a
    correction, it resolves, and its next epoch may fire. In between nothing happens.
    """
    ordered = sorted(thresholds, key=lambda threshold: (-threshold.level, threshold.id))
    return Evaluation(
        fired=tuple(_crossing(one, "fired") for one in ordered if not one.fired and value >= one.level),
        resolved=tuple(
            _crossing(one, "resolved") for one in ordered if one.fired and value < CONTEXT.multiply(one.level, _CALM)
        ),
    )


def _crossing(threshold: Watched, direction: Direction) -> Crossing:
    return Crossing(threshold.id, threshold.level, threshold.epoch, direction)
