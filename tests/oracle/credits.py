"""Spends credits one by one, by brute force: no cells, no ledger, no shared code.

Times are whole quarter hours since the start. One credit pays one use.
"""

from dataclasses import dataclass
from math import inf

RANK = {"promotional": 0, "plan": 1, "paid": 2}


@dataclass
class Grant:
    """`number` is the order in which they were given; `meters` of None pays for everything."""

    number: int
    amount: int
    kind: str
    priority: int
    start: int
    end: float = inf
    void_end: float = inf
    forfeited: int = 0
    meter: str | None = None

    @property
    def burn_key(self) -> tuple[float, ...]:
        return (self.priority, self.end, RANK[self.kind], self.start, self.number)

    def usable(self, start: int) -> bool:
        return self.start <= start < min(self.end, self.void_end)


@dataclass(frozen=True)
class Use:
    at: int
    meter: str


@dataclass
class Spent:
    by_grant: dict[int, int]
    overage: dict[tuple[str, int], int]  # by meter and the number of its period


def spend(uses: list[Use], grants: list[Grant], *, lasts: dict[str, int]) -> Spent:
    """Who paid each use: segment by segment, meter by meter, each use by the first grant that has something left.

    `lasts`: how long the periods of each meter's subscription are.
    """
    cuts = {bound for grant in grants for bound in (grant.start, grant.end, grant.void_end)}
    cuts |= {use.at - use.at % length for use in uses for length in lasts.values()}
    spent = Spent({grant.number: 0 for grant in grants}, {})
    ordered = sorted(uses, key=lambda use: (max(cut for cut in cuts if cut <= use.at), use.meter))
    for use in ordered:
        segment = max(cut for cut in cuts if cut <= use.at)
        for grant in sorted(grants, key=lambda grant: grant.burn_key):
            left = grant.amount - grant.forfeited - spent.by_grant[grant.number]
            if left > 0 and grant.usable(segment) and grant.meter in (None, use.meter):
                spent.by_grant[grant.number] += 1
                break
        else:
            period = use.meter, use.at // lasts[use.meter]
            spent.overage[period] = spent.overage.get(period, 0) + 1
    return spent
