"""Amounts that were agreed with one customer for a stretch of time: what was used before and after costs the plan's."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.money import total
from billing.periods import QUARTER
from billing.pricing import agreements
from billing.pricing.schemes import Terms, Tier, Usage, rate
from billing.pricing.spec import MatchSpec, PriceSpec, terms_of
from billing.rating import queries
from tests.billing.rating.conftest import START, House, days
from tests.factories import make_meter, make_plan, make_subscription, make_version

D = Decimal


def agree(house, key, amount, *, row=None, first=0, last=None):
    """Other amounts from one quarter hour of the period on, until another."""
    price = house.period.version.prices.get(key=key)
    return agreements.override_price(
        customer=house.customer,
        price=price,
        row=None if row is None else price.match.all()[row],
        amounts=amount if isinstance(amount, MatchSpec) else MatchSpec({}, D(amount)),
        starts_at=START + first * QUARTER,
        ends_at=None if last is None else START + last * QUARTER,
        at=START,
    )


def amounts(house, **question):
    return {(line.price.key, line.row): line.amount for line in queries.lines(house.period, **question) if line.amount}


def test_what_is_used_in_it_costs_what_was_agreed(house):
    agree(house, "images", "1", first=1, last=2)
    for quarter in (0, 1, 2):
        house.use("images", 10, quarter=quarter)

    [line] = [line for line in queries.lines(house.period) if line.amount]

    assert line.amount == D("0.4") + 10 + D("0.4")
    assert total(row.amount for row in line.rated.breakdown) == line.amount
    assert line.rated.explanation == "10 x 0.04 + (20 x 1) - (10 x 1) + (30 x 0.04) - (20 x 0.04)"


def test_only_the_row_and_the_customer_that_it_was_agreed_for(house, acme):
    agree(house, "tokens", "9", row=0)
    house.use("tokens", 3, model="large")
    house.use("tokens", 3, model="large", region="eu")

    assert amounts(house) == {("tokens", 1): 9, ("tokens", 3): 3}

    subscription = make_subscription(acme, house.period.version, START)
    theirs = replace(house, customer=acme, period=subscription.periods.get())
    theirs.use("tokens", 3, model="large")
    assert amounts(theirs) == {("tokens", 1): D("2.5")}


def test_a_row_without_usage_before_it_costs_what_was_agreed_from_the_first_event_on(house):
    agree(house, "tokens", "9", row=0, first=2)
    house.use("tokens", 3, model="large", quarter=2)

    assert amounts(house) == {("tokens", 1): 9}


def test_it_holds_for_the_whole_period_when_it_began_before(house):
    agree(house, "images", "1")
    house.use("images", 2)

    assert amounts(house) == {("images", 0): 2}
    assert queries.lines(house.period)[-2].rated.explanation == "2 x 1"


def test_one_that_ended_costs_nothing_more(house):
    ended = agree(house, "images", "1", first=4)
    agreements.end_override(override=ended, at=START)
    house.use("images", 2, quarter=5)

    assert amounts(house) == {("images", 0): D("0.08")}


@pytest.mark.parametrize("grouped", [(), ("model",)])
def test_series_and_segments_add_up_to_the_lines_wherever_they_are_cut(house, grouped):
    agree(house, "images", "1", first=3, last=9)
    for quarter in (0, 3, 8, 9):
        house.use("images", 10, quarter=quarter, model=str(quarter % 2))
    edges = [START, START + 5 * QUARTER, days(1), house.period.ends_at]

    rows = queries.rated_series(house.customer, edges=edges, unit="USD", group_by=grouped)
    segments = queries.segments(house.period, edges)

    whole = total(amounts(house).values())
    assert whole == D("0.4") + 20 + D("0.4")
    assert total(row.amount for row in rows) == whole
    assert total(amount for one in segments for amount in one.amounts.values()) == whole
    assert total(row.amount for row in rows if row.start == START) == D("0.4") + 10


def test_it_takes_one_query_however_many_there_are(house, django_assert_num_queries):
    queries.lines(house.period)  # the version is read once per process
    for count in (1, 3):
        agree(house, "images", "1", first=count, last=count + 1)
        with django_assert_num_queries(3):
            queries.lines(house.period)


# --- any scheme, any change -----------------------------------------------------------------------------------

amount = st.integers(0, 30).map(lambda number: D(number) / 4)
limit = st.none() | amount
tiers = st.tuples(amount, amount, amount, amount).map(lambda a: (Tier(D(5), a[0], a[1]), Tier(None, a[2], a[3])))
rows = st.builds(
    MatchSpec, st.just({}), unit_amount=amount, tiers=tiers, package_amount=amount, package_size=st.just(D(3)),
    rate=amount, fixed_amount=amount, included=amount, maximum_amount=limit,
)  # fmt: skip
schemes = st.sampled_from(["per_unit", "graduated", "volume", "package", "percentage"])


def _terms(scheme: str, row: MatchSpec) -> Terms:
    names = [name for name in MatchSpec.__dataclass_fields__ if name not in ("where", "match")]
    return terms_of(PriceSpec("p", "images", "USD", scheme=scheme, **{name: getattr(row, name) for name in names}))


@given(schemes, rows, rows, st.lists(st.integers(0, 12), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_changes_each_stretch_costs_what_its_terms_add(scheme, plan, agreed, used):
    """By hand: through the change under the plan, then what the agreed terms ask for more of the same quantity."""
    first, then = _terms(scheme, plan), _terms(scheme, agreed)

    def costs(terms, quantity, events):
        return rate(terms, [Usage(D(quantity), events=events)])[0].amount

    before, after = used[0], sum(used)
    by_hand = costs(first, before, 1) + costs(then, after, 3) - costs(then, before, 1)

    tally = queries.Tally(first, lambda dimensions: None, {1: then})
    counted = [[_Counted(D(quantity))] for quantity in used]
    for stretch in counted:
        tally.add(stretch)
    rated = tally.rated(0)

    assert rated.amount == by_hand
    assert total(row.amount for row in rated.breakdown) == by_hand


class _Counted:
    dimensions: dict[str, str] = {}
    events = 1
    rank = None

    def __init__(self, quantity: Decimal) -> None:
        self.quantity = quantity


def test_a_graduated_price_goes_on_from_the_quantity_that_was_used(globex):
    make_meter("images", event_type="images", value="quantity")
    price = PriceSpec("images", "images", "USD", scheme="graduated", tiers=(Tier(D(10), D(2)), Tier(None, D(1))))
    version = make_version(make_plan(), prices=(price,))
    period = make_subscription(globex, version, START).periods.get()

    house = House(globex, {}, period)
    agree(house, "images", MatchSpec({}, tiers=(Tier(D(10), D(1)), Tier(None, D("0.5")))), first=1)
    house.use("images", 8)
    house.use("images", 8, quarter=1)

    assert amounts(house) == {("images", 0): 8 * 2 + 2 * 1 + 6 * D("0.5")}
