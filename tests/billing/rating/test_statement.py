"""A statement adds up in whole minor units, and says what the rounding did."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.money import exact, round_to_unit, total
from billing.pricing.coupons import Offer
from billing.rating.statement import Charge, Minimum, statement

D = Decimal
HALF = D("0.005")


def test_a_line_is_rounded_once_half_up():
    found = statement("USD", usage=[Charge("tokens", D("1.005")), Charge("calls", D("0.1599996"))])

    assert [row.rounded for row in found.usage_rows] == [D("1.01"), D("0.16")]
    assert (found.usage, found.rounding, found.amount_due) == (D("1.1649996"), D("0.0050004"), D("1.17"))


def test_each_currency_has_its_own_minor_unit():
    usage = [Charge("tokens", D("10.5555"))]
    assert statement("JPY", usage=usage).amount_due == D(11)
    assert statement("KWD", usage=usage).amount_due == D("10.556")
    assert statement("credits", usage=usage).amount_due == D("10.5555")


def test_what_grants_pay_in_full_leaves_nothing_due():
    found = statement("USD", usage=[Charge("tokens", D("0.1599996"), credits=D("0.1599996"))])

    assert (found.usage, found.credits_applied, found.rounding, found.amount_due) == (D("0.1599996"),) * 2 + (0, 0)


def test_fees_are_added_and_grants_do_not_pay_them():
    found = statement("USD", usage=[Charge("tokens", D(5), credits=D(5))], fees=[Charge("base", D(20))])

    assert (found.fees, found.credits_applied, found.amount_due) == (D(20), D(5), D(20))


def test_a_row_that_stays_below_its_minimum_is_lifted_to_it_exactly():
    found = statement(
        "USD", usage=[Charge("tokens", D("3.333"))], minimums=[Minimum("at least 10", D(10), reached=D("3.333"))]
    )

    assert [(row.source, row.amount) for row in found.true_up_rows] == [("at least 10", D("6.67"))]
    assert found.amount_due == D(10)


def test_a_minimum_that_is_reached_adds_nothing():
    assert not statement(
        "USD", usage=[Charge("tokens", D(12))], minimums=[Minimum("row", D(10), reached=D(12)), Minimum("all", D(12))]
    ).true_up_rows


def test_the_minimum_spend_counts_usage_fees_and_the_true_ups_of_rows_of_its_own_part():
    found = statement(
        "USD",
        usage=[Charge("tokens", D("3.333"), credits=D(1), part="new"), Charge("tokens", D(500), part="old")],
        fees=[Charge("base", D(20), part="new")],
        minimums=[Minimum("spend", D(100), part="new"), Minimum("row", D(10), part="new", reached=D("3.333"))],
    )

    assert [(row.source, row.amount) for row in found.true_up_rows] == [("row", D("6.67")), ("spend", D(70))]


def test_coupons_discount_what_grants_leave():
    offers = [Offer("ten", "Ten off", amount=D(10)), Offer("half", "Half price", percent=D(50))]
    found = statement(
        "USD",
        usage=[Charge("tokens", D(30), credits=D(10))],
        fees=[Charge("base", D(20))],
        late=[Charge("late", D(-5))],
        offers=offers,
    )

    assert [(one.offer.key, one.amount) for one in found.discount_rows] == [("half", D(20)), ("ten", D(10))]
    assert found.amount_due == D(20 + 20 - 5 - 30)


amounts = st.decimals(D(-1000), D(1000), places=12)
shares = st.decimals(D(0), D(1), places=2)


@st.composite
def charges(draw, parts=("a", "b")):
    amount = draw(amounts)
    with exact():
        return Charge("row", amount, amount * draw(shares), draw(st.sampled_from(parts)))


@given(
    usage=st.lists(charges(), max_size=8),
    late=st.lists(charges(), max_size=2),
    fees=st.lists(st.decimals(D(0), D(100), places=2), max_size=2),
    minimums=st.lists(st.decimals(D(0), D(2000), places=2), max_size=3),
    percent=st.one_of(st.none(), st.decimals(D("0.01"), D(100), places=2)),
)
def test_the_rows_explain_the_amount_due(usage, late, fees, minimums, percent):
    found = statement(
        "USD",
        usage=usage,
        late=late,
        fees=[Charge("fee", fee, part="a") for fee in fees],
        minimums=[Minimum("minimum", amount, part="a") for amount in minimums],
        offers=[] if percent is None else [Offer("off", "Off", percent=percent)],
    )
    with exact():
        added = found.usage + found.fees + found.true_ups + found.late_adjustments + found.tax + found.rounding
        assert added - found.discounts - found.credits_applied == found.amount_due
        assert abs(found.rounding) <= HALF * (len(usage) + len(late))
        assert found.usage == total(charge.amount for charge in usage)
    assert found.amount_due == round_to_unit(found.amount_due, "USD")
