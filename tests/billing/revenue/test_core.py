"""Usage at unit cost equals a second computation, event by event, in fractions."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from billing.metering.queries import MeterTotal
from billing.money import CONTEXT, quantise
from billing.periods import QUARTER, Interval
from billing.pricing.costs import cost_phases
from billing.pricing.models import UnitCost
from billing.revenue.core import AtCost, Earned, Margin

D = Decimal
START = datetime(2026, 3, 1, tzinfo=UTC)
RANGE = Interval(START, START + timedelta(days=5))
WHERES = ({}, {"model": "large"}, {"model": ["small", None]}, {"model": "large", "region": "eu"})

values = st.fixed_dictionaries(
    {}, optional={"model": st.sampled_from(["large", "small", "tiny"]), "region": st.sampled_from(["eu", "us"])}
)
quarters = st.integers(0, 5 * 96 - 1)
amounts = st.decimals(0, 10**6, places=3)
events = st.lists(st.tuples(quarters, values, amounts), max_size=25)
costs = st.lists(
    st.tuples(
        st.integers(-96, 5 * 96),
        st.sampled_from(WHERES),
        amounts,
        st.sampled_from([1, 3, 1_000_000]),
        st.sampled_from(["USD", "EUR"]),
    ),
    max_size=8,
)


def unit_costs(said):
    made = [
        UnitCost(
            pk=number,
            where=where,
            unit_amount=amount,
            per=D(per),
            currency=currency,
            effective_at=START + quarter * QUARTER,
        )
        for number, (quarter, where, amount, per, currency) in enumerate(said, 1)
    ]
    return sorted(made, key=lambda one: (one.effective_at, one.pk))


def decimal(fraction):
    return CONTEXT.divide(D(fraction.numerator), D(fraction.denominator))


def counted(item):
    _, dimensions, quantity = item
    return MeterTotal(1, 1, dimensions, quantity, 1, None)


def at_cost(events, unit_costs, cuts):
    """In stretches between the cuts, each with the terms that hold from its start on."""
    phases = cost_phases(unit_costs, RANGE)
    found = AtCost()
    edges = sorted({RANGE.start, RANGE.end, *cuts, *(one.starts_at for one in phases)})
    for start, end in pairwise(edges):
        usage = [counted(one) for one in events if start <= START + one[0] * QUARTER < end]
        terms = [one for one in phases if one.starts_at <= start]
        found.add(
            terms[-1] if terms else None, usage, lambda values: values.get("model"), lambda values: values.get("region")
        )
    return found


def brute_force(events, unit_costs):
    """Event by event: of the conditions that hold, the one with most names; of its amounts, the latest by then."""
    spent, missing = defaultdict(Fraction), defaultdict(Fraction)
    for quarter, dimensions, quantity in events:
        at = START + quarter * QUARTER
        candidates = [
            (len(cost.where), cost.effective_at, cost.pk, cost)
            for cost in unit_costs
            if cost.effective_at <= at
            and all(
                dimensions.get(name) in (wanted if isinstance(wanted, list) else [wanted])
                for name, wanted in cost.where.items()
            )
        ]
        if candidates:
            cost = max(candidates, key=lambda one: one[:3])[3]
            key = dimensions.get("model"), cost.currency
            spent[key] += Fraction(quantity) * Fraction(cost.unit_amount) / Fraction(cost.per)
        else:
            missing[dimensions.get("region")] += Fraction(quantity)
    return spent, missing


@given(events, costs, st.lists(quarters, max_size=3))
def test_cost_equals_every_event_at_the_unit_cost_of_its_time(events, said, cuts):
    made = unit_costs(said)
    found = at_cost(events, made, [START + cut * QUARTER for cut in cuts])
    spent, missing = brute_force(events, made)

    assert {key: quantise(amount) for key, amount in found.amounts().items()} == {
        key: quantise(decimal(amount)) for key, amount in spent.items()
    }
    assert {kind: one.quantity for kind, one in found.uncovered.items()} == {
        kind: decimal(quantity) for kind, quantity in missing.items()
    }


@given(events, costs, st.lists(quarters, max_size=3), st.randoms())
def test_neither_order_nor_cuts_matter(events, said, cuts, random):
    made = unit_costs(said)
    shuffled = list(events)
    random.shuffle(shuffled)

    once = at_cost(events, made, [])
    assert at_cost(shuffled, made, [START + cut * QUARTER for cut in cuts]).amounts() == once.amounts()


def test_what_has_no_cost_is_told_and_not_free():
    found = at_cost(
        [(0, {"model": "tiny"}, D(5)), (1, {"model": "large"}, D(2))],
        unit_costs([(0, {"model": "large"}, D(3), 1, "USD")]),
        [],
    )

    assert found.amounts() == {("large", "USD"): 6}
    assert {kind: (one.quantity, one.events) for kind, one in found.uncovered.items()} == {None: (5, 1)}


def test_a_line_earns_the_mean_of_what_paid_for_it():
    earned = Earned()
    earned.add(D(30), D(0))  # given with the plan
    earned.add(D(10), D("0.04"))  # bought
    assert (earned.of(D(40), D(1)), earned.of(D(20), D(1))) == (D("0.4"), D("0.2"))
    assert Earned().of(D(7), D("0.5")) == D("3.5")


def test_a_margin_is_a_share_of_revenue_where_there_is_any():
    margin = Margin(usage=D(10), fees=D(10), cost=D(5))
    assert (margin.revenue, margin.margin, margin.percent) == (20, 15, 75)
    assert Margin(cost=D(5)).percent is None
