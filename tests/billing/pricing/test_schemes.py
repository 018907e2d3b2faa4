from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import money
from billing.pricing.schemes import (
    Row,
    Terms,
    Tier,
    Usage,
    normalise_where,
    rate,
    rate_row,
    select_row,
    simulate,
    split,
    with_minimum,
)

D = Decimal
LARGE = {"model": frozenset({"large-2"})}


def amount(row, quantity, events=0):
    return money.plain(rate_row(row, D(quantity), events).amount)


def tiers(*tiers):
    return tuple(Tier(None if up_to is None else D(up_to), D(unit), D(flat)) for up_to, unit, flat in tiers)


GRADUATED = Row("graduated", tiers=tiers((10, "1.5", 0), (110, 1, 0), (None, "0.5", 0)))
VOLUME = Row("volume", tiers=tiers((10, "1.5", 0), (110, 1, 0), (None, "0.5", 0)))


# --- per unit -----------------------------------------------------------------------------------------------


def test_a_price_per_million_is_multiplied_first_and_divided_last():
    row = Row(per=D(1_000_000), unit_amount=D("2.5"))

    rated = rate_row(row, D(1200))

    assert money.plain(rated.amount) == "0.003"
    assert rated.explanation == "1,200 / 1,000,000 x 2.5"


def test_included_quantity_is_free():
    row = Row(unit_amount=D("0.02"), included=D(1000))

    assert amount(row, 999) == "0"
    assert amount(row, 1000) == "0"
    assert amount(row, 1500) == "10"
    assert rate_row(row, D(1500)).explanation == "(1,500 - 1,000 included) x 0.02"
    assert rate_row(row, D(5)).explanation == "(5 - 5 included) x 0.02"


def test_the_smallest_amounts_are_kept_to_twelve_places_half_up():
    assert amount(Row(per=D(3), unit_amount=D(1)), 1) == "0.333333333333"
    assert amount(Row(per=D(3), unit_amount=D(2)), 1) == "0.666666666667"


def test_the_largest_quantity_keeps_every_digit():
    assert amount(Row(unit_amount=D("0.000000000001")), "999999999999999999.999999999999") == "1000000"
    assert amount(Row(unit_amount=D(3)), "333333333333333333.333333333333") == "999999999999999999.999999999999"


def test_a_negative_quantity_is_refused():
    with pytest.raises(ValueError, match="cannot be negative"):
        rate_row(Row(), D(-1))


# --- tiers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "graduated", "volume"),
    [
        ("0", "0", "0"),
        ("10", "15", "15"),
        ("10.5", "15.5", "10.5"),
        ("110", "115", "110"),
        ("110.000001", "115.0000005", "55.0000005"),
        ("111", "115.5", "55.5"),
    ],
)
def test_a_tier_includes_its_bound_and_a_little_more_is_the_next(quantity, graduated, volume):
    assert amount(GRADUATED, quantity) == graduated
    assert amount(VOLUME, quantity) == volume


def test_a_graduated_amount_explains_itself():
    rated = rate_row(GRADUATED, D(111))

    assert rated.explanation == "10 x 1.5 + 100 x 1 + 1 x 0.5"
    assert [(part.tier, part.quantity, part.amount) for part in rated.breakdown] == [
        (1, 10, 15),
        (2, 100, 100),
        (3, 1, D("0.5")),
    ]


def test_a_flat_amount_is_due_when_its_tier_is_entered():
    row = Row("graduated", tiers=tiers((10, 0, 5), (None, 0, 7)))

    assert [amount(row, quantity) for quantity in ("0", "10", "10.1")] == ["5", "5", "12"]
    assert rate_row(row, D(11)).explanation == "10 x 0 + 5 flat + 1 x 0 + 7 flat"


def test_a_match_row_owes_its_first_flat_amount_only_with_usage():
    for scheme in ("graduated", "volume"):
        row = Row(scheme, where=LARGE, tiers=tiers((None, 0, 5)), included=D(10))
        assert [amount(row, quantity) for quantity in ("0", "1", "20")] == ["0", "5", "5"]


def test_a_volume_price_charges_the_whole_quantity_in_its_last_tier():
    row = Row("volume", tiers=tiers((10, 2, 1), (None, 1, 3)))

    assert amount(row, 10) == "21"
    assert rate_row(row, D(11)).explanation == "11 x 1 + 3 flat"


def test_included_quantity_comes_before_the_first_tier():
    row = Row("graduated", included=D(100), tiers=GRADUATED.tiers)

    assert amount(row, 211) == "115.5"
    assert rate_row(row, D(105)).explanation == "100 included + 5 x 1.5"


def test_tiers_take_per():
    assert amount(Row("graduated", per=D(10), tiers=GRADUATED.tiers), 111) == "11.55"


# --- package and percentage ---------------------------------------------------------------------------------


def test_started_packages_are_charged_whole():
    row = Row("package", package_size=D(1000), package_amount=D(5))

    assert [amount(row, quantity) for quantity in ("0", "1", "1000", "1000.5", "2500")] == [
        "0",
        "5",
        "5",
        "10",
        "15",
    ]
    assert rate_row(row, D(2500)).explanation == "ceil(2,500 / 1,000) x 5"


def test_packages_take_included_and_per():
    row = Row("package", package_size=D(2), per=D(500), package_amount=D(5), included=D(500))

    assert [amount(row, quantity) for quantity in (500, 1500, 1501)] == ["0", "5", "10"]


def test_a_percentage_is_taken_of_the_value_and_a_fixed_amount_of_each_event():
    row = Row("percentage", rate=D("2.9"), fixed_amount=D("0.3"))

    rated = rate_row(row, D(1000), events=3)

    assert money.plain(rated.amount) == "29.9"
    assert rated.explanation == "1,000 x 2.9 % + 3 x 0.3"
    assert rated.breakdown[0].flat_amount == D("0.9")


# --- limits -------------------------------------------------------------------------------------------------


def test_a_maximum_caps_the_amount_and_shows_as_a_row():
    rated = rate_row(Row(unit_amount=D(3), maximum_amount=D(20)), D(10))

    assert rated.amount == 20
    assert rated.explanation == "min(10 x 3, 20 maximum)"
    assert [(part.kind, part.amount) for part in rated.breakdown] == [("usage", 30), ("maximum", -10)]


def test_a_minimum_is_a_true_up_and_not_part_of_rated_usage():
    row = Row(unit_amount=D(3), minimum_amount=D(50))
    rated = rate_row(row, D(10))

    assert rated.amount == 30
    assert with_minimum(row, rated).amount == 50
    assert with_minimum(row, rated).explanation == "max(10 x 3, 50 minimum)"
    assert with_minimum(row, rate_row(row, D(100))).amount == 300


# --- match rows ---------------------------------------------------------------------------------------------

TERMS = Terms(
    key="input",
    unit="USD",
    default=Row(per=D(1_000_000), unit_amount=D("0.15"), included=D(1000), minimum_amount=D(1)),
    match=(
        Row(per=D(1_000_000), where=LARGE, unit_amount=D("2.5")),
        Row(per=D(1_000_000), where={"model": frozenset({"mini", "nano"})}, unit_amount=D("0.05")),
        Row(per=D(1_000_000), where=LARGE | {"tier": frozenset({None})}, unit_amount=D(2)),
    ),
)


@pytest.mark.parametrize(
    ("dimensions", "row"),
    [
        ({}, 0),
        ({"model": "small"}, 0),
        ({"model": None}, 0),
        ({"model": "large-2", "tier": "fast"}, 1),
        ({"model": "nano"}, 2),
        ({"model": "large-2"}, 3),
        ({"model": "large-2", "tier": None, "user": "u1"}, 3),
    ],
)
def test_the_row_with_most_keys_prices_the_usage(dimensions, row):
    assert select_row(TERMS, dimensions) == row


def test_where_takes_a_string_a_list_or_null():
    assert normalise_where({"a": "x", "b": ["x", "y"], "c": None}) == {
        "a": frozenset({"x"}),
        "b": frozenset({"x", "y"}),
        "c": frozenset({None}),
    }


@pytest.mark.parametrize("value", [[], 5, True, {"x": 1}, [1], [["x"]]])
def test_where_refuses_what_could_never_match(value):
    with pytest.raises(ValueError, match='"model"'):
        normalise_where({"model": value})


def test_included_of_the_default_belongs_to_the_default_alone():
    rated = rate(TERMS, [Usage(D(1000), {"model": "x"}), Usage(D(1_000_000), {"model": "mini"})])

    assert {index: row.amount for index, row in rated.items()} == {0: 0, 2: D("0.05")}


def test_quantities_of_one_row_are_rated_together():
    usage = [Usage(D(600), {"model": "a"}), Usage(D(600), {"model": "b"})]

    assert rate(TERMS, usage)[0].explanation == "(1,200 - 1,000 included) / 1,000,000 x 0.15"


def test_the_default_row_is_rated_from_zero_and_a_match_row_only_with_usage():
    assert list(rate(TERMS, [Usage(D(0), {"model": "mini"})])) == [0]


# --- simulation ---------------------------------------------------------------------------------------------


def test_a_simulation_adds_minimums_over_all_rows():
    rated = simulate(TERMS, [Usage(D(1_000_000), {"model": "mini"})])

    assert rated.amount == D("1.05")
    assert rated.amount == money.total(part.amount for part in rated.breakdown)


def test_a_simulation_of_nothing_shows_one_row():
    rated = simulate(Terms("p", "USD", Row(unit_amount=D(2))), [Usage(D(0))])

    assert (rated.amount, len(rated.breakdown), rated.explanation) == (0, 1, "0 x 2")


def test_a_simulation_on_top_of_prior_usage_continues_in_its_tier():
    rated = simulate(Terms("p", "USD", GRADUATED), [Usage(D(10))], prior=[Usage(D(105))])

    assert [(part.tier, part.quantity, part.amount) for part in rated.breakdown] == [
        (2, 5, 5),
        (3, 5, D("2.5")),
    ]
    assert rated.amount == D("7.5")


def test_a_volume_price_that_reaches_a_cheaper_tier_takes_the_old_one_back():
    rated = simulate(Terms("p", "USD", VOLUME), [Usage(D(101))], prior=[Usage(D(10))])

    assert rated.amount == D("55.5") - 15
    assert [(part.tier, part.quantity) for part in rated.breakdown] == [(3, 111), (1, -10)]


# --- properties ---------------------------------------------------------------------------------------------

prices = st.integers(0, 300).map(lambda cents: D(cents) / 100)
quantities = st.integers(0, 200)


@st.composite
def tier_lists(draw):
    bounds = sorted(draw(st.sets(st.integers(1, 120), max_size=3)))
    return tuple(Tier(None if bound is None else D(bound), draw(prices), draw(prices)) for bound in [*bounds, None])


@st.composite
def rows(draw):
    return Row(
        scheme=draw(st.sampled_from(["per_unit", "graduated", "volume", "package", "percentage"])),
        where=draw(st.sampled_from([{}, LARGE])),
        unit_amount=draw(prices),
        tiers=draw(tier_lists()),
        package_size=D(draw(st.integers(1, 20))),
        package_amount=draw(prices),
        rate=draw(prices),
        fixed_amount=draw(prices),
        included=D(draw(st.integers(0, 50))),
        maximum_amount=draw(st.none() | prices.map(lambda price: price * 50)),
    )


def tier_of(row, unit):
    """The tier in which the nth billable unit lies, by counting."""
    return next(n for n, tier in enumerate(row.tiers) if tier.up_to is None or unit <= tier.up_to)


def brute_force(row, quantity, events):
    """The same rules unit by unit, in whole units, knowing nothing of the formulas."""
    billable = [unit for unit in range(1, quantity + 1) if unit > row.included]
    entered = {tier_of(row, n) for n in range(1, len(billable) + 1)}
    if row.is_default or quantity:
        entered.add(0)
    if row.scheme == "per_unit":
        amount = sum((row.unit_amount for _ in billable), D(0))
    elif row.scheme == "graduated":
        amount = sum((row.tiers[tier_of(row, n)].unit_amount for n in range(1, len(billable) + 1)), D(0))
        amount += sum(row.tiers[index].flat_amount for index in entered)
    elif row.scheme == "volume":
        last = row.tiers[max(entered)] if entered else Tier(None)
        amount = sum((last.unit_amount for _ in billable), D(0)) + last.flat_amount
    elif row.scheme == "package":
        amount = row.package_amount * len({n // int(row.package_size) for n in range(len(billable))})
    else:
        amount = sum((row.rate / 100 for _ in billable), D(0)) + row.fixed_amount * events
    return amount if row.maximum_amount is None else min(amount, row.maximum_amount)


@given(rows(), quantities, st.integers(0, 5))
def test_every_scheme_equals_counting_unit_by_unit(row, quantity, events):
    assert rate_row(row, D(quantity), events).amount == brute_force(row, quantity, events)


@given(rows(), st.decimals(0, 10**18, places=12), st.integers(0, 5))
def test_an_amount_is_the_sum_of_its_rows_to_twelve_places(row, quantity, events):
    rated = rate_row(row, quantity, events)

    assert rated.amount == money.total(part.amount for part in rated.breakdown)
    assert rated.amount == money.quantise(rated.amount)
    assert rated.amount >= 0


@given(rows(), st.decimals(0, 300, places=3), st.decimals(0, 300, places=3))
def test_more_usage_never_costs_less_except_by_volume(row, first, second):
    if row.scheme == "volume":
        return
    low, high = sorted([first, second])

    assert rate_row(row, low).amount <= rate_row(row, high).amount


@given(rows(), st.decimals(0, 300, places=3))
def test_a_graduated_price_without_flats_has_no_steps(row, quantity):
    """Also where a tier begins: a little more costs no more than that little at the dearest tier."""
    tiers = tuple(replace(tier, flat_amount=D(0)) for tier in row.tiers)
    row, little = replace(row, scheme="graduated", tiers=tiers, included=D(0)), D("0.001")
    bounds = [tier.up_to for tier in tiers if tier.up_to is not None]

    for start in (quantity, *bounds):
        step = rate_row(row, start + little).amount - rate_row(row, start).amount
        assert 0 <= step <= little * max(tier.unit_amount for tier in tiers)


@given(rows(), st.lists(quantities, max_size=6), st.permutations(range(6)))
def test_a_period_cut_anywhere_and_added_up_is_the_whole_in_any_order(row, used, order):
    def parts(steps):
        through = [D(sum(steps[:count])) for count in range(len(steps) + 1)]
        amounts = [rate_row(row, quantity, count).amount for count, quantity in enumerate(through)]
        return sum((later - earlier for earlier, later in pairwise(amounts)), amounts[0]), amounts[-1]

    shuffled = [used[place] for place in order if place < len(used)]
    (added, whole), (again, _) = parts(used), parts(shuffled)

    assert added == again == whole == rate_row(row, D(sum(used)), len(used)).amount


@given(rows(), quantities, st.none() | prices.map(lambda price: price * 50))
def test_a_minimum_lifts_and_a_maximum_caps(row, quantity, minimum):
    limits = [limit for limit in (minimum, row.maximum_amount) if limit is not None]
    row = replace(row, minimum_amount=minimum, maximum_amount=max(limits) if row.maximum_amount is not None else None)
    rated = rate_row(row, D(quantity))

    lifted = with_minimum(row, rated)

    assert lifted.amount == max(rated.amount, minimum or D(0))
    assert row.maximum_amount is None or lifted.amount <= row.maximum_amount
    assert lifted.amount == money.total(part.amount for part in lifted.breakdown)


@given(rows(), quantities, quantities)
def test_a_simulation_after_prior_usage_is_the_difference(row, prior, quantity):
    terms = Terms("p", "USD", Row("per_unit"), (row,)) if row.where else Terms("p", "USD", row)
    dimensions = {"model": "large-2"} if row.where else {}
    before = rate_row(row, D(prior)).amount if prior else 0

    rated = simulate(terms, [Usage(D(quantity), dimensions)], prior=[Usage(D(prior), dimensions)])

    assert rated.amount == rate_row(row, D(prior + quantity)).amount - before
    assert rated.amount == money.total(part.amount for part in rated.breakdown)


@given(
    st.decimals(-(10**6), 10**6, places=12),
    st.dictionaries(st.text(max_size=3), st.decimals(0, 10**6, places=3), min_size=1, max_size=8),
)
def test_shares_add_up_whatever_the_order_of_groups(amount, groups):
    shares = split(amount, groups)

    assert money.total(shares.values()) == amount
    assert shares == split(amount, dict(reversed(groups.items())))
    assert all(share == 0 or (share > 0) == (amount > 0) for share in shares.values())


def test_the_remainder_of_a_split_goes_to_the_largest_group():
    assert split(D("0.000000000010"), {"a": D(1), "b": D(2), None: D(1)}) == {
        "a": D("0.000000000002"),
        "b": D("0.000000000006"),
        None: D("0.000000000002"),
    }
    assert split(D(5), {"b": D(0), "a": D(0)}) == {"a": 5, "b": 0}
    assert split(D(5), {}) == {}
