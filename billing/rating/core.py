"""Counters x prices -> amounts, as pure functions. No database, no clock.

Everything rests on one idea: rate the quantity from the start of the period, and take differences. An amount of a
stretch is (rated through its end) - (rated through its start), so stretches add up to the whole whatever the
scheme, and the same events give the same amounts in any order.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, Protocol

from billing.money import CONTEXT, ZERO
from billing.pricing.schemes import NOTHING, Dimensions, Rated, Terms, difference, joined, rate_row, select_row, split


class Counted(Protocol):
    """What was counted with one set of dimension values; metering's totals are such."""

    @property
    def dimensions(self) -> Mapping[str, str]: ...
    @property
    def quantity(self) -> Decimal: ...
    @property
    def events(self) -> int: ...
    @property
    def rank(self) -> str | None: ...


@dataclass(frozen=True, slots=True, order=True)
class LineKey:
    """Names a line: (price, row, plan segment, billing period), with what decides which grants may pay it.

    Lines are served by grants in the order of their keys. The period comes last: when it was opened is an accident.
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
class Measure:
    """A quantity so far: a sum, or, of what has ranks, the quantity with the greatest."""

    quantity: Decimal = ZERO
    rank: str | None = None

    def add(self, quantity: Decimal, rank: str | None = None) -> None:
        if rank is None:
            self.quantity = CONTEXT.add(self.quantity, quantity)
        elif self.rank is None or rank > self.rank:
            self.quantity, self.rank = quantity, rank


@dataclass(frozen=True, slots=True)
class Newcomers[G: Hashable]:
    """How many members of a unique meter a row, and a group of a row, has that it had not before in the period.

    Groups may share members, so a row can have fewer than its groups together.
    """

    rows: Mapping[int, int]
    groups: Mapping[tuple[int, G], int]


@dataclass(slots=True)
class RowTally[G: Hashable]:
    """Usage of one row of a price since the period's start, and how it spreads over groups."""

    measure: Measure = field(default_factory=Measure)
    events: int = 0
    groups: dict[G, Measure] = field(default_factory=dict)
    settled: Rated = NOTHING  # what it cost under terms that no longer hold
    passed: Rated = NOTHING  # what the present terms would have asked for the same

    @property
    def quantity(self) -> Decimal:
        return self.measure.quantity


class Growth[G: Hashable](NamedTuple):
    """What one group of one row grew by from one cut to the next; less than nothing where a latest value fell."""

    row: int
    group: G
    quantity: Decimal
    amount: Decimal


class Tally[G: Hashable]:
    """Cumulative usage of one price in one period. `group_of` sorts dimension values into groups.

    `changes` says from which stretch on other terms hold, counted from 0: they have the same rows, and other amounts.
    """

    def __init__(
        self, terms: Terms, group_of: Callable[[Dimensions], G], changes: Mapping[int, Terms] | None = None
    ) -> None:
        self.terms = terms
        self._changes = changes or {}
        self._stretch = 0
        # The default row is always there, because its first tier is entered from zero.
        self.rows: dict[int, RowTally[G]] = {0: RowTally()}
        self._group_of = group_of
        self._places: dict[tuple[tuple[str, str], ...], tuple[int, G]] = {}
        self._shares: dict[int, dict[G, Decimal]] = {}

    def add(self, counted: Iterable[Counted], newcomers: Newcomers[G] | None = None) -> dict[tuple[int, G], Decimal]:
        """Count the usage of the next stretch; answers what the groups that it touched held before."""
        if self._stretch in self._changes:
            self._change(self._changes[self._stretch])
        self._stretch += 1
        before: dict[tuple[int, G], Decimal] = {}
        for item in counted:
            place = index, group = self.place(item.dimensions)
            row = self.row(index)
            row.events += item.events
            row.measure.add(item.quantity, item.rank)
            measure = row.groups.get(group) or row.groups.setdefault(group, Measure())
            if place not in before:
                before[place] = measure.quantity
            measure.add(item.quantity, item.rank)
        if newcomers is not None:
            for index, members in newcomers.rows.items():
                self.rows[index].measure.add(Decimal(members))
            for (index, group), members in newcomers.groups.items():
                self.rows[index].groups[group].add(Decimal(members))
        return before

    def continued(self) -> "Tally[G]":
        """A copy that counts on by itself, row by row: not for groups."""
        mine = copy(self)
        mine.rows = {index: replace(row, measure=replace(row.measure)) for index, row in self.rows.items()}
        return mine

    def row(self, index: int) -> RowTally[G]:
        """The row, which begins here if it has no usage."""
        return self.rows.get(index) or self.rows.setdefault(index, RowTally())

    def rated(self, index: int) -> Rated:
        """What the row costs so far."""
        row = self.rows[index]
        rated = self._by_present_terms(index)
        return rated if row.settled is NOTHING else joined(row.settled, difference(rated, row.passed))

    def _by_present_terms(self, index: int) -> Rated:
        row = self.rows[index]
        return rate_row(self.terms.rows[index], row.quantity, row.events)

    def _change(self, terms: Terms) -> None:
        """What was used so far costs what it did; what is used from here on costs what the terms add for it."""
        settled = {index: self.rated(index) for index in self.rows}
        self.terms = terms
        for index, row in self.rows.items():
            row.settled, row.passed = settled[index], self._by_present_terms(index)

    def grow(self, counted: Iterable[Counted], newcomers: Newcomers[G] | None = None) -> list[Growth[G]]:
        """Count the usage up to the next cut; answers what every group grew by.

        A row's cumulative amount is split among its groups by their cumulative quantities, so a group's amounts
        add up to the same total however finely time is cut.
        """
        held = self.add(counted, newcomers)
        changed = {index for index, _ in held} | ({0} - self._shares.keys())
        return [growth for index in sorted(changed) for growth in self._grow_row(index, held)]

    def _grow_row(self, index: int, held: Mapping[tuple[int, G], Decimal]) -> Iterator[Growth[G]]:
        # What is due without any usage belongs to the group without any dimension.
        groups = {group: measure.quantity for group, measure in self.rows[index].groups.items()}
        groups = groups or {self._group_of({}): ZERO}
        before = self._shares.get(index, {})
        shares = self._shares[index] = split(self.rated(index).amount, groups)
        for group in {**before, **shares}:
            now = groups.get(group, ZERO)
            quantity = CONTEXT.subtract(now, held.get((index, group), now))
            amount = CONTEXT.subtract(shares.get(group, ZERO), before.get(group, ZERO))
            if quantity or amount:
                yield Growth(index, group, quantity, amount)

    def place(self, dimensions: Mapping[str, str]) -> tuple[int, G]:
        """The row and the group of these values, found once per set of values."""
        key = tuple(dimensions.items())
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = select_row(self.terms, dimensions), self._group_of(dimensions)
        return place
