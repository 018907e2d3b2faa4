"""Where credits go at the present pace: a pure function of what is left, how fast it is used, and what is to come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from billing.money import ZERO, exact, total

type Point = tuple[datetime, Decimal]

_DAY: Final = Decimal(86_400)
_FAR: Final = timedelta(days=3653)
# Student's t for an 80 % range, by the number of whole days that the pace was seen on.
_T: Final[Mapping[int, Decimal]] = {3: Decimal("1.886"), 4: Decimal("1.638"), 5: Decimal("1.533"), 6: Decimal("1.476")}


@dataclass(frozen=True, slots=True)
class Stock:
    """What is left of a grant, usable in [usable_from, usable_until). Empty `meters` means every meter.

    `id` is below zero for credits that are only to come: those of the plan's next periods. When it ends, up to
    `rollover_max` of what is left goes to the one `rolls_into`, which begins then.
    """

    id: int
    left: Decimal
    usable_from: datetime
    usable_until: datetime | None = None
    meters: frozenset[str] = frozenset()
    rolls_into: int | None = None
    rollover_max: Decimal = ZERO

    def is_usable(self, at: datetime) -> bool:
        return self.usable_from <= at and (self.usable_until is None or at < self.usable_until)

    def pays(self, meter: str) -> bool:
        return not self.meters or meter in self.meters


@dataclass(frozen=True, slots=True)
class Pace:
    """What is used in a day, by meter; `days`: the whole days that it was seen on, for how much it varies."""

    by_meter: Mapping[str, Decimal]
    days: Sequence[Decimal] = ()

    @property
    def per_day(self) -> Decimal:
        return total(self.by_meter.values())


@dataclass(frozen=True, slots=True)
class Outlook:
    """What happens at this pace. `runs_out_at`: from then on usage that grants paid for finds none; None: not in sight.

    `earliest` and `latest` bound it with a chance of 80 %; `latest` is None where it may last. `path`: what is usable,
    corner by corner; two corners at one instant where it jumps. `lapses`: what is lost of each grant when it expires,
    after what rolls over. `grows`: more comes until it runs out, so that it lasts longer than what is there now.
    """

    per_day: Decimal
    runs_out_at: datetime | None
    earliest: datetime | None
    latest: datetime | None
    path: Sequence[Point]
    lapses: Mapping[int, Decimal]
    grows: bool


@exact()
def outlook(stocks: Sequence[Stock], pace: Pace, at: datetime, until: datetime | None = None) -> Outlook:
    """Spend the stocks, which come in burn order, from `at` on. `until`: how far what is to come is known."""
    end = until or at + _FAR
    course = _Course(stocks, pace.by_meter, at).run(end)
    early = late = None
    if course.runs_out_at is not None and (spread := _spread(pace, course.runs_out_at - at)) is not None:
        early = _Course(stocks, _scaled(pace, 1 + spread), at).run(end).runs_out_at
        late = _Course(stocks, _scaled(pace, 1 - spread), at).run(end).runs_out_at
    last = course.runs_out_at or end
    grows = any(at < stock.usable_from <= last and stock.left > 0 for stock in stocks)
    return Outlook(pace.per_day, course.runs_out_at, early, late, course.path, course.lapses, grows)


def _scaled(pace: Pace, factor: Decimal) -> Mapping[str, Decimal]:
    return {meter: amount * max(factor, ZERO) for meter, amount in pace.by_meter.items()}


def _spread(pace: Pace, ahead: timedelta) -> Decimal | None:
    """How far the pace may be off over the time ahead, as a share of it. None with too few days to say.

    The mean of the days to come differs from that of the days seen by the variation of both.
    """
    number = len(pace.days)
    mean = total(pace.days) / number if number else ZERO
    if number not in _T or mean <= 0:
        return None
    variance = total((day - mean) ** 2 for day in pace.days) / (number - 1)
    seconds = max(_seconds(ahead), Decimal(1))
    return _T[number] * variance.sqrt() / mean * (_DAY / seconds + Decimal(1) / number).sqrt()


def _seconds(span: timedelta) -> Decimal:
    return Decimal(span.days) * _DAY + span.seconds + Decimal(span.microseconds) / 1_000_000


@dataclass
class _Course:
    """Time passes from one turn to the next: a stock begins, ends or is used up."""

    stocks: Sequence[Stock]
    pace: Mapping[str, Decimal]  # a day, by meter
    now: datetime
    path: list[Point] = field(default_factory=list)
    runs_out_at: datetime | None = None
    lapses: dict[int, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left = [stock.left for stock in self.stocks]
        self.places = {stock.id: i for i, stock in enumerate(self.stocks)}
        self.paid: set[str] = set()  # meters that a stock paid for
        self._mark()

    def run(self, end: datetime) -> "_Course":
        while self.now < end:
            draws = self._draws()
            turn, emptied = self._turn(draws, end)
            self._pass(draws, turn, emptied)
        return self

    def _draws(self) -> dict[int, Decimal]:
        """What each stock gives in a day: every meter takes from the first one that may pay for it."""
        draws: dict[int, Decimal] = {}
        usable = [i for i, stock in enumerate(self.stocks) if self.left[i] > 0 and stock.is_usable(self.now)]
        for meter, amount in self.pace.items():
            if amount <= 0:
                continue
            first = next((i for i in usable if self.stocks[i].pays(meter)), None)
            if first is not None:
                draws[first] = draws.get(first, ZERO) + amount
                self.paid.add(meter)
            elif meter in self.paid and self.runs_out_at is None:
                self.runs_out_at = self.now
        return draws

    def _turn(self, draws: Mapping[int, Decimal], end: datetime) -> tuple[datetime, set[int]]:
        """The next instant at which something changes, and the stocks that are used up then."""
        bounds = [end]
        for stock in self.stocks:
            bounds += [at for at in (stock.usable_from, stock.usable_until) if at is not None and self.now < at < end]
        turn = min(bounds)
        span = _seconds(turn - self.now)
        lasts = {i: self.left[i] * _DAY / draw for i, draw in draws.items()}
        first = min(lasts.values(), default=span)
        if first > span:
            return turn, set()
        # Never the same instant again, however little is left.
        turn = min(turn, self.now + timedelta(microseconds=max(int(first * 1_000_000), 1)))
        return turn, {i for i, seconds in lasts.items() if seconds == first}

    def _pass(self, draws: Mapping[int, Decimal], turn: datetime, emptied: set[int]) -> None:
        span = _seconds(turn - self.now)
        for i, draw in draws.items():
            self.left[i] = ZERO if i in emptied else max(self.left[i] - draw * span / _DAY, ZERO)
        before = self._usable()  # that is, just before the turn
        self.now = turn
        for i, stock in enumerate(self.stocks):
            if stock.usable_until == turn:
                self._end(i, stock)
        if before != self._usable():
            self.path.append((turn, before))
        self._mark()

    def _end(self, i: int, stock: Stock) -> None:
        heir = self.places.get(stock.rolls_into) if stock.rolls_into is not None else None
        moved = ZERO if heir is None else min(self.left[i], stock.rollover_max)
        if heir is not None:
            self.left[heir] += moved
        self.left[i] -= moved
        if stock.id > 0:
            self.lapses[stock.id] = self.left[i]

    def _usable(self) -> Decimal:
        return total(left for stock, left in zip(self.stocks, self.left, strict=True) if stock.is_usable(self.now))

    def _mark(self) -> None:
        self.path.append((self.now, self._usable()))
