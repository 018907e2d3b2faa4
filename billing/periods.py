"""Calendar arithmetic: billing periods, calendar days, weeks and months, and the buckets of a chart.

All instants are UTC, all intervals half-open. Calendars are those of an IANA zone, and every boundary lies
on a quarter hour, because counters do.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

type PeriodUnit = Literal["day", "week", "month", "year"]
type Granularity = Literal["minute", "hour", "day", "week", "month", "total"]

QUARTER: Final = timedelta(minutes=15)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """[start, end) in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def clip(self, other: "Interval") -> "Interval | None":
        """The part that both share, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Interval(start, end) if start < end else None


# --- quarter hours ----------------------------------------------------------------------------------------


def quarter_floor(instant: datetime) -> datetime:
    """The start of the instant's quarter hour, in UTC."""
    utc = instant.astimezone(UTC)
    return utc.replace(minute=utc.minute - utc.minute % 15, second=0, microsecond=0)


def minute_floor(instant: datetime) -> datetime:
    """The start of the instant's minute, in UTC."""
    return instant.astimezone(UTC).replace(second=0, microsecond=0)


def quarter_ceil(instant: datetime) -> datetime:
    """The first quarter hour that is not before the instant, in UTC."""
    floor = quarter_floor(instant)
    return floor if floor == instant else floor + QUARTER


def starts_on_quarter(instant: datetime) -> bool:
    """Whether the instant is itself a quarter hour."""
    return quarter_floor(instant) == instant


# --- local days -------------------------------------------------------------------------------------------


def local_date(instant: datetime, zone: str) -> date:
    """The date that a calendar on the wall shows at this instant."""
    return instant.astimezone(ZoneInfo(zone)).date()


def local_midnight(day: date, zone: str) -> datetime:
    """The first instant of the local day, in UTC.

    Where clocks jump over midnight (or over a whole day, as Samoa did), it is the first instant after the
    jump: before a gap Python applies the old offset, which lands exactly there.
    """
    return quarter_floor(datetime.combine(day, time(), ZoneInfo(zone)))


def calendar_period(unit: PeriodUnit, instant: datetime, zone: str) -> Interval:
    """The calendar day, week (from Monday), month or year of the zone that contains the instant."""
    day = local_date(instant, zone)
    first = {
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "year": day.replace(month=1, day=1),
    }[unit]
    found = Interval(local_midnight(first, zone), _midnight_after(first, unit, zone))
    # Clocks set back just after midnight show the old date again, although the new day has begun.
    return found if instant in found else calendar_period(unit, found.end, zone)


def _midnight_after(first: date, unit: PeriodUnit, zone: str) -> datetime:
    start = local_midnight(first, zone)
    following = _shift(first, unit)
    while (end := local_midnight(following, zone)) <= start:  # the zone skipped that day
        following = _shift(following, unit)
    return end


def _shift(first: date, unit: PeriodUnit) -> date:
    if unit in ("day", "week"):
        return first + (_DAY if unit == "day" else 7 * _DAY)
    return _clamped(_month_number(first) + (1 if unit == "month" else 12), first.day)


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _clamped(month_number: int, day: int) -> date:
    year, month = divmod(month_number, 12)
    return date(year, month + 1, min(day, monthrange(year, month + 1)[1]))


# --- billing periods --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the boundaries of a subscription's billing periods lie: at local midnights, derived from this.

    `starts_on` is the local date of the subscription's start, in the zone of its first period. Days and weeks
    are counted from it. For months and years `day` (1-31, clamped to each month's length) and `month`
    (1-12) move the boundaries; without them they follow `starts_on`. A quarter is three months.
    """

    interval: PeriodUnit
    count: int
    starts_on: date
    day: int | None = None
    month: int | None = None

    def boundary(self, index: int) -> date:
        """The local date of a boundary. Index 0 lies on or after the start; earlier ones are negative."""
        if self.interval in ("day", "week"):
            return self.starts_on + index * self._step * _DAY
        return _clamped(self._first_month() + index * self._step, self.day or self.starts_on.day)

    def index_near(self, day: date) -> int:
        """The index of a boundary within one step of the local date."""
        if self.interval in ("day", "week"):
            return (day - self.starts_on).days // self._step
        return (_month_number(day) - self._first_month()) // self._step

    @property
    def _step(self) -> int:
        return self.count * {"day": 1, "week": 7, "month": 1, "year": 12}[self.interval]

    def _first_month(self) -> int:
        """The month of one boundary: the start's own when it is its anchor day, else the next that fits."""
        own, day = _month_number(self.starts_on), self.day or self.starts_on.day
        wanted = self.month
        if self.interval == "year" and self.day is None:
            wanted = self.month or self.starts_on.month
        return next(
            number
            for number in range(own, own + 14)
            if (wanted is None or number % 12 == wanted - 1) and _clamped(number, day) >= self.starts_on
        )


def first_period(anchor: Anchor, zone: str, starts_at: datetime) -> Interval:
    """From the subscription's start to the next boundary; a whole interval from the anchor day itself."""
    return Interval(starts_at, _boundary_after(anchor, zone, starts_at))


def whole_first_period(anchor: Anchor, zone: str, starts_at: datetime) -> Interval:
    """What the first period is a part of: the interval between two boundaries; itself when it begins on a boundary's
    day, whatever the hour."""
    start = _boundary(anchor, zone, _index(anchor, zone, starts_at))
    first = first_period(anchor, zone, starts_at)
    return first if local_date(start, zone) == local_date(starts_at, zone) else Interval(start, first.end)


def next_period(anchor: Anchor, zone: str, after: datetime) -> Interval:
    """The period that starts where one ended.

    When the zone changed in between, `after` is a boundary of the old calendar and the new one's is some
    hours away: the boundary that is nearest counts as reached, so no period of a few hours arises.
    """
    index = _index(anchor, zone, after)
    below, above = _boundary(anchor, zone, index), _boundary_after(anchor, zone, after)
    reached = above if above - after < after - below else after
    return Interval(after, _boundary_after(anchor, zone, reached))


def period_containing(anchor: Anchor, zone: str, starts_at: datetime, instant: datetime) -> Interval:
    """The billing period that contains an instant, in one zone; the first one is cut at `starts_at`.

    Raises ValueError for an instant before the subscription.
    """
    if instant < starts_at:
        raise ValueError("The instant is before the subscription starts.")
    start = _boundary(anchor, zone, _index(anchor, zone, instant))
    return Interval(max(start, starts_at), _boundary_after(anchor, zone, instant))


def _boundary(anchor: Anchor, zone: str, index: int) -> datetime:
    return local_midnight(anchor.boundary(index), zone)


def _index(anchor: Anchor, zone: str, instant: datetime) -> int:
    """The greatest index whose boundary is not after the instant."""
    index = anchor.index_near(local_date(instant, zone)) + 1
    while _boundary(anchor, zone, index) > instant:
        index -= 1
    return index


def _boundary_after(anchor: Anchor, zone: str, instant: datetime) -> datetime:
    index = _index(anchor, zone, instant) + 1
    while (end := _boundary(anchor, zone, index)) <= instant:
        index += 1
    return end


# --- buckets of a series ----------------------------------------------------------------------------------


def buckets(interval: Interval, granularity: Granularity, zone: str) -> Iterator[Interval]:
    """Cut the interval at the zone's minutes, hours, days, weeks or months; `total` leaves it whole.

    The first and the last bucket are clipped to the interval, so the buckets add up to it. A day may have 23
    or 25 hours. Where an offset changes by half an hour, the change starts a new hour bucket.
    """
    start = interval.start
    while start < interval.end:
        end = min(_bucket_end(start, granularity, zone, interval.end), interval.end)
        yield Interval(start, end)
        start = end


def _bucket_end(start: datetime, granularity: Granularity, zone: str, last: datetime) -> datetime:
    if granularity == "total":
        return last
    if granularity == "minute":
        return start.replace(second=0, microsecond=0) + _MINUTE
    if granularity == "hour":
        return _hour_end(start, ZoneInfo(zone))
    return calendar_period(granularity, start, zone).end


def _hour_end(start: datetime, zone: ZoneInfo) -> datetime:
    local = start.astimezone(zone)
    end = start + _HOUR - (local - local.replace(minute=0, second=0, microsecond=0))
    if end.astimezone(zone).utcoffset() == local.utcoffset():
        return end
    quarter = quarter_floor(start) + QUARTER
    while quarter < end and quarter.astimezone(zone).utcoffset() == local.utcoffset():
        quarter += QUARTER
    return min(quarter, end)
