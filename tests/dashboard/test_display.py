"""How numbers look on a page."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from dashboard.templatetags.display import about, about_number, compact, last_day, number, percent, plural, small


@pytest.mark.parametrize(
    ("quantity", "shown"),
    [
        ("0", "0"),
        ("0.04", "< 0.1"),
        ("0.25", "0.3"),
        ("12", "12"),
        ("12.34", "12.3"),
        ("100", "100"),
        ("41220", "41,220"),
        ("999999", "999,999"),
        ("1000000", "1.0 M"),
        ("812400000", "812.4 M"),
        ("1250000000", "1.3 B"),
    ],
)
def test_a_quantity_is_grouped_shortened_from_a_million_and_never_nothing(quantity, shown):
    assert compact(Decimal(quantity)).replace("\N{NO-BREAK SPACE}", " ") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "0 %"), ("0.04", "< 0.1 %"), ("0.14", "0.1 %"), ("9.96", "10.0 %"), ("61.2", "61 %"), ("1234.5", "1,235 %")],
)
def test_a_small_share_is_never_shown_as_nothing(value, shown):
    assert percent(Decimal(value)).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_an_estimate_has_no_cents_from_a_hundred_up():
    assert about(Decimal("2089.6"), "USD") == "$2,090"
    assert about(Decimal("99.5"), "USD") == "$99.50"
    assert about(Decimal("2089.6"), "credits") == "2,090 credits"
    assert about_number(Decimal("2089.6"), "credits") == "2,090"
    assert about_number(Decimal("2089.6"), "EUR") == "€2,090"


@pytest.mark.parametrize(
    ("amount", "unit", "shown"),
    [
        ("0.000905", "USD", "$0.000905"),
        ("0.02659", "USD", "$0.02659"),
        ("2.5", "USD", "$2.50"),
        ("0.000833333333", "USD", "$0.000833"),
        ("0.0000001", "USD", "< $0.000001"),
        ("-0.0000001", "USD", "> \N{MINUS SIGN}$0.000001"),
        ("0", "USD", "$0.00"),
        ("1", "credits", "1 credit"),
    ],
)
def test_what_one_event_costs_is_said_to_a_millionth(amount, unit, shown):
    assert small(Decimal(amount), unit) == shown


def test_a_column_of_credits_says_its_unit_once():
    assert number(Decimal("5310.5"), "credits") == "5,310.5"
    assert number(Decimal("5310.5"), "USD") == "$5,310.50"


def test_units_follow_their_number():
    assert plural("token", Decimal(1)) == "token"
    assert plural("token", Decimal(0)) == "tokens"
    assert plural("GB", Decimal(2)) == "GB"
    assert plural("seconds", Decimal(2)) == "seconds"


def test_a_period_that_ends_at_midnight_ends_on_the_day_before():
    assert last_day(datetime(2026, 12, 1, tzinfo=UTC)).date().isoformat() == "2026-11-30"
