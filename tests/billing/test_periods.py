from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import (
    QUARTER,
    Anchor,
    Interval,
    buckets,
    calendar_period,
    first_period,
    local_date,
    next_period,
    period_containing,
    quarter_ceil,
    quarter_floor,
    starts_on_quarter,
)

zones = st.sampled_from(sorted(available_timezones()))
instants = st.datetimes(datetime(1980, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds are naive
quarters = instants.map(quarter_floor)
counts = st.integers(1, 5)


@st.composite
def anchors_and_starts(draw):
    zone, starts_at = draw(zones), draw(quarters)
    anchor = Anchor(
        interval=draw(st.sampled_from(["day", "week", "month", "year"])),
        count=draw(counts),
        starts_on=local_date(starts_at, zone),
        day=draw(st.none() | st.integers(1, 31)),
        month=draw(st.none() | st.integers(1, 12)),
    )
    return anchor, zone, starts_at


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def starts(anchor, zone, starts_at, count):
    """The local dates on which the first `count` periods end."""
    period, ends = first_period(anchor, zone, starts_at), []
    for _ in range(count):
        ends.append(local_date(period.end, zone).isoformat())
        period = next_period(anchor, zone, period.end)
    return ends


def test_an_instant_belongs_to_the_quarter_hour_that_it_starts():
    assert quarter_floor(utc(2026, 1, 1, 10, 14, 59, 999)) == utc(2026, 1, 1, 10)
    assert quarter_ceil(utc(2026, 1, 1, 10, 0, 0, 1)) == utc(2026, 1, 1, 10, 15)
    assert quarter_ceil(utc(2026, 1, 1, 10, 15)) == utc(2026, 1, 1, 10, 15)
    assert not starts_on_quarter(utc(2026, 1, 1, 10, 15, 1))


@given(instants)
def test_rounding_moves_by_less_than_a_quarter_hour(instant):
    assert quarter_floor(instant) <= instant <= quarter_ceil(instant)
    assert quarter_ceil(instant) - quarter_floor(instant) in (timedelta(0), QUARTER)


def test_the_31st_is_clamped_and_derived_from_the_anchor_each_time():
    anchor = Anchor("month", 1, date(2026, 1, 31))

    assert starts(anchor, "Europe/Berlin", utc(2026, 1, 30, 23), 5) == [
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
        "2026-05-31",
        "2026-06-30",
    ]


def test_the_first_period_ends_at_the_next_anchor_day():
    anchor = Anchor("month", 1, date(2026, 1, 10), day=15)

    assert first_period(anchor, "UTC", utc(2026, 1, 10, 12)) == Interval(utc(2026, 1, 10, 12), utc(2026, 1, 15))
    assert starts(anchor, "UTC", utc(2026, 1, 10, 12), 3) == ["2026-01-15", "2026-02-15", "2026-03-15"]


def test_a_subscription_that_starts_on_its_anchor_day_gets_a_full_interval():
    anchor = Anchor("month", 1, date(2026, 1, 15), day=15)

    assert first_period(anchor, "UTC", utc(2026, 1, 15, 12)).end == utc(2026, 2, 15)


@pytest.mark.parametrize(
    ("anchor", "ends"),
    [
        (Anchor("day", 1, date(2026, 2, 10)), ["2026-02-11", "2026-02-12"]),
        (Anchor("week", 2, date(2026, 2, 10)), ["2026-02-24", "2026-03-10"]),
        (Anchor("month", 3, date(2026, 2, 10)), ["2026-05-10", "2026-08-10"]),
        (Anchor("month", 3, date(2026, 2, 10), day=1), ["2026-03-01", "2026-06-01"]),
        (Anchor("month", 3, date(2026, 2, 10), day=1, month=1), ["2026-04-01", "2026-07-01"]),
        (Anchor("year", 1, date(2026, 2, 10)), ["2027-02-10", "2028-02-10"]),
        (Anchor("year", 1, date(2026, 2, 10), day=1, month=1), ["2027-01-01", "2028-01-01"]),
        (Anchor("year", 1, date(2024, 2, 29)), ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
    ],
)
def test_boundaries_follow_interval_count_and_anchor(anchor, ends):
    assert starts(anchor, "UTC", datetime.combine(anchor.starts_on, datetime.min.time(), UTC), len(ends)) == ends


def test_periods_follow_the_local_midnight_across_daylight_saving():
    anchor = Anchor("month", 1, date(2026, 3, 1))

    march = first_period(anchor, "Europe/Berlin", utc(2026, 2, 28, 23))

    assert march.end == utc(2026, 3, 31, 22)
    assert march.duration == timedelta(days=31, hours=-1)


def test_a_new_zone_makes_no_period_of_a_few_hours():
    anchor = Anchor("month", 1, date(2026, 1, 1))
    end_in_berlin = utc(2026, 1, 31, 23)

    assert next_period(anchor, "America/New_York", end_in_berlin) == Interval(end_in_berlin, utc(2026, 3, 1, 5))
    assert next_period(anchor, "Asia/Tokyo", end_in_berlin) == Interval(end_in_berlin, utc(2026, 2, 28, 15))


@given(anchors_and_starts())
def test_billing_periods_are_contiguous_and_on_quarter_hours(case):
    anchor, zone, starts_at = case
    period = first_period(anchor, zone, starts_at)

    for _ in range(14):
        assert period.start < period.end
        assert starts_on_quarter(period.end)
        following = next_period(anchor, zone, period.end)
        assert following.start == period.end
        for instant in (period.start, period.end - timedelta(microseconds=1)):
            assert period_containing(anchor, zone, starts_at, instant) == period
        period = following


@given(anchors_and_starts())
def test_the_first_period_is_at_most_one_interval_long(case):
    anchor, zone, starts_at = case
    longest = {"day": 1, "week": 7, "month": 31, "year": 366}[anchor.interval] * anchor.count

    first = first_period(anchor, zone, starts_at)

    # Samoa and Kwajalein skipped a whole day; clocks are put back by up to two hours.
    assert timedelta(0) < first.duration <= timedelta(days=longest + 1, hours=2)


@given(anchors_and_starts(), zones)
def test_a_change_of_zone_leaves_no_gap_and_keeps_the_rhythm(case, new_zone):
    anchor, zone, starts_at = case
    ended = first_period(anchor, zone, starts_at).end

    following = next_period(anchor, new_zone, ended)

    assert following.start == ended
    assert starts_on_quarter(following.end)
    assert following.duration >= timedelta(hours=10)


def test_before_the_subscription_there_is_no_period():
    with pytest.raises(ValueError, match="before the subscription"):
        period_containing(Anchor("month", 1, date(2026, 1, 1)), "UTC", utc(2026, 1, 1), utc(2025, 12, 31))


@given(st.sampled_from(["day", "week", "month", "year"]), instants, zones)
def test_calendar_periods_contain_their_instant_and_follow_each_other(unit, instant, zone):
    period = calendar_period(unit, instant, zone)
    following = calendar_period(unit, period.end, zone)

    assert instant in period
    assert following.start == period.end
    assert starts_on_quarter(period.start)
    assert starts_on_quarter(period.end)
    assert calendar_period(unit, period.end - timedelta(microseconds=1), zone) == period


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", utc(2026, 3, 8, 12), 23),
        ("America/New_York", utc(2026, 11, 1, 12), 25),
        ("Europe/Berlin", utc(2026, 3, 29, 12), 23),
        ("America/Sao_Paulo", utc(2018, 11, 4, 12), 23),  # there was no midnight
        ("America/Havana", utc(2026, 11, 1, 12), 25),  # midnight came twice
        ("Australia/Lord_Howe", utc(2026, 10, 3, 20), 23.5),
    ],
)
def test_days_may_be_shorter_or_longer(zone, day, hours):
    assert calendar_period("day", day, zone).duration == timedelta(hours=hours)


def test_weeks_start_on_monday():
    assert calendar_period("week", utc(2026, 11, 22, 12), "UTC") == Interval(utc(2026, 11, 16), utc(2026, 11, 23))


def test_hours_are_those_of_the_zone():
    around = Interval(utc(2026, 1, 1, 0, 15), utc(2026, 1, 1, 2))

    assert [cell.start for cell in buckets(around, "hour", "Asia/Kathmandu")] == [
        utc(2026, 1, 1, 0, 15),
        utc(2026, 1, 1, 1, 15),
    ]
    assert [cell.start for cell in buckets(around, "hour", "Asia/Kolkata")] == [
        utc(2026, 1, 1, 0, 15),
        utc(2026, 1, 1, 0, 30),
        utc(2026, 1, 1, 1, 30),
    ]


def test_a_change_of_half_an_hour_starts_a_new_hour():
    night = Interval(utc(2026, 4, 4, 14), utc(2026, 4, 4, 16, 30))  # Lord Howe turns 02:00 back to 01:30

    assert [cell.duration for cell in buckets(night, "hour", "Australia/Lord_Howe")] == [
        timedelta(hours=1),
        timedelta(minutes=30),
        timedelta(hours=1),
    ]


def test_a_day_of_23_hours_has_23_hour_buckets():
    day = calendar_period("day", utc(2026, 3, 29, 12), "Europe/Berlin")

    assert len(list(buckets(day, "hour", "Europe/Berlin"))) == 23


def test_the_total_is_one_bucket_and_an_empty_interval_has_none():
    interval = Interval(utc(2026, 1, 1), utc(2026, 1, 2))

    assert list(buckets(interval, "total", "UTC")) == [interval]
    assert list(buckets(Interval(interval.start, interval.start), "day", "UTC")) == []


@given(
    st.sampled_from(["minute", "hour", "day", "week", "month", "total"]),
    quarters,
    st.integers(1, 400),
    zones,
)
def test_buckets_tile_the_interval(granularity, start, length, zone):
    interval = Interval(start, start + length * QUARTER)

    cells = list(buckets(interval, granularity, zone))

    assert cells[0].start == interval.start
    assert cells[-1].end == interval.end
    assert all(before.end == after.start for before, after in pairwise(cells))
    assert all(cell.start < cell.end for cell in cells)
    if granularity != "minute":
        assert all(starts_on_quarter(cell.start) for cell in cells)


def test_buckets_are_made_one_by_one():
    century = Interval(utc(1980, 1, 1), utc(2080, 1, 1))

    assert len(list(islice(buckets(century, "minute", "UTC"), 10))) == 10


def test_intervals_are_half_open():
    interval = Interval(utc(2026, 1, 1), utc(2026, 1, 2))

    assert utc(2026, 1, 1) in interval
    assert utc(2026, 1, 2) not in interval
    assert interval.clip(Interval(utc(2026, 1, 2), utc(2026, 1, 3))) is None
    assert interval.clip(Interval(utc(2025, 1, 1), utc(2026, 1, 1, 12))) == Interval(
        utc(2026, 1, 1), utc(2026, 1, 1, 12)
    )
