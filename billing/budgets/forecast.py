"""Where a period will end: a small forecast that says how it was made and how far it may be off.

Expected = spent so far + for each remaining hour the median of the same weekday's hour over four weeks,
scaled by how the last three days compare with the same days a week before. The range is what the same method
would have been wrong by at this point of earlier weeks. With less than three days of data there is no number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from statistics import median, quantiles
from typing import Final

from billing.money import ZERO, exact, quantise, total
from billing.periods import Interval

type Hourly = Mapping[datetime, Decimal]

_TICK: Final = timedelta(microseconds=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(weeks=1)
_RECENT: Final = timedelta(days=3)
_ENOUGH: Final = timedelta(days=3)
_ONE: Final = Decimal(1)
_SCALE: Final = (Decimal("0.5"), Decimal(2))
_DEFAULT_RATIOS: Final = (Decimal("0.7"), Decimal("1.3"))
_REPLAYS: Final = 8
_FEWEST_REPLAYS: Final = 4


@dataclass(frozen=True, slots=True)
class Forecast:
    """The expected total of the period with its 80 % range; all three are None without enough data.

    `path` is the expected cumulative amount at the end of each remaining hour.
    """

    spent: Decimal
    as_of: datetime
    expected: Decimal | None
    low: Decimal | None
    high: Decimal | None
    method: str
    path: tuple[tuple[datetime, Decimal], ...] = ()

    @property
    def enough_data(self) -> bool:
        return self.expected is not None

    def crosses_at(self, limit: Decimal) -> datetime | None:
        """When the expected path reaches the limit, to the hour; `as_of` if it has; None if not in the period."""
        if self.spent >= limit:
            return self.as_of
        return next((at for at, amount in self.path if amount >= limit), None)


@exact()
def forecast(*, spent: Decimal, hourly: Hourly, period: Interval, now: datetime) -> Forecast:
    """Forecast the total of an open period.

    `spent` is the exact amount from the period's start to `now`. `hourly` holds amounts by the UTC hour in
    which they were used, over the last twelve weeks as far as there are any; an hour that is missing after the
    first one counts as zero, and the hour that contains `now` is not looked at.
    """
    first = min(hourly, default=now)
    if now - first < _ENOUGH:
        return Forecast(spent, now, None, None, None, "Not enough data yet: it takes three days of usage.")
    past = _Past(hourly, first, _hour(now))
    path, reached = [], spent
    for at, amount in past.project(Interval(now, max(period.end, now))):
        reached = quantise(reached + amount)
        path.append((at, reached))
    rest = reached - spent
    ratios = past.ratios(now, period.end)
    low, high = _range(ratios)
    return Forecast(
        spent=spent,
        as_of=now,
        expected=reached,
        low=quantise(spent + rest * min(low, _ONE)),
        high=quantise(spent + rest * max(high, _ONE)),
        method=_method(past.scale(), len(ratios)),
        path=tuple(path),
    )


@dataclass(frozen=True, slots=True)
class _Past:
    """What was known at `until`, the start of an hour: full hours from `first` on."""

    hourly: Hourly
    first: datetime
    until: datetime

    def project(self, ahead: Interval) -> Iterator[tuple[datetime, Decimal]]:
        """(end of hour, expected amount) for each hour of the interval, the broken ones in proportion."""
        typical, scale = cache(self.typical), self.scale()
        for hour, end, share in _hours(ahead):
            yield end, typical((hour - self.until) % _WEEK) * scale * share

    def typical(self, offset: timedelta) -> Decimal:
        """The median of the same weekday's hour over four weeks; of the same hour of the day until there is one."""
        weekly = [self.until + offset - _WEEK * back for back in range(1, 5)]
        daily = [self.until + offset % _DAY - _DAY * back for back in range(1, 8)]
        known = [hour for hour in weekly if hour >= self.first] or [hour for hour in daily if hour >= self.first]
        return median(self.hourly.get(hour, ZERO) for hour in known)

    def scale(self) -> Decimal:
        """The last three days over the same days a week before, between a half and two."""
        if self.until - _WEEK - _RECENT < self.first:
            return _ONE
        before = self.sum(Interval(self.until - _WEEK - _RECENT, self.until - _WEEK))
        recent = self.sum(Interval(self.until - _RECENT, self.until))
        return min(max(recent / before, _SCALE[0]), _SCALE[1]) if before > 0 else _ONE

    def sum(self, interval: Interval) -> Decimal:
        return total(self.hourly.get(hour, ZERO) * share for hour, _, share in _hours(interval))

    def ratios(self, now: datetime, end: datetime) -> list[Decimal]:
        """True / projected amount of as long a rest, as seen from this point of the weeks before."""
        found = []
        for weeks in range(1, _REPLAYS + 1):
            back = _WEEK * weeks
            then = _Past(self.hourly, self.first, self.until - back)
            rest = Interval(now - back, end - back)
            if rest.end > self.until or rest.start - _ENOUGH < self.first:
                continue
            projected = total(amount for _, amount in then.project(rest))
            if projected > 0:
                found.append(self.sum(rest) / projected)
        return found


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


def _hours(interval: Interval) -> Iterator[tuple[datetime, datetime, Decimal]]:
    """(UTC hour, end of its part in the interval, share of the hour) for each hour that the interval touches."""
    start = interval.start
    while start < interval.end:
        hour = _hour(start)
        end = min(hour + _HOUR, interval.end)
        yield hour, end, _ONE if end - start == _HOUR else Decimal((end - start) // _TICK) / (_HOUR // _TICK)
        start = end


def _range(ratios: list[Decimal]) -> tuple[Decimal, Decimal]:
    if len(ratios) < _FEWEST_REPLAYS:
        return _DEFAULT_RATIOS
    tenths = quantiles(ratios, n=10)
    return max(tenths[0], ZERO), tenths[-1]


def _method(scale: Decimal, replays: int) -> str:
    usual = f"Usual amount of each hour over four weeks x {scale:.2f} (last three days against a week before)"
    if replays < _FEWEST_REPLAYS:
        return f"{usual}; range +-30 % of the rest, for want of earlier weeks."
    return f"{usual}; range from {replays} earlier weeks."
