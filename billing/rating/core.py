"""Counters x prices -> amounts, as pure functions. No database, no clock.

Everything rests on one idea: rate the quantity from the start of the period, and take differences. An amount of a
stretch is (rated through its end) - (rated through its start), so stretches add up to the whole whatever the
scheme, and the same events give the same amounts in any order.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from billing.money import CONTEXT, ZERO
from billing.pricing.schemes import Dimensions, Rated, Terms, rate_row, select_row, split


class Counted(Protocol):
    """What was counted with one set of dimension values; metering's totals are such."""

    @property
    def dimensions(self) -> Mapping[str, str]: ...
    @property
    def quantity(self) -> Decimal: ...
    @property
    def events(self) -> int: ...


@dataclass(frozen=True, slots=True, order=True)
class LineKey:
    """Names a line: (billing period, price, row), with what decides which grants may pay it.

    Lines are served by grants in the order of their keys.
    """

    id: tuple[int, ...]
    unit: str
    meter: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch [starts_at, ends_at) and what each line grew by in it: rate(through it) - rate(before it).

    An amount is negative where a cheaper tier took back part of an earlier segment.
    """

    starts_at: datetime
    ends_at: datetime
    amounts: Mapping[LineKey, Decimal]


@dataclass(slots=True)
class RowTally[G: Hashable]:
    """Usage of one row of a price since the period's start, and how it spreads over groups."""

    quantity: Decimal = ZERO
    events: int = 0
    groups: dict[G, Decimal] = field(default_factory=dict)


class Growth[G: Hashable](NamedTuple):
    """What one group of one row grew by from one cut to the next."""

    row: int
    group: G
    quantity: Decimal
    amount: Decimal


class Tally[G: Hashable]:
    """Cumulative usage of one price in one period. `group_of` sorts dimension values into groups."""

    def __init__(self, terms: Terms, group_of: Callable[[Dimensions], G]) -> None:
        self.terms = terms
        # The default row is always there, because its first tier is entered from zero.
        self.rows: dict[int, RowTally[G]] = {0: RowTally()}
        self._group_of = group_of
        self._places: dict[frozenset[tuple[str, str]], tuple[int, G]] = {}
        self._shares: dict[int, dict[G, Decimal]] = {}

    def add(self, counted: Iterable[Counted]) -> dict[tuple[int, G], Decimal]:
        """Count more usage; answers the quantities that were added."""
        added: dict[tuple[int, G], Decimal] = {}
        for item in counted:
            index, group = self._place(item.dimensions)
            row = self.rows.setdefault(index, RowTally())
            row.quantity = CONTEXT.add(row.quantity, item.quantity)
            row.events += item.events
            row.groups[group] = CONTEXT.add(row.groups.get(group, ZERO), item.quantity)
            added[index, group] = CONTEXT.add(added.get((index, group), ZERO), item.quantity)
        return added

    def rated(self, index: int) -> Rated:
        """What the row costs so far."""
        row = self.rows[index]
        return rate_row(self.terms.rows[index], row.quantity, row.events)

    def grow(self, counted: Iterable[Counted]) -> list[Growth[G]]:
        """Count the usage up to the next cut; answers what every group grew by.

        A row's cumulative amount is split among its groups by their cumulative quantities, so a group's amounts
        add up to the same total however finely time is cut.
        """
        added = self.add(counted)
        changed = {index for index, _ in added} | ({0} - self._shares.keys())
        return [growth for index in sorted(changed) for growth in self._grow_row(index, added)]

    def _grow_row(self, index: int, added: Mapping[tuple[int, G], Decimal]) -> Iterator[Growth[G]]:
        # What is due without any usage belongs to the group without any dimension.
        groups = self.rows[index].groups or {self._group_of({}): ZERO}
        before = self._shares.get(index, {})
        shares = self._shares[index] = split(self.rated(index).amount, groups)
        for group in {**before, **shares}:
            quantity = added.get((index, group), ZERO)
            amount = CONTEXT.subtract(shares.get(group, ZERO), before.get(group, ZERO))
            if quantity or amount:
                yield Growth(index, group, quantity, amount)

    def _place(self, dimensions: Mapping[str, str]) -> tuple[int, G]:
        """The row and the group, found once per set of values."""
        key = frozenset(dimensions.items())
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = select_row(self.terms, dimensions), self._group_of(dimensions)
        return place
