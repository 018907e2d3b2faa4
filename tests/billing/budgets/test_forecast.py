import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.budgets.forecast import forecast
from billing.periods import Interval

D = Decimal
START = datetime(2026, 8, 3, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)


def at(days, hours=0):
    return START + timedelta(days=days, hours=hours)


def steady(days, amount=1):
    return {at(0, hour): D(amount) for hour in range(days * 24)}


def test_fewer_than_three_days_give_no_number():
    found = forecast(spent=D(71), hourly=steady(3), period=Interval(START, at(30)), now=at(2, 23))

    assert (found.enough_data, found.expected, found.low, found.high) == (False, None, None, None)
    assert "Not enough data" in found.method


def test_no_usage_gives_no_number():
    assert not forecast(spent=D(0), hourly={}, period=Interval(START, at(30)), now=at(20)).enough_data


def test_steady_use_goes_on_with_a_range_of_thirty_percent_of_the_rest():
    found = forecast(spent=D(72), hourly=steady(3), period=Interval(START, at(30)), now=at(3))

    assert found.expected == 720
    assert (found.low, found.high) == (D(72) + D("453.6"), D(72) + D("842.4"))
    assert "+-30 %" in found.method


def test_weekends_are_expected_to_be_weekends():
    hourly = {at(day, hour): D(0 if day % 7 > 4 else 2) for day in range(14) for hour in range(24)}

    found = forecast(spent=D(0), hourly=hourly, period=Interval(at(14), at(21)), now=at(14))

    assert found.expected == 5 * 24 * 2


def test_an_hour_without_usage_counts_as_zero():
    hourly = {at(0, hour): D(1) for hour in range(0, 28 * 24, 24)}

    assert forecast(spent=D(0), hourly=hourly, period=Interval(at(28), at(35)), now=at(28)).expected == 7


@pytest.mark.parametrize(("factor", "scale"), [("1.5", "1.5"), ("9", "2"), ("0.1", "0.5")])
def test_the_last_three_days_scale_the_rest_within_limits(factor, scale):
    hourly = {at(day, hour): D(1) * (D(factor) if day >= 25 else 1) for day in range(28) for hour in range(24)}

    found = forecast(spent=D(0), hourly=hourly, period=Interval(at(28), at(30)), now=at(28))

    assert found.expected == 48 * D(scale)


def test_broken_hours_count_in_proportion():
    now = at(7) + timedelta(minutes=45)

    found = forecast(spent=D(0), hourly=steady(7, 4), period=Interval(at(7), at(7, 2)), now=now)

    assert found.expected == 5


def test_the_limit_is_crossed_in_the_hour_in_which_the_path_reaches_it():
    found = forecast(spent=D(72), hourly=steady(3), period=Interval(START, at(30)), now=at(3))

    assert found.crosses_at(D(100)) == at(3, 28)
    assert found.crosses_at(D(720)) == at(30)
    assert found.crosses_at(D(721)) is None
    assert found.crosses_at(D(72)) == at(3)


def test_a_period_that_has_ended_is_what_it_came_to():
    found = forecast(spent=D(72), hourly=steady(3), period=Interval(START, at(3)), now=at(3))

    assert (found.low, found.expected, found.high) == (72, 72, 72)


@given(
    st.lists(st.decimals(0, 1000, places=6), min_size=80, max_size=400),
    st.integers(80, 2000),
    st.decimals(0, 10**6, places=12),
)
def test_the_expected_total_lies_in_its_range_and_above_what_was_spent(amounts, hours, spent):
    hourly = {at(0, hour): amount for hour, amount in enumerate(amounts)}

    found = forecast(spent=spent, hourly=hourly, period=Interval(START, at(0, hours)), now=at(0, len(amounts)))

    assert spent <= found.low <= found.expected <= found.high


def account(seed):
    """Fourteen weeks of a made-up customer: its own size, week, day, noise and drift."""
    made = random.Random(seed)
    size, noise, drift = made.lognormvariate(2, 1), made.uniform(0.1, 0.8), made.uniform(-0.003, 0.006)
    week, day = [made.uniform(0.3, 1.2) for _ in range(7)], [made.uniform(0.2, 1.5) for _ in range(24)]
    trend, hourly = 1.0, {}
    for number in range(14 * 7):
        trend *= 1 + drift + made.gauss(0, 0.03)
        for hour in range(24):
            amount = size * trend * week[number % 7] * day[hour] * made.lognormvariate(0, noise)
            hourly[at(number, hour)] = D(str(round(amount, 6)))
    return hourly


def test_the_range_holds_the_truth_in_seven_to_nine_of_ten_accounts():
    now, end = at(77, 10), at(87, 10)
    held = 0
    for seed in range(200):
        hourly = account(seed)
        known = {hour: amount for hour, amount in hourly.items() if hour < now}
        found = forecast(spent=D(0), hourly=known, period=Interval(at(70), end), now=now)
        held += found.low <= sum(amount for hour, amount in hourly.items() if now <= hour < end) <= found.high

    assert 140 <= held <= 180
