"""Amounts for one customer, coupons, and what usage costs the vendor: what may be said, and what is refused."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

from billing.credits.statements import period_statement
from billing.cycle import services as cycle
from billing.errors import Conflict
from billing.models import NamedValue
from billing.periods import Interval
from billing.pricing import agreements, costs
from billing.pricing.schemes import Tier
from billing.pricing.services import create_version
from billing.pricing.spec import MatchSpec, PriceSpec, VersionSpec
from billing.subscriptions import coupons
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

D = Decimal
AT = datetime(2026, 11, 24, 10, 7, tzinfo=UTC)
QUARTER = datetime(2026, 11, 24, 10, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def meter(db):
    return make_meter(dimensions=["model", "region"])


@pytest.fixture
def price(meter):
    rows = (MatchSpec({"model": "large"}, D("2.5")),)
    return make_version(make_plan(), prices=(PriceSpec("tokens", "tokens", "USD", D(1), match=rows),)).prices.get()


def fields(refused) -> dict[str, list[str]]:
    return {field: [error.code for error in errors] for field, errors in refused.value.error_dict.items()}


def override(customer, price, amounts=None, **changes):
    values = {"row": None, "amounts": amounts or MatchSpec({}, D(2)), "at": AT, **changes}
    return agreements.override_price(customer=customer, price=price, **values)


# --- amounts for one customer ---------------------------------------------------------------------------------


def test_an_override_begins_with_the_running_quarter_hour_and_ends_on_one(acme, price):
    made = override(acme, price, ends_at=AT + DAY)

    assert (made.starts_at, made.ends_at) == (QUARTER, QUARTER + DAY + timedelta(minutes=15))


def test_overrides_of_one_row_follow_each_other_but_never_overlap(acme, globex, price):
    override(acme, price, ends_at=QUARTER + DAY)
    override(acme, price, starts_at=QUARTER + DAY)
    override(acme, price, row=price.match.get())
    override(globex, price)

    with pytest.raises(Conflict) as refused:
        override(acme, price, starts_at=QUARTER + 2 * DAY)
    assert refused.value.code == "override_overlaps"


def test_one_that_was_called_off_is_in_nobodys_way(acme, price):
    ahead = override(acme, price, starts_at=QUARTER + DAY)
    agreements.end_override(override=ahead, at=AT)
    override(acme, price)

    with pytest.raises(Conflict, match="no longer"):
        agreements.end_override(override=ahead, at=AT)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"amounts": MatchSpec({}, D(-1))}, {"unit_amount": ["negative"]}),
        ({"amounts": MatchSpec({}, minimum_amount=D(2), maximum_amount=D(1))}, {"maximum_amount": ["below_minimum"]}),
        ({"starts_at": AT - DAY}, {"starts_at": ["in_the_past"]}),
        ({"ends_at": QUARTER}, {"ends_at": ["not_after_start"]}),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_field(acme, price, change, problem):
    with pytest.raises(ValidationError) as refused:
        override(acme, price, **change)
    assert fields(refused) == problem


def test_an_override_keeps_the_scheme_so_tiers_must_be_sound(acme, meter):
    tiers = (Tier(D(10), D(1)), Tier(None, D("0.5")))
    priced = PriceSpec("tokens", "tokens", "USD", scheme="graduated", tiers=tiers)
    price = make_version(make_plan(), prices=(priced,)).prices.get()

    with pytest.raises(ValidationError) as refused:
        override(acme, price, MatchSpec({}, tiers=tiers[:1]))

    assert fields(refused) == {"tiers.0.up_to": ["not_open"]}
    assert override(acme, price, MatchSpec({}, tiers=tiers[1:])).tiers[0]["unit_amount"] == "0.5"


def test_a_draft_is_changed_itself(acme, meter):
    spec = VersionSpec(prices=(PriceSpec("tokens", "tokens", "USD", D(1)),))
    draft = create_version(plan=make_plan(), spec=spec, at=AT)

    with pytest.raises(ValidationError) as refused:
        override(acme, draft.prices.get())
    assert fields(refused) == {"price": ["version_not_published"]}


# --- coupons --------------------------------------------------------------------------------------------------


def coupon(**changes):
    return agreements.create_coupon(**{"key": "spring", "name": "Spring", "percent": D(20), "at": AT, **changes})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"key": "a b"}, {"key": ["invalid"]}),
        ({"percent": D(101)}, {"percent": ["out_of_range"]}),
        ({"percent": None}, {"percent": ["one_of_two"]}),
        ({"amount": D(5), "currency": "USD"}, {"percent": ["one_of_two"]}),
        ({"percent": None, "amount": D(5)}, {"currency": ["unknown_currency"]}),
        ({"percent": None, "amount": D(0), "currency": "USD"}, {"amount": ["not_positive"]}),
        ({"duration": "periods"}, {"periods": ["out_of_range"]}),
        ({"duration": "often"}, {"duration": ["invalid_choice"]}),
        ({"redeem_by": AT - DAY}, {"redeem_by": ["in_the_past"]}),
        ({"max_redemptions": 0}, {"max_redemptions": ["not_positive"]}),
    ],
)
def test_a_coupon_that_makes_no_sense_is_refused_with_its_field(db, change, problem):
    with pytest.raises(ValidationError) as refused:
        coupon(**change)
    assert fields(refused) == problem


def test_a_coupon_key_is_taken_once(db):
    coupon()
    with pytest.raises(Conflict, match="already"):
        coupon()


@pytest.fixture
def subscription(acme, price):
    return make_subscription(acme, price.version, AT)


def discounted(subscription, at):
    """What coupons take off each billing period."""
    return [period_statement(one, at=at).main.discounts for one in subscription.periods.order_by("starts_at")]


@pytest.fixture
def paid(acme, meter):
    """10 USD for each billing period, in advance."""
    version = make_version(make_plan("paid"), base_fee=D(10))
    return make_subscription(acme, version, AT)


@pytest.mark.parametrize(
    ("change", "periods"),
    [({}, 1), ({"duration": "periods", "periods": 2}, 2), ({"duration": "forever"}, 3)],
)
@pytest.mark.parametrize("days", [[70], [10, 32, 33, 50, 63, 64, 70]])
def test_a_coupon_discounts_as_many_periods_as_it_says(paid, change, periods, days):
    """Whether the periods are frozen one by one or wait all at once."""
    coupons.redeem(subscription=paid, coupon=coupon(**change), at=AT)
    for day in days:
        cycle.advance(customer_id=paid.customer_id, at=AT + day * DAY)

    assert discounted(paid, AT + 70 * DAY) == [2] * periods + [0] * (3 - periods)


@pytest.mark.parametrize("days", [[70], [10, 15, 16, 32, 45, 46, 47, 70]])
def test_a_trial_uses_no_coupon_up(acme, meter, days):
    version = make_version(make_plan("tried"), base_fee=D(10), trial_days=14)
    subscription = make_subscription(acme, version, AT)
    coupons.redeem(subscription=subscription, coupon=coupon(), at=AT)
    for day in days:
        cycle.advance(customer_id=subscription.customer_id, at=AT + day * DAY)

    assert discounted(subscription, AT + 70 * DAY) == [0, 2, 0]


@pytest.mark.parametrize("days", [[], [31, 32, 33, 40]])
def test_a_period_in_which_nothing_is_paid_uses_no_coupon_up(subscription, days):
    """Nothing is used in the first month; in the second 50 USD are."""
    coupons.redeem(subscription=subscription, coupon=coupon(), at=AT)
    for day in days:
        cycle.advance(customer_id=subscription.customer_id, at=AT + day * DAY)
    for day in (42, 72):
        at = AT + day * DAY
        ingest(event(f"e{day}", subscription.customer.key, timestamp=at.isoformat(), tokens=50), at=at)
        cycle.advance(customer_id=subscription.customer_id, at=at)

    assert discounted(subscription, AT + 72 * DAY) == [0, 10, 0]


def test_taken_off_it_discounts_the_running_period_and_none_after_it(paid):
    redemption = coupons.redeem(subscription=paid, coupon=coupon(duration="forever"), at=AT)
    coupons.take_off(redemption=redemption, at=AT + DAY)
    cycle.advance(customer_id=paid.customer_id, at=AT + 40 * DAY)

    assert discounted(paid, AT + 40 * DAY) == [2, 0]
    with pytest.raises(Conflict, match="already"):
        coupons.take_off(redemption=redemption, at=AT + DAY)


@pytest.mark.parametrize(
    ("change", "days", "code"),
    [
        ({"redeem_by": AT + DAY}, 1, "coupon_expired"),
        ({"percent": None, "amount": D(5), "currency": "EUR"}, 0, "wrong_currency"),
    ],
)
def test_a_coupon_that_does_not_fit_is_refused(subscription, change, days, code):
    with pytest.raises(Conflict) as refused:
        coupons.redeem(subscription=subscription, coupon=coupon(**change), at=AT + days * DAY)
    assert refused.value.code == code


def test_a_coupon_is_redeemed_once_by_a_subscription_and_as_often_as_it_may(subscription, globex, meter, price):
    spring = coupon(max_redemptions=1)
    coupons.redeem(subscription=subscription, coupon=spring, at=AT)

    for customer_subscription, code in (
        (subscription, "coupon_used_up"),
        (make_subscription(globex, price.version, AT), "coupon_used_up"),
    ):
        with pytest.raises(Conflict) as refused:
            coupons.redeem(subscription=customer_subscription, coupon=spring, at=AT)
        assert refused.value.code == code


# --- unit costs -----------------------------------------------------------------------------------------------


def cost(meter, where, amount, **changes):
    values = {"effective_at": AT, "at": AT, **changes}
    return costs.record_cost(meter=meter, where=where, unit_amount=D(amount), **values)


def test_the_most_specific_cost_holds_from_its_quarter_hour_on(meter):
    cost(meter, {}, "1")
    cost(meter, {"model": "large"}, "5")
    cost(meter, {"model": "large"}, "4", effective_at=AT + DAY)

    [first, later] = costs.cost_terms([meter.pk], Interval(QUARTER, QUARTER + 2 * DAY))[meter.pk]

    assert (first.starts_at, later.starts_at) == (QUARTER, QUARTER + DAY)
    assert first.of({"model": "large"}).unit_amount == 5
    assert later.of({"model": "large"}).unit_amount == 4
    assert later.of({}).unit_amount == 1


def test_of_two_at_one_instant_the_later_said_counts(meter):
    cost(meter, {}, "1")
    cost(meter, {}, "2")

    [terms] = costs.cost_terms([meter.pk], Interval(QUARTER, QUARTER + DAY))[meter.pk]
    assert terms.of({}).unit_amount == 2


def test_what_nobody_said_has_no_cost(meter):
    cost(meter, {"model": "large"}, "5", per=D(1000))

    [terms] = costs.cost_terms([meter.pk], Interval(QUARTER, QUARTER + DAY))[meter.pk]
    assert terms.of({"model": "small"}) is None
    assert (terms.of({"model": "large"}).unit_amount, terms.of({"model": "large"}).per) == (5, 1000)
    assert costs.cost_terms([meter.pk], Interval(QUARTER - DAY, QUARTER)) == {}


def test_what_costs_name_keeps_its_place_however_many_values_there_are(meter):
    cost(meter, {"model": ["large", None]}, "5")
    cost(meter, {"model": "small"}, "1")
    cost(meter, {}, "2")

    named = NamedValue.objects.filter(named_by=f"unit costs of {meter.key}", dimension="model")
    assert {one.value for one in named} == {"large", "small", None}


def test_a_cost_that_makes_no_sense_is_refused_with_its_field(meter):
    cost(meter, {"model": "large"}, "5")
    for arguments, problem in (
        (({"region": "eu"}, "1"), {"where": ["ambiguous_match"]}),
        (({"colour": "red"}, "1"), {"where": ["unknown_dimension"]}),
        (({"model": []}, "1"), {"where": ["invalid"]}),
        (({}, "-1"), {"unit_amount": ["negative"]}),
    ):
        with pytest.raises(ValidationError) as refused:
            cost(meter, *arguments)
        assert fields(refused) == problem
    with pytest.raises(ValidationError) as refused:
        cost(make_meter("peak", aggregation="max"), {}, "1")
    assert fields(refused) == {"meter": ["not_additive"]}
