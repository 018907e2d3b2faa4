"""May a call run, and what is left then? Holds beside credits, by brute force: no shared code."""

from dataclasses import dataclass

from tests.oracle.credits import Grant

ANY = ""


@dataclass
class Hold:
    """Credits that are kept for a call until `end`. `meter`: what it is for, ANY where every grant pays for everything.

    `state`: "open"; "used" once an event has ended it, until that event is settled; "gone".
    """

    meter: str
    amount: int
    end: int
    state: str = "open"

    def is_open(self, now: int) -> bool:
        return self.state == "open" and now < self.end

    def is_reserved(self, now: int) -> bool:
        return self.state == "used" or self.is_open(now)


@dataclass
class Purse:
    """What can be spent now: the grants that are usable and what the ledger left of each, all that is held, and what
    was used since it was written, by meter."""

    grants: list[tuple[Grant, int]]
    holds: list[Hold]
    unsettled: dict[str, int]

    @property
    def is_scoped(self) -> bool:
        return any(grant.meter for grant, _ in self.grants)

    def available_after(self, meter: str, amount: int) -> int | None:
        """What is left for others once so much is held; None where it is more than there is."""
        held, unsettled = self._reserved(self.holds), self._beyond_the_holds()
        due = {name: held.get(name, 0) + unsettled.get(name, 0) for name in {*held, *unsettled}}
        due[meter] = due.get(meter, 0) + amount
        if self._unpaid(due):
            return None
        return sum(left for _, left in self.grants) - sum(due.values())

    def _reserved(self, holds: list[Hold]) -> dict[str, int]:
        sums: dict[str, int] = {}
        for hold in holds:
            name = hold.meter if self.is_scoped else ANY
            sums[name] = sums.get(name, 0) + hold.amount
        return sums

    def _beyond_the_holds(self) -> dict[str, int]:
        """Usage that no hold covers: events that ended one are in its hold already."""
        covered = self._reserved([hold for hold in self.holds if hold.state == "used"])
        unsettled = self.unsettled if self.is_scoped else {ANY: sum(self.unsettled.values())}
        return {name: max(amount - covered.get(name, 0), 0) for name, amount in unsettled.items()}

    def _unpaid(self, due: dict[str, int]) -> int:
        left = {grant.number: amount for grant, amount in self.grants}
        unpaid = 0
        for meter in sorted(due):
            rest = due[meter]
            for grant, _ in sorted(self.grants, key=lambda item: item[0].burn_key):
                if grant.meter in (None, meter) or not self.is_scoped:
                    part = min(rest, left[grant.number])
                    left[grant.number] -= part
                    rest -= part
            unpaid += rest
        return unpaid
