"""What coupons take off: percentages first, whole minor units, never more than there is."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.money import round_to_unit, total
from billing.pricing.coupons import Offer, discounts

D = Decimal
TWENTY = Offer("spring", "Spring", percent=D(20))
FIVE = Offer("five", "Five off", amount=D(5))


def test_a_percentage_comes_before_an_amount_whatever_their_order():
    found = discounts([FIVE, TWENTY], {"fee": D(20), "usage": D(30)}, "USD")

    assert [(one.offer.key, one.amount) for one in found] == [("spring", D(10)), ("five", D(5))]
    assert found[0].shares == {"fee": D(4), "usage": D(6)}
    assert found[1].shares == {"fee": D(2), "usage": D(3)}


def test_what_is_over_goes_to_the_largest_remainders():
    [found] = discounts([Offer("third", "Third", amount=D("1"))], dict.fromkeys("abc", D(1)), "USD")

    assert sorted(found.shares.values()) == [D("0.33"), D("0.33"), D("0.34")]


def test_nothing_goes_below_zero():
    [found] = discounts([FIVE, FIVE], {"usage": D("3.21"), "credit": D(-2)}, "USD")

    assert (found.amount, found.shares) == (D("3.21"), {"usage": D("3.21")})


def test_a_currency_without_minor_units_is_shared_in_whole_ones():
    [found] = discounts([Offer("half", "Half", percent=D(50))], {"a": D(1), "b": D(2)}, "JPY")

    assert (found.amount, total(found.shares.values())) == (D(2), D(2))
    assert all(part == part.to_integral_value() for part in found.shares.values())


cents = st.integers(-10_000, 10_000_000).map(lambda number: D(number) / 100)
offers = st.one_of(
    st.builds(Offer, st.just("p"), st.just("P"), percent=st.decimals("0.01", 100, places=2)),
    st.builds(Offer, st.just("a"), st.just("A"), amount=st.decimals("0.01", 1000, places=2)),
)


@given(st.lists(offers, max_size=4), st.dictionaries(st.integers(), cents, max_size=6))
def test_shares_add_up_in_whole_cents_and_never_exceed_what_they_are_of(given_offers, amounts):
    found = discounts(given_offers, amounts, "USD")

    for one in found:
        assert total(one.shares.values()) == one.amount > 0
        assert all(part > 0 and part == round_to_unit(part, "USD") for part in one.shares.values())
    for key, amount in amounts.items():
        assert total(one.shares.get(key, D(0)) for one in found) <= max(amount, D(0))
