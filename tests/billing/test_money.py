import decimal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import money

amounts = st.decimals(-(10**18), 10**18, places=12, allow_nan=False)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("12.5", "12.5"),
        ("1e3", "1000"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-7", "-7"),
        (3, "3"),
        (Decimal("0.10"), "0.1"),
        ("-0", "0"),
        ("1.5000000000000000000", "1.5"),
        ("1000000000000000000", "1000000000000000000"),
        ("0.000000000001", "0.000000000001"),
    ],
)
def test_a_number_is_read_exactly(sent, read):
    assert money.plain(money.parse_decimal(sent)) == read


@pytest.mark.parametrize(
    "sent",
    [
        1.5,
        True,
        None,
        "",
        " 1",
        "1_000",
        "1,5",
        "\u0661",
        "abc",
        "0x10",
        "NaN",
        "-Infinity",
        Decimal("sNaN"),
        Decimal("Infinity"),
        "1e400",
        "1e999999",
        "-1e999999",
        "1000000000000000000.000000000001",
        10**18 + 1,
        "1e-13",
        "1e-999999",
        "0.0000000000001",
        "9" * 300,
        [],
        {},
    ],
)
def test_what_is_no_exact_number_is_refused_with_a_sentence(sent):
    with pytest.raises(ValueError, match=r"\.$"):
        money.parse_decimal(sent)


def test_the_reader_can_be_stricter():
    with pytest.raises(ValueError, match="at most 2 are accepted"):
        money.parse_decimal("1.234", places=2)
    with pytest.raises(ValueError, match="at most 100 is accepted"):
        money.parse_decimal("101", limit=100)


@given(amounts)
def test_plain_notation_is_read_back_as_the_same_number(amount):
    text = money.plain(amount)

    assert money.parse_decimal(text) == amount
    assert "E" not in text
    assert text != "-0"
    assert "." not in text or not text.endswith(("0", "."))


def test_plain_notation_has_no_trailing_zeros_and_no_negative_zero():
    assert [money.plain(Decimal(text)) for text in ("0E-12", "-0.00", "1E+3", "1.2300", "100")] == [
        "0",
        "0",
        "1000",
        "1.23",
        "100",
    ]
    with pytest.raises(ValueError, match="no amount"):
        money.plain(Decimal("NaN"))


def test_amounts_are_rounded_half_up_away_from_zero():
    assert money.round_to_unit(Decimal("1.005"), "USD") == Decimal("1.01")
    assert money.round_to_unit(Decimal("-1.005"), "USD") == Decimal("-1.01")
    assert money.round_to_unit(Decimal("0.5"), "JPY") == 1
    assert money.round_to_unit(Decimal("1.0005"), "BHD") == Decimal("1.001")
    assert money.round_to_unit(Decimal("0.0000000000005"), "credits") == Decimal("0.000000000001")


def test_a_rounded_away_negative_is_a_plain_zero():
    assert str(money.round_to_unit(Decimal("-0.001"), "USD")) == "0.00"
    assert not money.quantise(Decimal("-1E-20")).is_signed()


def test_exponents_are_those_of_iso_4217():
    assert [money.exponent(unit) for unit in ("USD", "JPY", "KWD", "credits")] == [2, 0, 3, 12]
    assert money.is_currency("EUR")
    assert not money.is_currency("credits")
    assert not money.is_currency("usd")


@given(amounts, amounts)
def test_sums_keep_every_digit(first, second):
    scaled = int(first.scaleb(12, money.CONTEXT)) + int(second.scaleb(12, money.CONTEXT))

    assert int(money.total([first, second]).scaleb(12, money.CONTEXT)) == scaled


def test_a_product_is_multiplied_first_and_divided_last():
    assert money.mul_div(Decimal(1), Decimal(3), Decimal(3)) == 1
    assert money.mul_div(Decimal("1200"), Decimal("2.5"), Decimal(1_000_000)) == Decimal("0.003")


def test_exact_arithmetic_refuses_floats_and_leaves_the_context_as_it_was():
    before = decimal.getcontext().prec

    with money.exact(), pytest.raises(decimal.FloatOperation):
        Decimal(0.1)  # noqa: RUF032 -- the float is the point

    assert decimal.getcontext().prec == before


@pytest.mark.parametrize(
    ("amount", "unit", "shown"),
    [
        ("1604.2", "USD", "$1,604.20"),
        ("1604.205", "USD", "$1,604.21"),
        ("-12.5", "EUR", "\u2212€12.50"),
        ("1604.6", "JPY", "JPY 1,605"),
        ("1.2345", "KWD", "KWD 1.235"),
        ("5310", "credits", "5,310 credits"),
        ("5310.126", "credits", "5,310.13 credits"),
        ("0.003", "USD", "< $0.01"),
        ("-0.003", "USD", "> \u2212$0.01"),
        ("0.2", "JPY", "< JPY 1"),
        ("0.001", "credits", "< 0.01 credits"),
        ("0", "USD", "$0.00"),
        ("100", "tokens", "100 tokens"),
    ],
)
def test_amounts_are_shown_to_people(amount, unit, shown):
    assert money.display(Decimal(amount), unit) == shown


def test_the_code_replaces_the_symbol_on_pages_with_several_currencies():
    assert money.display(Decimal("3"), "USD", code=True) == "USD 3.00"


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        ("5", "USD", "$5.00"),
        ("0.1", "USD", "$0.10"),
        ("0.0025", "EUR", "€0.0025"),
        ("1234.5", "CHF", "CHF 1,234.50"),
        ("500", "JPY", "JPY 500"),
        ("0.5", "JPY", "JPY 0.5"),
        ("1", "credits", "1 credit"),
        ("0.25", "credits", "0.25 credits"),
        ("-2", "USD", "\N{MINUS SIGN}$2.00"),
    ],
)
def test_a_price_keeps_every_digit_and_shows_whole_coins(amount, unit, text):
    assert money.price(Decimal(amount), unit) == text
