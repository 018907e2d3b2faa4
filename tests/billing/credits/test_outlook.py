"""Where credits go at a pace: corners that can be checked by hand, and rules that hold for any."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credits.outlook import Pace, Stock, outlook

AT = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
D = Decimal


def day(number):
    return AT + number * DAY


def pace(amount=10, meter="searches", days=()):
    return Pace({meter: D(amount)}, [D(each) for each in days])


def test_what_is_left_divided_by_the_pace():
    found = outlook([Stock(1, D(100), AT)], pace(), AT)
    assert found.runs_out_at == day(10)
    assert list(found.path[:2]) == [(AT, 100), (day(10), 0)]


def test_what_expires_first_is_lost_first():
    stocks = [Stock(1, D(100), AT, day(4)), Stock(2, D(50), AT)]
    found = outlook(stocks, pace(), AT)
    assert found.lapses == {1: 60}
    assert found.runs_out_at == day(9)
    assert (day(4), D(110)) in found.path
    assert (day(4), D(50)) in found.path
    assert not found.grows


def test_nothing_is_lost_of_what_is_used_up_before():
    assert outlook([Stock(1, D(30), AT, day(4))], pace(), AT).lapses == {1: 0}


def test_the_plans_next_credits_carry_on():
    stocks = [Stock(1, D(5), AT, day(1)), *(Stock(-n, D(12), day(n), day(n + 1)) for n in range(1, 20))]
    assert outlook(stocks, pace(5), AT, day(20)).runs_out_at is None
    assert outlook(stocks, pace(6), AT, day(20)).runs_out_at == AT + DAY * 5 / 6
    assert outlook(stocks, pace(5), AT, day(20)).grows


def test_what_rolls_over_is_not_lost_and_lasts():
    stocks = [Stock(1, D(30), AT, day(2), rolls_into=-1, rollover_max=D(6)), Stock(-1, D(4), day(2), day(5))]
    found = outlook(stocks, pace(5), AT, day(5))
    assert found.lapses == {1: 14}
    assert found.runs_out_at == day(4)
    assert [amount for at, amount in found.path if at == day(2)] == [20, 10]


def test_a_grant_that_begins_later_is_not_spent_before():
    found = outlook([Stock(1, D(20), AT), Stock(2, D(20), day(5))], pace(), AT)
    assert found.runs_out_at == day(2)
    assert found.path[-1][1] == 0
    assert not found.grows


def test_only_its_meters_take_from_a_grant():
    stocks = [Stock(1, D(40), AT, meters=frozenset({"a"})), Stock(2, D(30), AT)]
    found = outlook(stocks, Pace({"a": D(10), "b": D(10)}), AT)
    assert found.runs_out_at == day(3)  # the second is gone, and b finds nothing else


def test_usage_that_nothing_ever_paid_does_not_run_out():
    assert outlook([Stock(1, D(40), AT, meters=frozenset({"a"}))], pace(meter="b"), AT).runs_out_at is None


def test_steady_days_give_a_narrow_range_and_wild_ones_a_wide_one():
    stocks = [Stock(1, D(100), AT)]
    steady = outlook(stocks, pace(days=[10, 10, 10, 10, 10, 10]), AT)
    some = outlook(stocks, pace(days=[9, 11, 9, 11, 9, 11]), AT)
    wild = outlook(stocks, pace(days=[0, 60, 0, 0, 0, 0]), AT)
    assert steady.earliest == steady.runs_out_at == steady.latest
    assert day(8) < some.earliest < some.runs_out_at < some.latest < day(12)
    assert wild.earliest < some.earliest
    assert wild.latest is None


def test_too_few_days_give_no_range():
    found = outlook([Stock(1, D(100), AT)], pace(days=[10, 10]), AT)
    assert (found.earliest, found.latest) == (None, None)


STOCKS = st.lists(
    st.builds(
        lambda number, left, start, length, meters: Stock(
            number, D(left), day(start), None if length is None else day(start + length), frozenset(meters)
        ),
        st.integers(1, 10**6),
        st.integers(0, 500),
        st.integers(-3, 20),
        st.none() | st.integers(1, 30),
        st.sets(st.sampled_from("abc"), max_size=2),
    ),
    max_size=6,
    unique_by=lambda stock: stock.id,
)
PACES = st.dictionaries(st.sampled_from("abc"), st.decimals("0", "97", places=3), max_size=3)


@given(STOCKS, PACES)
def test_what_is_usable_never_grows_but_where_a_grant_begins(stocks, by_meter):
    found = outlook(stocks, Pace(by_meter), AT, day(400))
    begins = {stock.usable_from for stock in stocks}
    amounts = list(found.path)
    assert amounts[-1][0] == day(400)
    for (_, before), (at, after) in pairwise(amounts):
        assert after >= 0
        assert after <= before or at in begins


@given(STOCKS, PACES)
def test_nothing_is_lost_that_was_not_there_and_all_expiries_are_told(stocks, by_meter):
    found = outlook(stocks, Pace(by_meter), AT, day(400))
    ending = {stock.id: stock.left for stock in stocks if stock.usable_until and stock.usable_until > AT}
    assert found.lapses.keys() == ending.keys()
    assert all(0 <= lost <= ending[number] for number, lost in found.lapses.items())


@pytest.mark.parametrize("factor", [D(2), D("3.5")])
@given(STOCKS, PACES)
def test_who_uses_more_does_not_last_longer(factor, stocks, by_meter):
    every = [Stock(stock.id, stock.left, stock.usable_from, stock.usable_until) for stock in stocks]
    slow = outlook(every, Pace(by_meter), AT, day(400)).runs_out_at
    fast = outlook(every, Pace({meter: amount * factor for meter, amount in by_meter.items()}), AT, day(400))
    assert slow is None or (fast.runs_out_at is not None and fast.runs_out_at <= slow)
