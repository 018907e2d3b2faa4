"""Which grant pays which part of which line: a pure function of the rated lines and the grants.

Settlement compares its result with what was posted and posts the difference. Late events, voids and repeats
need no case of their own: the same lines and grants always give the same cells.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from billing.money import CONTEXT, ZERO, exact, total
from billing.periods import Interval
from billing.rating.core import LineKey, Segment

type GrantKind = Literal["promotional", "plan", "paid"]

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
# What was given is spent before what was bought.
_RANK: Final[Mapping[GrantKind, int]] = {"promotional": 0, "plan": 1, "paid": 2}


@dataclass(frozen=True, slots=True)
class Grant:
    """Credits to spend. `amount` is what these segments may take: less what closed periods took for good.

    Usable in [effective_at, expires_at), and only until `voided_at`, from when on it pays no more than `most`. Instants
    lie on quarter hours. Empty `meters` means every meter. When it expires, up to `rollover_max` of what is left goes
    to the grant `rolls_into`, which begins then.
    """

    id: int
    unit: str
    amount: Decimal
    kind: GrantKind
    priority: int
    effective_at: datetime
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    meters: frozenset[str] = frozenset()
    most: Decimal | None = None
    rolls_into: int | None = None
    rollover_max: Decimal = ZERO

    @property
    def usable_until(self) -> datetime | None:
        """The first instant at which it is no longer usable; None for never."""
        return min((end for end in (self.expires_at, self.voided_at) if end is not None), default=None)

    def usable_in(self, segment: Segment) -> bool:
        """Whether it is usable all through the segment. Raises ValueError if for a part of it only."""
        until = self.usable_until
        if until is not None and (until <= segment.starts_at or until <= self.effective_at):
            return False
        if self.effective_at >= segment.ends_at:
            return False
        if self.effective_at > segment.starts_at or (until is not None and until < segment.ends_at):
            raise ValueError(f"Grant {self.id} begins or ends inside a segment; cut the segment there.")
        return True

    def pays(self, line: LineKey) -> bool:
        return self.unit == line.unit and (not self.meters or line.meter in self.meters)


class Cell(NamedTuple):
    """Where an amount is booked. `grant` is None for overage: what no grant covered."""

    line: LineKey
    segment_starts_at: datetime
    grant: int | None


def burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """Priority (low first), expiry (soonest first, none last), promotional, plan, paid, effective time, id."""
    return sorted(
        grants,
        key=lambda grant: (
            grant.priority,
            grant.expires_at or _NEVER,
            _RANK[grant.kind],
            grant.effective_at,
            grant.id,
        ),
    )


def cuts(interval: Interval, grants: Iterable[Grant], at: Iterable[datetime] = ()) -> list[Interval]:
    """The interval cut wherever a grant begins, expires or is voided, and at the further instants `at`.

    Subscriptions that share grants must be cut at each other's boundaries too: pass them in `at`.
    """
    instants = {*at, interval.start, interval.end}
    for grant in grants:
        instants |= {grant.effective_at, grant.usable_until or interval.end}
    inside = sorted(instant for instant in instants if interval.start <= instant <= interval.end)
    return [Interval(start, end) for start, end in pairwise(inside)]


class Allocation(NamedTuple):
    """Who pays what, and by grant what rolls into it."""

    cells: dict[Cell, Decimal]
    rolled: dict[int, Decimal]


def allocate(segments: Iterable[Segment], grants: Iterable[Grant]) -> dict[Cell, Decimal]:
    """The cells of `distribute`."""
    return distribute(segments, grants).cells


@exact()
def distribute(segments: Iterable[Segment], grants: Iterable[Grant]) -> Allocation:
    """Book every line of every segment on grants, in burn order, and on overage where none is left.

    Segments in time order take from the grants usable in them. Per line and segment the cells sum to the
    amount; cells of zero are left out. A negative amount is served first in its segment: it goes back where
    the line's latest amounts came from, last taken first returned, even to a grant that has ended since.
    What rolls over is what is left when the time of the grant's end is reached: it depends on the lines before and on
    nothing that has been posted, so late usage takes back what had rolled over without it.

    Raises ValueError when segments overlap without being equal, or when a grant begins or ends inside one.
    """
    ordered = burn_order(grants)
    left = {grant.id: _capped(grant, grant.amount) for grant in ordered}
    rolling = _Rolling(ordered, left)
    taken: dict[LineKey, list[tuple[int | None, Decimal]]] = defaultdict(list)
    cells: dict[Cell, Decimal] = {}
    for segment in _merged(segments):
        rolling.until(segment.starts_at)
        usable = [grant for grant in ordered if grant.usable_in(segment)]
        for line, amount in sorted(segment.amounts.items(), key=lambda item: (item[1] >= 0, item[0])):
            if amount < 0:
                parts = _give_back(taken[line], -amount)
            else:
                parts = _take(amount, [grant for grant in usable if grant.pays(line)], left)
                taken[line] += parts
            for grant, part in parts:
                cell = Cell(line, segment.starts_at, grant)
                cells[cell] = cells.get(cell, ZERO) + part
                if grant is not None:
                    left[grant] -= part
    rolling.until(_NEVER)
    return Allocation(cells, rolling.rolled)


def _capped(grant: Grant, amount: Decimal) -> Decimal:
    return amount if grant.most is None else min(amount, grant.most)


class _Rolling:
    """Moves rests on as time passes."""

    def __init__(self, grants: Iterable[Grant], left: dict[int, Decimal]) -> None:
        self.left = left
        self.grants = {grant.id: grant for grant in grants}
        self.rolled: dict[int, Decimal] = {}
        ahead = [grant for grant in self.grants.values() if grant.rolls_into in self.grants]
        self._ahead = deque(sorted(ahead, key=lambda grant: (grant.expires_at or _NEVER, grant.id)))

    def until(self, at: datetime) -> None:
        while self._ahead and (self._ahead[0].expires_at or _NEVER) <= at:
            self._roll(self._ahead.popleft())

    def _roll(self, grant: Grant) -> None:
        into = self.grants[grant.rolls_into or 0]
        rest = ZERO if grant.voided_at is not None else self.left[grant.id]
        moved = self.rolled[into.id] = max(min(rest, grant.rollover_max), ZERO)
        self.left[grant.id] -= moved
        self.left[into.id] = _capped(into, into.amount + moved)


def _merged(segments: Iterable[Segment]) -> Iterator[Segment]:
    """In time order, equal stretches as one, so that the order of the input cannot matter."""
    stretches: dict[tuple[datetime, datetime], dict[LineKey, list[Decimal]]] = defaultdict(lambda: defaultdict(list))
    for segment in segments:
        for line, amount in segment.amounts.items():
            stretches[segment.starts_at, segment.ends_at][line].append(amount)
    for (_, end), (start, _) in pairwise(sorted(stretches)):
        if start < end:
            raise ValueError("Segments overlap; cut them at each other's boundaries.")
    for (starts_at, ends_at), lines in sorted(stretches.items()):
        yield Segment(starts_at, ends_at, {line: total(amounts) for line, amounts in lines.items()})


def _take(due: Decimal, grants: list[Grant], left: Mapping[int, Decimal]) -> list[tuple[int | None, Decimal]]:
    parts: list[tuple[int | None, Decimal]] = []
    for grant in grants:
        part = min(due, left[grant.id])
        if part > 0:
            parts.append((grant.id, part))
            due = CONTEXT.subtract(due, part)
    return [*parts, (None, due)] if due else parts


def _give_back(taken: list[tuple[int | None, Decimal]], due: Decimal) -> list[tuple[int | None, Decimal]]:
    """Undo the line's latest parts; what exceeds everything it ever took is negative overage."""
    parts: list[tuple[int | None, Decimal]] = []
    while due and taken:
        grant, amount = taken.pop()
        part = min(due, amount)
        parts.append((grant, -part))
        due = CONTEXT.subtract(due, part)
        if part < amount:
            taken.append((grant, CONTEXT.subtract(amount, part)))
    return [*parts, (None, -due)] if due else parts
