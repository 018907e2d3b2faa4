from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing.schemes import Row, Terms, Tier, normalise_where, select_row
from billing.pricing.validation import overlaps, problems

D = Decimal


def row(**where):
    return Row(where=normalise_where(where))


def found(default, *match):
    return [(problem.field, problem.code) for problem in problems(Terms("p", "USD", default, match))]


def test_sound_terms_have_no_problems():
    tiers = (Tier(D(10), D(1)), Tier(D(20), D(1)), Tier(None, D(1)))

    assert found(Row("graduated", tiers=tiers), row(model="a"), row(model=["b", "c"])) == []


@pytest.mark.parametrize(
    ("default", "problem"),
    [
        (Row(unit_amount=D(-1)), ("unit_amount", "negative")),
        (Row(included=D(-1)), ("included", "negative")),
        (Row(per=D(0)), ("per", "not_positive")),
        (Row("package", package_size=D(0)), ("package_size", "not_positive")),
        (Row(minimum_amount=D(-1)), ("minimum_amount", "negative")),
        (Row(minimum_amount=D(5), maximum_amount=D(4)), ("maximum_amount", "below_minimum")),
        (Row("volume"), ("tiers", "required")),
        (Row("volume", tiers=(Tier(D(5)),)), ("tiers.0.up_to", "not_open")),
        (Row("graduated", tiers=(Tier(D(5)), Tier(D(5)), Tier(None))), ("tiers.1.up_to", "not_rising")),
        (Row("graduated", tiers=(Tier(None), Tier(None))), ("tiers.0.up_to", "not_rising")),
        (Row("graduated", tiers=(Tier(D(0)), Tier(None))), ("tiers.0.up_to", "not_rising")),
        (Row("graduated", tiers=(Tier(None, D(-1)),)), ("tiers.0", "negative")),
    ],
)
def test_what_cannot_be_calculated_is_named_with_its_field(default, problem):
    assert found(default) == [problem]


def test_a_match_row_must_match_something():
    assert found(Row(), Row()) == [("match.0.where", "required")]


@pytest.mark.parametrize(
    ("match", "pairs"),
    [
        ([row(model="a"), row(model="b")], []),
        ([row(model="a"), row(model="a")], [(0, 1)]),
        ([row(model=["a", "b"]), row(model=["b", "c"])], [(0, 1)]),
        ([row(model="a"), row(model=None)], []),
        ([row(model="a"), row(region="eu")], [(0, 1)]),
        ([row(model="a"), row(region="eu"), row(model="a", region="eu")], []),
        ([row(model="a"), row(region=["eu", "us"]), row(model="a", region="eu")], [(0, 1)]),
        ([row(model="a"), row(region="eu"), row(model="a", region="eu", user="u")], [(0, 1)]),
        ([row(model="a"), row(model="a", region="eu")], []),
    ],
)
def test_rows_of_equal_specificity_need_a_row_for_what_both_match(match, pairs):
    assert overlaps(match) == pairs


def test_a_tie_is_explained_to_the_one_who_wrote_it():
    (problem,) = problems(Terms("p", "USD", Row(), (row(model="a"), row(region="eu"))))

    assert (problem.field, problem.code) == ("match.1.where", "ambiguous_match")
    assert "Rows 1 and 2" in problem.detail


values = st.sampled_from(["x", "y", None])
wheres = st.dictionaries(st.sampled_from("abc"), st.frozensets(values, min_size=1), min_size=1)


def matches(where, dimensions):
    return all(dimensions.get(name) in any_of for name, any_of in where.items())


@given(st.lists(wheres, max_size=5), st.dictionaries(st.sampled_from("abc"), values))
def test_the_row_found_is_the_first_with_most_keys_of_those_that_match(list_of_wheres, dimensions):
    rows = [Row(), *(Row(where=where) for where in list_of_wheres)]
    fitting = [index for index, row in enumerate(rows) if matches(row.where, dimensions)]

    chosen = select_row(Terms("p", "USD", rows[0], tuple(rows[1:])), dimensions)

    assert chosen == max(fitting, key=lambda index: len(rows[index].where))


@given(st.lists(wheres, max_size=5), st.dictionaries(st.sampled_from("abc"), values))
def test_without_overlaps_at_most_one_most_specific_row_matches_any_event(list_of_wheres, dimensions):
    match = [Row(where=where) for where in list_of_wheres]
    fitting = [len(row.where) for row in match if matches(row.where, dimensions)]

    if not overlaps(match):
        assert fitting.count(max(fitting, default=0)) <= 1
