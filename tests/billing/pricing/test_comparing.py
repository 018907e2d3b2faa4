"""What changed between two versions, as a product manager reads it."""

from dataclasses import replace
from decimal import Decimal

import pytest

from billing.pricing.comparing import changes
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec, VersionSpec

D = Decimal
LARGE = MatchSpec({"model": ["large-2", "large-1"]}, D("2.5"))
INPUT = PriceSpec("input", "input_tokens", "USD", D("0.15"), per=D(1_000_000), match=(LARGE,))
OLD = VersionSpec(
    base_fee=D(20),
    prices=(INPUT,),
    credits=(CreditSpec("credits", D(1000)),),
    overage=(OverageSpec("credits", D("0.012")),),
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_fee": D(25)}, ["Base fee: $20.00, in advance → $25.00, in advance"]),
        ({"interval": "year"}, ["Billed: every month → every year"]),
        ({"interval_count": 3}, ["Billed: every month → every 3 months"]),
        ({"trial_days": 14}, ["Trial: none → 14 days"]),
        ({"minimum_spend": D(100)}, ["Minimum spend: none → $100.00"]),
        ({"postpaid": False}, ["Usage beyond the grants: invoiced → refused unless it is prepaid"]),
        (
            {"credits": (CreditSpec("credits", D(1500), rollover_max=D(200)),)},
            [
                "Credits: 1,000 credits each billing period (priority 10) → "
                "1,500 credits each billing period, up to 200 roll over (priority 10)"
            ],
        ),
        ({"overage": ()}, ["Beyond the grants: $0.012 per credit → none"]),
        ({"prices": ()}, ["input: no longer priced"]),
        (
            {"prices": (replace(INPUT, match=(replace(LARGE, unit_amount=D(2)),)),)},
            ["input, model = large-1 | large-2: $2.50 per 1,000,000 → $2.00 per 1,000,000"],
        ),
        (
            {"prices": (replace(INPUT, match=()),)},
            ["input, model = large-1 | large-2: $2.50 per 1,000,000 → as everything else"],
        ),
        (
            {"prices": (replace(INPUT, maximum_amount=D(9), minimum_amount=D(1)),)},
            ["input: $0.15 per 1,000,000 → $0.15 per 1,000,000, at least $1.00, at most $9.00"],
        ),
        (
            {"prices": (INPUT, PriceSpec("calls", "calls", "credits", scheme="volume", tiers=(Tier(None, D(1)),)))},
            ["calls: newly priced by calls, all of it: 1 credit each"],
        ),
        ({"prices": (replace(INPUT, match=(MatchSpec({"model": ["large-1", "large-2"]}, D("2.5")),)),)}, []),
    ],
)
def test_a_change_is_said_in_one_sentence(change, said):
    assert changes(OLD, replace(OLD, **change), "USD") == said
