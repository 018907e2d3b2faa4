"""Senders at work while a victim after another is killed, and what came of it.

The kills are spread at random over the events that are to be sent, and over the time there is, whichever comes first.
When starting the victims again takes so long that the time is over, the other kills are left out.
"""

import multiprocessing
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Protocol

from tests.chaos import load
from tests.chaos.sender import Orders, Outcome, Shared, outcomes, send

FLIGHT_SECONDS = 15  # to wait for a request in flight before a kill
FIRST_KILL, LAST_KILL = 0.005, 0.97  # shares of the work and of the time
BREATH_SECONDS = 0.02


class Victim(Protocol):
    """Something that is killed and started again."""

    @property
    def running(self) -> bool: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What is done. `victims`: name -> how often it is chosen, relative to the others. No request outlasts `seconds`;
    what was killed last may take longer to come back."""

    seed: int
    events: int
    kills: int
    senders: int
    seconds: float
    victims: Mapping[str, int]


@dataclass
class Kill:
    """Who was killed, and which request of which sender was in flight at that moment."""

    victim: str
    in_flight: dict[int, int]


@dataclass
class Report:
    """What came of it. `acknowledged` are numbers of events, each once."""

    kills: list[Kill] = field(default_factory=list)
    ended_by_themselves: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    broken: set[tuple[int, int]] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    sent_events: int = 0
    given_up: int = 0
    seconds: float = 0

    @property
    def kills_in_flight(self) -> int:
        return sum(bool(kill.in_flight) for kill in self.kills)

    @property
    def kills_felt(self) -> list[Kill]:
        """Those at which a client saw its request break: a request that outlived one kill counts for the next."""
        felt, broken = [], set(self.broken)
        for kill in reversed(self.kills):
            here = broken & kill.in_flight.items()
            if here:
                felt.append(kill)
                broken -= here
        return felt

    def problems(self) -> list[str]:
        """What the answers themselves show to be wrong: nothing that was sent may be refused, or end in an error."""
        wrong = {name: n for name, n in self.accepted.items() if n and name not in ("accepted", "duplicate")}
        wrong |= {
            how: n for how, n in self.outcomes.items() if how not in ("ok", "broken", "late", "unreachable", "503")
        }
        return [f"{n} x {name}" for name, n in wrong.items()]


class Storm:
    def __init__(
        self, plan: Plan, victims: Mapping[str, Victim], *, url: str, secret: str, begun: datetime, folder: Path
    ) -> None:
        self.plan, self.victims = plan, victims
        self.url, self.secret, self.begun, self.folder = url, secret, begun, folder
        self.random = Random(plan.seed)
        self.batches = load.batches(plan.events, self.random)
        self.context = multiprocessing.get_context("spawn")
        self.shared = Shared(
            in_flight=self.context.RawArray("q", plan.senders),
            done=self.context.RawArray("q", plan.senders),
            stop=self.context.Event(),
        )
        self.report = Report()

    def run(self) -> Report:
        """Call it from a process with one thread, which is also the one that started the victims."""
        began = time.monotonic()
        senders = self._start_senders(until=began + self.plan.seconds)
        try:
            self._kill_all(senders, began)
            while any(sender.is_alive() for sender in senders):
                self._revive()
                time.sleep(BREATH_SECONDS)
        finally:
            self.shared.stop.set()
            for sender in senders:
                sender.join()
        self.report.seconds = time.monotonic() - began
        assert [sender.exitcode for sender in senders] == [0] * len(senders), "a sender failed"
        self._read_logs()
        return self.report

    def _kill_all(self, senders: Sequence[BaseProcess], began: float) -> None:
        over = began + LAST_KILL * self.plan.seconds
        shares = sorted(self.random.uniform(FIRST_KILL, LAST_KILL) for _ in range(self.plan.kills))
        for name, share in zip(self._chosen(), shares, strict=True):
            self._wait_for(share, senders, began + share * self.plan.seconds)
            if time.monotonic() > over:
                break
            self._strike(name, over)

    def _chosen(self) -> list[str]:
        """Whom to kill, one after the other: as often as planned, not only on average."""
        weights = self.plan.victims
        rounds = ceil(self.plan.kills / sum(weights.values()))
        return self.random.sample(list(weights), k=self.plan.kills, counts=[rounds * n for n in weights.values()])

    def _start_senders(self, until: float) -> list[BaseProcess]:
        numbered = list(enumerate(self.batches))
        senders = []
        for place in range(self.plan.senders):
            mine = numbered[place :: self.plan.senders]
            seed = f"{self.plan.seed}.{place}"
            orders = Orders(place, self.url, self.secret, self.begun, mine, self._log(place), seed, until)
            senders.append(self.context.Process(target=send, args=(orders, self.shared), daemon=True))
            senders[-1].start()
        return senders

    def _log(self, place: int) -> Path:
        return self.folder / f"acknowledged-{place}.log"

    def _wait_for(self, share: float, senders: Sequence[BaseProcess], latest: float) -> None:
        """Until so much of the work is done, or of the time is over."""
        while sum(self.shared.done) < share * load.TIMES * self.plan.events and time.monotonic() < latest:
            assert any(sender.is_alive() for sender in senders), "the senders ended early"
            self._revive()
            time.sleep(BREATH_SECONDS)

    def _strike(self, name: str, over: float) -> None:
        victim = self.victims[name]
        self._revive()
        self._wait_for_flight(over)
        time.sleep(self.random.uniform(0, 0.1))
        self._wait_for_flight(over)  # that one may have been answered
        in_flight = {place: request for place, request in enumerate(self.shared.in_flight) if request}
        victim.kill()
        self.report.kills.append(Kill(name, in_flight))
        time.sleep(self.random.uniform(0, 0.3))
        if not victim.running:
            victim.start()

    def _wait_for_flight(self, over: float) -> None:
        deadline = min(time.monotonic() + FLIGHT_SECONDS, over)
        while not any(self.shared.in_flight) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _revive(self) -> None:
        """Start again what ended without being killed: what another's death took along."""
        for name, victim in self.victims.items():
            if not victim.running:
                self.report.ended_by_themselves[name] += 1
                victim.start()

    def _read_logs(self) -> None:
        report = self.report
        for place in range(self.plan.senders):
            last: dict[int, Outcome] = {}
            for outcome in outcomes(self._log(place)):
                report.outcomes[outcome.how] += 1
                report.accepted.update(outcome.counts)
                last[outcome.batch] = outcome
                if outcome.how in ("broken", "503"):
                    report.broken.add((place, outcome.request))
                elif outcome.how == "ok":
                    self._acknowledge(self.batches[outcome.batch], outcome)
            report.given_up += sum(outcome.how != "ok" for outcome in last.values())

    def _acknowledge(self, numbers: "array[int]", outcome: Outcome) -> None:
        told = outcome.counts["accepted"] + outcome.counts["duplicate"]
        assert told == len(numbers), f"{outcome} answers for {told} of {len(numbers)} events"
        self.report.acknowledged.update(numbers)
        self.report.sent_events += len(numbers)
