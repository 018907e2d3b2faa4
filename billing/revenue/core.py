"""Usage at what it cost the vendor and at what it earned, as pure functions. No database, no clock.

Quantities are added up first and multiplied by their unit cost once, so the sum does not depend on how time is cut.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from billing.money import CONTEXT, ZERO, mul_div
from billing.pricing.costs import CostTerms
from billing.pricing.models import UnitCost
from billing.pricing.schemes import Dimensions
from billing.rating.core import Counted

_HUNDRED: Final = Decimal(100)


@dataclass(slots=True)
class Margin:
    """Of one group in one currency. `usage`: what its usage earned; `without_cost`: the part of it whose cost nobody
    said, so that the margin is at most what is shown."""

    usage: Decimal = ZERO
    fees: Decimal = ZERO
    cost: Decimal = ZERO
    without_cost: Decimal = ZERO

    @property
    def revenue(self) -> Decimal:
        return CONTEXT.add(self.usage, self.fees)

    @property
    def margin(self) -> Decimal:
        return CONTEXT.subtract(self.revenue, self.cost)

    @property
    def percent(self) -> Decimal | None:
        """Of revenue; None where there is none."""
        return mul_div(self.margin, _HUNDRED, self.revenue) if self.revenue > 0 else None

    def add(self, other: "Margin") -> None:
        self.usage = CONTEXT.add(self.usage, other.usage)
        self.fees = CONTEXT.add(self.fees, other.fees)
        self.cost = CONTEXT.add(self.cost, other.cost)
        self.without_cost = CONTEXT.add(self.without_cost, other.without_cost)


@dataclass(slots=True)
class Uncovered:
    """Usage whose cost nobody said."""

    quantity: Decimal = ZERO
    events: int = 0


@dataclass(slots=True)
class AtCost[G: Hashable, K: Hashable]:
    """Usage at unit cost, by group, stretch by stretch; a stretch has one set of terms.

    What has no unit cost is kept apart, by kind, and never taken as free.
    """

    _quantities: dict[tuple[G, UnitCost], Decimal] = field(default_factory=dict)
    uncovered: dict[K, Uncovered] = field(default_factory=lambda: defaultdict(Uncovered))

    def add(
        self,
        terms: CostTerms | None,
        counted: Iterable[Counted],
        group_of: Callable[[Dimensions], G],
        kind_of: Callable[[Dimensions], K],
    ) -> None:
        """`terms`: of the meter whose usage this is; None where it has no costs by then."""
        for item in counted:
            cost = terms.of(item.dimensions) if terms else None
            if cost is None:
                missing = self.uncovered[kind_of(item.dimensions)]
                missing.quantity = CONTEXT.add(missing.quantity, item.quantity)
                missing.events += item.events
            else:
                key = group_of(item.dimensions), cost
                self._quantities[key] = CONTEXT.add(self._quantities.get(key, ZERO), item.quantity)

    def amounts(self) -> Mapping[tuple[G, str], Decimal]:
        """By group and currency."""
        found: dict[tuple[G, str], Decimal] = {}
        for (group, cost), quantity in self._quantities.items():
            key = group, cost.currency
            amount = mul_div(quantity, cost.unit_amount, cost.per)
            found[key] = CONTEXT.add(found.get(key, ZERO), amount)
        return found


@dataclass(slots=True)
class Earned:
    """A line in a segment: its amount, in its unit, and what whoever paid for that gave, in the plan's currency."""

    amount: Decimal = ZERO
    revenue: Decimal = ZERO

    def add(self, amount: Decimal, rate: Decimal) -> None:
        self.amount = CONTEXT.add(self.amount, amount)
        self.revenue = CONTEXT.add(self.revenue, CONTEXT.multiply(amount, rate))

    def of(self, amount: Decimal, otherwise: Decimal) -> Decimal:
        """What a part of the amount earned, at the mean of the segment; at this rate where nothing is settled yet."""
        if not self.amount:
            return CONTEXT.multiply(amount, otherwise)
        return mul_div(amount, self.revenue, self.amount)
