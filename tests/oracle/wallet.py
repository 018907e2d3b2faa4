"""What a customer's credits come to, by a plain model: what has happened, and all that follows from it.

It has a subscription whose plan gives credits each day, and may be changed, and others that share them. Times are whole
quarter hours since the start.
"""

from collections.abc import Mapping
from copy import copy
from itertools import count

from tests.oracle.credits import Grant, Spent, Use, spend, with_plan_grants
from tests.oracle.holds import ANY, Hold, Purse

DAY = 96


class Wallet:
    """`period_of`: how long the periods of each meter's subscription are. `plans`: the credits that each gives in a
    quarter hour of the day, and how many roll over."""

    def __init__(self, period_of: dict[str, int], plans: dict[str, tuple[int, int]], plan: str) -> None:
        self.period_of, self.plans, self.plan = period_of, plans, plan
        self.numbers = count()
        self.now = 0
        self.segments: list[tuple[int, int, str]] = [(0, DAY, plan)]
        self.uses: dict[str, Use] = {}
        self.grants: list[Grant] = []
        self.holds: dict[int, Hold] = {}
        # As of the last settlement: the usage that it saw, what it left of each grant, and which periods are closed.
        self.counted: dict[str, Use] = {}
        self.left: dict[int, int] = {}
        self.closed_before, self.rolled_at = dict.fromkeys(period_of, 0), 0

    # --- what happens ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All usage is counted, and what has ended is free, closed or followed by the next one."""
        self.periods_roll()
        self.counted = {name: copy(use) for name, use in self.uses.items()}
        for hold in self.holds.values():
            if not hold.is_open(self.now):
                hold.state = "gone"
        while self.segments[-1][1] <= self.now:
            _, end, _ = self.segments[-1]
            self.segments.append((end, end + DAY, self.plan))
        self._plan_gives()
        self._is_settled()

    def change_plan(self, plan: str) -> None:
        """From now on, after settling."""
        self.plan = plan
        *before, (start, end, old) = self.segments
        if start < self.now:
            self.segments = [*before, (start, self.now, old), (self.now, end, plan)]
        elif before and before[-1][2] == plan and before[-1][0] // DAY == start // DAY:
            self.segments = [*before[:-1], (before[-1][0], end, plan)]  # a change that is taken back never was
        else:
            self.segments = [*before, (start, end, plan)]
        self.periods_roll()
        self._plan_gives()
        self._is_settled()

    def give(self, grant: Grant) -> None:
        self.grants.append(grant)
        self._is_settled()

    def void(self, grant: Grant) -> None:
        """After settling, so that what it has paid is known."""
        grant.paid_when_void = self.spent().by_grant[grant.number]
        grant.void_end = self.now + 1
        self._is_settled()

    def adjust(self, grant: Grant, amount: int) -> None:
        grant.adjusted += amount
        self._is_settled()

    def hold(self, meter: str, amount: int, lasts: int) -> int:
        """Its number."""
        number = next(self.numbers)
        self.holds[number] = Hold(meter if self.purse().is_scoped else ANY, amount, self.now + lasts)
        return number

    def periods_roll(self) -> None:
        """One that ended is closed a day later, but never in the roll that ends it."""
        for meter, length in self.period_of.items():
            ended, over = self.rolled_at // length * length, (self.now - DAY) // length * length
            self.closed_before[meter] = max(self.closed_before[meter], min(ended, over))
        self.rolled_at = self.now

    def _plan_gives(self) -> None:
        self.grants = with_plan_grants(self.grants, self.segments, self.plans, self.numbers)

    def _is_settled(self) -> None:
        """What the ledger leaves of each grant, after the usage that is counted."""
        spent = self._spent(self.counted)
        self.left = {grant.number: 0 if grant.is_void else _rest(grant, spent) for grant in self.grants}

    # --- what follows ---------------------------------------------------------------------------------------------

    def spent(self) -> Spent:
        """Who paid what of all usage, counted or not."""
        return self._spent(self.uses)

    def _spent(self, uses: Mapping[str, Use]) -> Spent:
        cuts = {bound for start, end, _ in self.segments for bound in (start, end)}
        return spend(list(uses.values()), self.grants, cuts=cuts, period_of=self.period_of)

    def usable(self) -> list[Grant]:
        return [grant for grant in self.grants if grant.usable(self.now)]

    def held(self) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.is_reserved(self.now)]

    def purse(self) -> Purse:
        """What can be spent now."""
        left = [(grant, self.left[grant.number]) for grant in self.usable() if self.left[grant.number]]
        return Purse(left, self.held(), self._unsettled())

    def _unsettled(self) -> dict[str, int]:
        """What came since the last settlement by meter, of periods that are not closed."""
        sums: dict[str, int] = {}
        for uses, sign in ((self.counted, -1), (self.uses, 1)):
            for use in uses.values():
                if use.at >= self.closed_before[use.meter]:
                    sums[use.meter] = sums.get(use.meter, 0) + sign * use.quantity
        return sums


def _rest(grant: Grant, spent: Spent) -> int:
    came = grant.amount + grant.adjusted + spent.rolled_in[grant.number]
    return came - spent.rolled_out[grant.number] - spent.by_grant[grant.number]
