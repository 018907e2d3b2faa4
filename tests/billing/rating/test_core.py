"""Cumulative rating: stretches add up to the whole, for every scheme, group and order of events."""

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.money import total
from billing.pricing.schemes import Row, Terms, Tier, normalise_where
from billing.rating.core import Growth, Tally

D = Decimal


@dataclass(frozen=True)
class Counted:
    quantity: Decimal
    dimensions: dict = field(default_factory=dict)
    events: int = 1
    rank: str | None = None


def by_model(dimensions):
    return dimensions.get("model")


def grown(terms, stretches, group_of=by_model):
    tally = Tally(terms, group_of)
    return tally, [tally.grow(counted) for counted in stretches]


def by_group(growths):
    sums = defaultdict(list)
    for growth in growths:
        sums[growth.row, growth.group].append(growth.amount)
    return {key: total(amounts) for key, amounts in sums.items() if total(amounts)}


# --- what it says -------------------------------------------------------------------------------------------


def test_a_stretch_costs_the_difference_of_cumulative_amounts():
    terms = Terms("p", "USD", Row(unit_amount=D(2), included=D(10)))

    _, stretches = grown(terms, [[Counted(D(8))], [Counted(D(8))], []])

    assert stretches == [[Growth(0, None, D(8), D(0))], [Growth(0, None, D(8), D(12))], []]


def test_rows_are_rated_apart_and_only_the_default_has_the_included_quantity():
    match = (Row(unit_amount=D(5), where=normalise_where({"model": "large"})),)
    terms = Terms("p", "USD", Row(unit_amount=D(1), included=D(10)), match)

    tally, _ = grown(terms, [[Counted(D(12), {"model": "mini"}), Counted(D(3), {"model": "large"})]])

    assert {row: tally.rated(row).amount for row in tally.rows} == {0: D(2), 1: D(15)}


def test_groups_share_the_included_quantity_by_what_they_used():
    terms = Terms("p", "USD", Row(unit_amount=D(1), included=D(10)))

    _, stretches = grown(terms, [[Counted(D(10), {"model": "a"})], [Counted(D(30), {"model": "b"})]])

    assert by_group([growth for stretch in stretches for growth in stretch]) == {
        (0, "a"): D("7.5"),
        (0, "b"): D("22.5"),
    }


def test_a_fee_without_usage_belongs_to_no_group_until_there_is_usage():
    terms = Terms("p", "USD", Row("graduated", tiers=(Tier(None, D(1), flat_amount=D(9)),)))

    _, stretches = grown(terms, [[], [Counted(D(1), {"model": "a"})]])

    assert stretches == [
        [Growth(0, None, D(0), D(9))],
        [Growth(0, None, D(0), D(-9)), Growth(0, "a", D(1), D(10))],
    ]


# --- what always holds --------------------------------------------------------------------------------------

amounts = st.decimals(0, 1000, places=4)
steps = st.lists(st.tuples(st.decimals("0.5", 50, places=2), amounts, amounts), max_size=3)


def tiers_of(steps):
    bounds = [total(width for width, *_ in steps[: number + 1]) for number in range(len(steps))]
    lower = [Tier(bound, unit, flat) for bound, (_, unit, flat) in zip(bounds, steps, strict=True)]
    return (*lower, Tier(None, D("0.3"), D(1)))


rows = st.builds(
    Row,
    scheme=st.sampled_from(["per_unit", "graduated", "volume", "package", "percentage"]),
    per=st.sampled_from([D(1), D(3), D(1_000_000)]),
    unit_amount=amounts,
    tiers=steps.map(tiers_of),
    package_size=st.sampled_from([D(1), D(7)]),
    package_amount=amounts,
    rate=amounts,
    fixed_amount=amounts,
    included=st.sampled_from([D(0), D(5)]),
    maximum_amount=st.none() | amounts,
)


@st.composite
def priced(draw):
    default = draw(rows)
    large = Row("per_unit", per=default.per, where=normalise_where({"model": "a"}), unit_amount=draw(amounts))
    return Terms("p", "USD", default, (large,) if draw(st.booleans()) else ())


counted = st.builds(
    Counted,
    quantity=st.decimals(0, 100, places=3),
    dimensions=st.fixed_dictionaries({}, optional={"model": st.sampled_from("abc"), "key": st.sampled_from("xy")}),
)
usage = st.lists(st.lists(counted, max_size=4), min_size=1, max_size=6)


@given(priced(), usage)
def test_stretches_add_up_to_the_line(terms, stretches):
    tally, grown_by = grown(terms, stretches)

    for row in tally.rows:
        found = total(growth.amount for stretch in grown_by for growth in stretch if growth.row == row)
        assert found == tally.rated(row).amount
        quantities = total(growth.quantity for stretch in grown_by for growth in stretch if growth.row == row)
        assert quantities == tally.rows[row].quantity


@given(priced(), usage)
def test_a_group_costs_the_same_however_finely_time_is_cut(terms, stretches):
    _, fine = grown(terms, stretches)
    _, whole = grown(terms, [[item for stretch in stretches for item in stretch]])

    assert by_group(growth for stretch in fine for growth in stretch) == by_group(whole[0])


@given(priced(), usage, st.randoms(use_true_random=False))
def test_the_order_of_events_changes_nothing(terms, stretches, random):
    shuffled = [random.sample(stretch, len(stretch)) for stretch in stretches]

    assert [by_group(stretch) for stretch in grown(terms, stretches)[1]] == [
        by_group(stretch) for stretch in grown(terms, shuffled)[1]
    ]
