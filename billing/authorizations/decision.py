"""May this run? A pure function of what is left, what is held and what is asked for.

Deny when used + reserved + this > limit, of the credits first, then of the budgets by id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from billing.credits.allocation import Grant, allocate
from billing.money import ZERO, exact, quantise, total
from billing.periods import QUARTER, quarter_floor
from billing.rating.core import LineKey, Segment

type Amounts = Mapping[str, Decimal]  # by meter; "" is any
type Reason = Literal["credit_exhausted", "budget_stop", "no_subscription"]

REASONS: Final = ["credit_exhausted", "budget_stop", "no_subscription"]

ANY: Final = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """The credits of one unit. `grants` hold what is left of them by the ledger.

    `unsettled` is usage that is acknowledged and not yet in the ledger, beyond what is reserved for it. Beyond the
    grants a unit costs `overage` in `currency`, or nothing may run (None).
    """

    unit: str
    at: datetime
    grants: Sequence[Grant] = ()
    unsettled: Amounts = field(default_factory=dict)
    reserved: Amounts = field(default_factory=dict)
    overage: Decimal | None = None
    currency: str = ""

    @property
    def is_scoped(self) -> bool:
        """Whether it matters which meter asks."""
        return any(grant.meters for grant in self.grants)

    @property
    def available(self) -> Decimal:
        left = total(grant.amount for grant in self.grants)
        return left - total(self.reserved.values()) - total(self.unsettled.values())

    def beyond(self, asked: Amounts) -> Decimal:
        """How much the grants do not cover of what is unsettled, reserved and asked for."""
        amounts = _sum(self.unsettled, self.reserved, asked)
        if not self.is_scoped:
            return max(total(amounts.values()) - total(grant.amount for grant in self.grants), ZERO)
        start = quarter_floor(self.at)
        lines = {LineKey((), self.unit, meter): amount for meter, amount in amounts.items()}
        cells = allocate([Segment(start, start + QUARTER, lines)], self.grants)
        return total(amount for cell, amount in cells.items() if cell.grant is None)


@dataclass(frozen=True, slots=True)
class Stop:
    """A budget that stops. `used` includes what is unsettled."""

    budget: int
    unit: str
    limit: Decimal
    used: Decimal
    reserved: Decimal

    @property
    def left(self) -> Decimal:
        return self.limit - self.used - self.reserved


@dataclass(frozen=True, slots=True)
class Allow:
    """`credits` to hold by unit and meter, `budgets` by budget."""

    credits: Mapping[tuple[str, str], Decimal]
    budgets: Mapping[int, Decimal]


@dataclass(frozen=True, slots=True)
class Deny:
    reason: Reason
    stop: Stop | None = None


@exact()
def decide(asked: Mapping[str, Amounts], pools: Mapping[str, Pool], stops: Sequence[Stop]) -> Allow | Deny:
    """`asked`: the amount by unit and meter. `pools` has one of each unit asked for."""
    spent = {unit: total(amounts.values()) for unit, amounts in asked.items()}
    for unit, amounts in asked.items():
        pool = pools[unit]
        beyond = pool.beyond(amounts)
        if beyond and pool.overage is None:
            return Deny("credit_exhausted")
        if beyond and pool.overage and pool.currency != unit:
            cost = quantise((beyond - pool.beyond({})) * pool.overage)
            spent[pool.currency] = spent.get(pool.currency, ZERO) + cost
    concerned = [stop for stop in stops if stop.unit in spent]
    for stop in concerned:
        if spent[stop.unit] > stop.left:
            return Deny("budget_stop", stop)
    return Allow(
        credits={
            (unit, meter if pools[unit].is_scoped else ANY): amount
            for unit, amounts in asked.items()
            for meter, amount in (amounts if pools[unit].is_scoped else {ANY: total(amounts.values())}).items()
        },
        budgets={stop.budget: spent[stop.unit] for stop in concerned},
    )


def _sum(*parts: Amounts) -> dict[str, Decimal]:
    meters = dict.fromkeys(meter for part in parts for meter in part)
    return {meter: total(part.get(meter, ZERO) for part in parts) for meter in meters}
