from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credits.allocation import Cell, Grant, allocate, burn_order, cuts
from billing.periods import QUARTER, Interval
from billing.rating.core import LineKey, Segment

D = Decimal
START = datetime(2026, 11, 1, tzinfo=UTC)
CALLS = LineKey((1, 0), "credits", "calls")
TOKENS = LineKey((2, 0), "credits", "tokens")
DOLLARS = LineKey((3, 0), "USD", "tokens")


def day(number):
    return START + timedelta(days=number)


def grant(id, amount, **changes):
    defaults = {"unit": "credits", "kind": "promotional", "priority": 50, "effective_at": START}
    return Grant(id=id, amount=D(amount), **defaults | changes)


def segment(first, last, **amounts):
    lines = {"calls": CALLS, "tokens": TOKENS, "dollars": DOLLARS}
    return Segment(day(first), day(last), {lines[name]: D(amount) for name, amount in amounts.items()})


def booked(segments, grants):
    """Per day of the segment's start: [(line's meter or unit, grant, amount)], easy to read."""
    return {
        (cell.line.meter, (cell.segment_starts_at - START).days, cell.grant): amount
        for cell, amount in allocate(segments, grants).items()
    }


# --- burn order ---------------------------------------------------------------------------------------------


def test_grants_burn_by_priority_expiry_kind_effective_time_and_id():
    expected = [
        grant(9, 1, priority=10, kind="paid"),
        grant(8, 1, expires_at=day(5), kind="paid"),
        grant(7, 1, expires_at=day(9), kind="promotional"),
        grant(6, 1, expires_at=day(9), kind="plan"),
        grant(5, 1, expires_at=day(9), kind="paid"),
        grant(4, 1),
        grant(2, 1, effective_at=day(1)),
        grant(3, 1, effective_at=day(1)),
    ]

    assert burn_order(reversed(expected)) == expected


def test_of_grants_that_never_expire_a_promotion_is_spent_before_older_paid_ones():
    older, promotion = grant(1, 1, kind="paid"), grant(2, 1, kind="promotional", effective_at=day(5))
    assert burn_order([older, promotion]) == [promotion, older]


def test_the_first_grant_pays_until_it_is_empty_and_overage_pays_the_rest():
    assert booked([segment(0, 30, calls=25)], [grant(1, 10), grant(2, 12)]) == {
        ("calls", 0, 1): 10,
        ("calls", 0, 2): 12,
        ("calls", 0, None): 3,
    }


def test_without_grants_everything_is_overage():
    assert booked([segment(0, 30, calls=25)], []) == {("calls", 0, None): 25}


def test_a_line_of_nothing_has_no_cell():
    assert booked([segment(0, 30, calls=0)], [grant(1, 10)]) == {}


def test_lines_are_served_in_the_order_of_their_ids():
    assert booked([segment(0, 30, tokens=10, calls=10)], [grant(1, 15)]) == {
        ("calls", 0, 1): 10,
        ("tokens", 0, 1): 5,
        ("tokens", 0, None): 5,
    }


def test_units_never_mix():
    assert booked([segment(0, 30, dollars=5)], [grant(1, 10)]) == {("tokens", 0, None): 5}
    assert booked([segment(0, 30, dollars=5)], [grant(1, 10, unit="USD")]) == {("tokens", 0, 1): 5}


def test_a_scoped_grant_pays_its_meters_only():
    scoped = grant(1, 100, meters=frozenset({"tokens"}))

    assert booked([segment(0, 30, calls=5, tokens=5)], [scoped]) == {("calls", 0, None): 5, ("tokens", 0, 1): 5}


# --- windows ------------------------------------------------------------------------------------------------


def test_a_grant_pays_from_its_start_until_it_ends():
    window = grant(1, 100, effective_at=day(10), expires_at=day(20))
    segments = [segment(0, 10, calls=1), segment(10, 20, calls=2), segment(20, 30, calls=4)]

    assert booked(segments, [window]) == {("calls", 0, None): 1, ("calls", 10, 1): 2, ("calls", 20, None): 4}


def test_a_voided_grant_keeps_what_it_paid_before():
    segments = [segment(0, 10, calls=1), segment(10, 30, calls=2)]

    assert booked(segments, [grant(1, 100, voided_at=day(10))]) == {("calls", 0, 1): 1, ("calls", 10, None): 2}


def test_a_grant_that_was_voided_before_it_began_pays_nothing():
    never = grant(1, 100, effective_at=day(5), voided_at=day(2))

    assert booked([segment(0, 30, calls=1)], [never]) == {("calls", 0, None): 1}


def test_a_segment_that_a_grant_begins_or_ends_in_is_refused():
    for inside in (grant(1, 1, effective_at=day(3)), grant(1, 1, expires_at=day(3))):
        with pytest.raises(ValueError, match="cut the segment there"):
            allocate([segment(0, 30, calls=1)], [inside])


def test_overlapping_segments_are_refused_and_equal_ones_add_up():
    with pytest.raises(ValueError, match="overlap"):
        allocate([segment(0, 10, calls=1), segment(5, 15, tokens=1)], [])

    assert booked([segment(0, 10, calls=1), segment(0, 10, calls=2, tokens=1)], []) == {
        ("calls", 0, None): 3,
        ("tokens", 0, None): 1,
    }


def test_a_period_is_cut_where_grants_begin_and_end():
    grants = [
        grant(1, 1, effective_at=day(-3), expires_at=day(12)),
        grant(2, 1, effective_at=day(5), expires_at=day(40), voided_at=day(20)),
    ]

    pieces = cuts(Interval(day(0), day(30)), grants, at=[day(7), day(60)])

    assert [piece.start for piece in pieces] == [day(0), day(5), day(7), day(12), day(20)]
    assert pieces[-1].end == day(30)
    assert cuts(Interval(day(0), day(30)), []) == [Interval(day(0), day(30))]


# --- amounts that go back -----------------------------------------------------------------------------------


def test_a_negative_amount_goes_back_where_the_latest_came_from():
    segments = [segment(0, 10, calls=25), segment(10, 20, calls=-8), segment(20, 30, calls=6)]

    assert booked(segments, [grant(1, 10), grant(2, 12)]) == {
        ("calls", 0, 1): 10,
        ("calls", 0, 2): 12,
        ("calls", 0, None): 3,
        ("calls", 10, None): -3,
        ("calls", 10, 2): -5,
        ("calls", 20, 2): 5,
        ("calls", 20, None): 1,
    }


def test_what_goes_back_can_be_used_in_the_same_segment():
    segments = [segment(0, 10, tokens=10), segment(10, 20, calls=4, tokens=-4)]

    assert booked(segments, [grant(1, 10)]) == {("tokens", 0, 1): 10, ("tokens", 10, 1): -4, ("calls", 10, 1): 4}


def test_what_goes_back_to_an_ended_grant_is_not_used_again():
    segments = [segment(0, 10, calls=10), segment(10, 20, calls=-4, tokens=4)]

    assert booked(segments, [grant(1, 10, expires_at=day(10))]) == {
        ("calls", 0, 1): 10,
        ("calls", 10, 1): -4,
        ("tokens", 10, None): 4,
    }


# --- properties ---------------------------------------------------------------------------------------------

LINES = [CALLS, TOKENS, DOLLARS, LineKey((4, 0), "USD", "calls")]
amounts = st.integers(0, 4000).map(lambda tenths: D(tenths) / 10)
hours = st.integers(0, 20).map(lambda n: START + n * QUARTER)


@st.composite
def grant_lists(draw, scoped=True):
    return [
        Grant(
            id=number,
            unit=draw(st.sampled_from(["credits", "USD"])),
            amount=draw(amounts),
            kind=draw(st.sampled_from(["promotional", "plan", "paid"])),
            priority=draw(st.sampled_from([10, 50])),
            effective_at=draw(hours),
            expires_at=draw(st.none() | hours),
            voided_at=draw(st.none() | hours),
            meters=draw(st.sampled_from([frozenset(), frozenset({"calls"})])) if scoped else frozenset(),
        )
        for number in range(draw(st.integers(0, 5)))
    ]


@st.composite
def books(draw, *, negative=False, scoped=True):
    """Grants, and cumulative line amounts cut into segments, as rating hands them over."""
    grants = draw(grant_lists(scoped))
    period = Interval(START, START + 20 * QUARTER)
    pieces = cuts(period, grants, at=draw(st.lists(hours, max_size=3)))
    segments, before = [], dict.fromkeys(LINES, D(0))
    for piece in pieces:
        reached = {line: draw(amounts) + (0 if negative else before[line]) for line in LINES}
        growth = {line: reached[line] - before[line] for line in LINES}
        segments.append(Segment(piece.start, piece.end, growth))
        before = reached
    return segments, grants


def by_grant(cells):
    sums = defaultdict(D)
    for cell, amount in cells.items():
        sums[cell.grant] += amount
    return sums


@given(books(negative=True))
def test_every_line_of_every_segment_is_booked_exactly(case):
    segments, grants = case
    sums = defaultdict(D)
    for cell, amount in allocate(segments, grants).items():
        sums[cell.line, cell.segment_starts_at] += amount

    assert all(sums[line, piece.starts_at] == piece.amounts[line] for piece in segments for line in LINES)


@given(books(negative=True))
def test_no_grant_is_overspent_or_below_zero_at_any_time(case):
    segments, grants = case
    cells = allocate(segments, grants)

    for some in grants:
        used = D(0)
        for piece in segments:
            used += sum((cells.get(Cell(line, piece.starts_at, some.id), D(0)) for line in LINES), D(0))
            assert 0 <= used <= some.amount


@given(books(negative=True))
def test_overage_of_a_line_is_never_negative_in_total(case):
    segments, grants = case
    overage = defaultdict(D)
    for cell, amount in allocate(segments, grants).items():
        if cell.grant is None:
            overage[cell.line] += amount

    assert all(amount >= 0 for amount in overage.values())


@given(books(negative=True))
def test_a_grant_pays_only_its_unit_its_meters_and_inside_its_window(case):
    segments, grants = case
    known = {some.id: some for some in grants}

    for cell, amount in allocate(segments, grants).items():
        if cell.grant is None:
            continue
        some = known[cell.grant]
        assert some.pays(cell.line)
        if amount > 0:
            assert some.effective_at <= cell.segment_starts_at
            assert some.usable_until is None or cell.segment_starts_at < some.usable_until


@given(books())
def test_a_later_grant_or_overage_is_touched_only_when_the_earlier_are_empty(case):
    segments, grants = case
    cells = allocate(segments, grants)
    order = burn_order(grants)

    for piece in segments:
        used = by_grant({cell: part for cell, part in cells.items() if cell.segment_starts_at <= piece.starts_at})
        for cell in cells:
            if cell.segment_starts_at != piece.starts_at:
                continue
            for earlier in order:
                if earlier.id == cell.grant:
                    break
                if earlier.usable_in(piece) and earlier.pays(cell.line):
                    assert used[earlier.id] == earlier.amount


@given(books(scoped=False), st.integers(1, 9))
def test_cutting_segments_further_moves_nothing_between_grants(case, tenths):
    segments, grants = case
    finer = []
    for piece in segments:
        middle = piece.starts_at + (piece.ends_at - piece.starts_at) / 2
        early = {line: amount * tenths / 10 for line, amount in piece.amounts.items()}
        late = {line: amount - early[line] for line, amount in piece.amounts.items()}
        finer += [Segment(piece.starts_at, middle, early), Segment(middle, piece.ends_at, late)]

    assert by_grant(allocate(finer, grants)) == by_grant(allocate(segments, grants))


@given(books(negative=True), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(case, random):
    segments, grants = case
    shuffled = [
        Segment(piece.starts_at, piece.ends_at, dict(random.sample(list(piece.amounts.items()), len(LINES))))
        for piece in random.sample(segments, len(segments))
    ]

    assert allocate(shuffled, random.sample(grants, len(grants))) == allocate(segments, grants)
