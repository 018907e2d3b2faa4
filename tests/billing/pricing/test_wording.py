"""A price says what it costs in a sentence."""

from decimal import Decimal

import pytest

from billing.pricing.schemes import Row, Tier
from billing.pricing.wording import row_in_words

TIERS = (Tier(Decimal(1000), Decimal(1)), Tier(Decimal(5000), Decimal("0.9")), Tier(None, Decimal("0.8"), Decimal(5)))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Row(unit_amount=Decimal("0.05")), "$0.05 each"),
        (Row(unit_amount=Decimal("2.50"), per=Decimal(1_000_000)), "$2.50 per 1,000,000"),
        (
            Row(unit_amount=Decimal(1), included=Decimal(1000), maximum_amount=Decimal(50)),
            "$1.00 each, the first 1,000 included, at most $50.00",
        ),
        (
            Row("graduated", tiers=TIERS),
            "0 to 1,000: $1.00 each; 1,000 to 5,000: $0.90 each; then: $0.80 each + $5.00",
        ),
        (
            Row("volume", tiers=TIERS[::2]),
            "all of it: 0 to 1,000: $1.00 each; if more: $0.80 each + $5.00",
        ),
        (Row("package", package_size=Decimal(500), package_amount=Decimal(4)), "$4.00 per started 500"),
        (Row("percentage", rate=Decimal("2.9"), fixed_amount=Decimal("0.3")), "2.9 % + $0.30 per event"),
    ],
)
def test_a_row_says_what_it_costs(row, words):
    assert row_in_words(row, "USD") == words


def test_a_row_names_what_is_counted():
    assert row_in_words(Row(unit_amount=Decimal(5), per=Decimal(1000)), "EUR", "tokens") == "€5.00 per 1,000 tokens"
    assert row_in_words(Row(unit_amount=Decimal(1)), "credits", "searches") == "1 credit each"
    package = Row("package", package_size=Decimal(60), package_amount=Decimal(500))
    assert row_in_words(package, "JPY", "seconds") == "JPY 500 per started 60 seconds"
