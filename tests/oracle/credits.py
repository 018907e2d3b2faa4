"""Spends credits by brute force, from the beginning: no cells, no ledger, no shared code.

Times are whole quarter hours since the start. One credit pays one unit of quantity.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

RANK = {"promotional": 0, "plan": 1, "paid": 2}


@dataclass
class Grant:
    """`number` is the order in which they were given; `meter` of None pays for everything.

    `paid_when_void`: the most that it pays, once it is void. Of a plan's grant, when it ends up to `rollover_max` of
    what is left goes to the next one, which begins then.
    """

    number: int
    amount: int
    kind: str
    priority: int
    start: int
    end: float = inf
    void_end: float = inf
    paid_when_void: float = inf
    meter: str | None = None
    adjusted: int = 0
    rollover_max: int = 0

    @property
    def burn_key(self) -> tuple[float, ...]:
        return (self.priority, self.end, RANK[self.kind], self.start, self.number)

    @property
    def is_void(self) -> bool:
        return self.void_end < inf

    def usable(self, start: int) -> bool:
        return self.start <= start < min(self.end, self.void_end)


def with_plan_grants(
    grants: list[Grant],
    segments: list[tuple[int, int, str]],
    plans: dict[str, tuple[int, int]],
    numbers: Iterator[int],
) -> list[Grant]:
    """The grants, with one of the plan for each segment; where a change has cut one, another takes its place. `plans`:
    the credits in a quarter hour, and how many roll over."""
    standing = {(grant.start, grant.rollover_max): grant for grant in grants if grant.kind == "plan"}
    wanted = []
    for start, end, plan in segments:
        rate, most = plans[plan]
        grant = standing.get((start, most))
        if grant is None or not (grant.is_void or grant.end == end):
            grant = Grant(next(numbers), rate * (end - start), "plan", 10, start, end, rollover_max=most)
        wanted.append(grant)
    return [grant for grant in grants if grant.kind != "plan"] + wanted


@dataclass
class Use:
    at: int
    meter: str
    quantity: int = 1

    def place(self, period_of: dict[str, int]) -> tuple[str, int]:
        """Its meter and the number of its period."""
        return self.meter, self.at // period_of[self.meter]


@dataclass
class Spent:
    by_grant: dict[int, int]
    rolled_in: dict[int, int]
    rolled_out: dict[int, int]
    overage: dict[tuple[str, int], int]  # by meter and the number of its period


class _Purse:
    """What each grant still has, as time passes."""

    def __init__(self, grants: list[Grant]) -> None:
        self.grants = {grant.number: grant for grant in grants}
        self.rolled_in = dict.fromkeys(self.grants, 0)
        self.rolled_out = dict.fromkeys(self.grants, 0)
        self.paid = dict.fromkeys(self.grants, 0)
        plans = sorted((grant for grant in grants if grant.kind == "plan"), key=lambda grant: grant.start)
        self.turns = [(heir, old) for heir in plans for old in plans if old.end == heir.start and not old.is_void]

    def left(self, grant: Grant) -> int:
        came = grant.amount + grant.adjusted + self.rolled_in[grant.number]
        most = min(came - self.rolled_out[grant.number], grant.paid_when_void)
        return int(most) - self.paid[grant.number]

    def pass_to(self, time: float) -> None:
        while self.turns and self.turns[0][0].start <= time:
            heir, old = self.turns.pop(0)
            moved = max(min(self.left(old), old.rollover_max), 0)
            self.rolled_out[old.number] += moved
            self.rolled_in[heir.number] += moved


def spend(uses: list[Use], grants: list[Grant], *, cuts: set[int], period_of: dict[str, int]) -> Spent:
    """Who paid each use: segment by segment, meter by meter, each use by the first grants that have something left.

    `cuts`: where plans change. `period_of`: how long the periods of each meter's subscription are.
    """
    bounds = cuts | {bound for grant in grants for bound in (grant.start, grant.end, grant.void_end)}
    bounds |= {use.at - use.at % length for use in uses for length in period_of.values()}
    purse, overage = _Purse(grants), {}
    placed = [(max(bound for bound in bounds if bound <= use.at), use) for use in uses]
    for segment, use in sorted(placed, key=lambda item: (item[0], item[1].meter)):
        purse.pass_to(segment)
        due = use.quantity
        for grant in sorted(grants, key=lambda grant: grant.burn_key):
            if grant.usable(segment) and grant.meter in (None, use.meter):
                part = min(due, max(purse.left(grant), 0))
                purse.paid[grant.number] += part
                due -= part
        if due:
            period = use.meter, use.at // period_of[use.meter]
            overage[period] = overage.get(period, 0) + due
    purse.pass_to(inf)
    return Spent(purse.paid, purse.rolled_in, purse.rolled_out, overage)
