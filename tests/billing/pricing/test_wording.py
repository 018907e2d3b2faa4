"""A price says what it costs in a sentence."""

from decimal import Decimal

import pytest

from billing.pricing.schemes import Row, Tier
from billing.pricing.wording import row_in_words

TIERS = (Tier(Decimal(1000), Decimal(1)), Tier(Decimal(5000), Decimal("0.9")), Tier(None, Decimal("0.8"), Decimal(5)))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Row(unit_amount=Decimal("0.05")), "0.05 USD each"),
        (Row(unit_amount=Decimal("2.50"), per=Decimal(1_000_000)), "2.5 USD per 1,000,000"),
        (
            Row(unit_amount=Decimal(1), included=Decimal(1000), maximum_amount=Decimal(50)),
            "1 USD each, the first 1,000 included, at most 50 USD",
        ),
        (
            Row("graduated", tiers=TIERS),
            "0 to 1,000: 1 USD each; 1,000 to 5,000: 0.9 USD each; then: 0.8 USD each + 5 USD",
        ),
        (
            Row("volume", tiers=TIERS[::2]),
            "all of it: 0 to 1,000: 1 USD each; if more: 0.8 USD each + 5 USD",
        ),
        (Row("package", package_size=Decimal(500), package_amount=Decimal(4)), "4 USD per started 500"),
        (Row("percentage", rate=Decimal("2.9"), fixed_amount=Decimal("0.3")), "2.9 % + 0.3 USD per event"),
    ],
)
def test_a_row_says_what_it_costs(row, words):
    assert row_in_words(row, "USD") == words
