"""A change to a plan with other billing periods that is taken back within a quarter hour never was."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.budgets.queries import judged_periods
from billing.credits.statements import period_statement
from billing.cycle import services as cycle
from billing.cycle.verify import differences
from billing.pricing.agreements import create_coupon
from billing.pricing.models import PriceOverride
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec
from billing.subscriptions import coupons, queries, services
from tests.billing.subscriptions.conftest import DAY, HALF, START, D, balance, searches, use
from tests.factories import make_plan, make_version

MINUTE = timedelta(minutes=1)
TIMES = {"day": 1, "week": 7, "month": 30, "year": 365}


class Undone(Exception):  # noqa: N818 -- rolls back
    pass


def plan(key, interval, times, **fields):
    return make_version(
        make_plan(key, **fields.pop("of_plan", {})),
        interval=interval,
        base_fee=D("1.99") * times,
        minimum_spend=D(3) * times,
        prices=fields.pop("prices", (searches(unit="credits", included=D(5)),)),
        credits=(CreditSpec("credits", D(20) * times, every="month" if interval == "year" else "period"),),
        overage=(OverageSpec("credits", D("0.25")),),
        **fields,
    )


@pytest.fixture
def plans(meter):
    return {interval: plan(f"per-{interval}", interval, times) for interval, times in TIMES.items()}


@pytest.fixture
def monthly(globex, plans):
    return cycle.subscribe(customer=globex, version=plans["month"], starts_at=START, at=START)


def move(subscription, version, at):
    return cycle.change(subscription=subscription, version=version, when="now", at=at)


def told(subscription, at):
    """All that the customer is told at that time, and what is coming."""
    subscription.refresh_from_db()
    customer = subscription.customer
    cycle.advance(customer_id=customer.pk, at=at)
    found = balance(customer, at)
    return (
        [getattr(subscription, name) for name in ("version_id", "next_version_id", "ends_at", "status")],
        [subscription.anchored_on, subscription.anchor_day, subscription.anchor_month],
        [
            (
                [period.starts_at, period.ends_at, period.whole_starts_at, period.whole_ends_at, period.status],
                [(part.version_id, part.starts_at, part.ends_at) for part in queries.segments_of(period)],
                [
                    (unit.unit, unit.fees, unit.credits_applied, unit.amount_due)
                    for unit in period_statement(period, at=at).units
                ],
            )
            for period in queries.periods(customer)
        ],
        queries.current_period(customer, at) == queries.current_periods([customer.pk], at)[0],
        (found.available, found.overage),
    )


def undone(act):
    """What `act` answers, as if it had never been done."""
    try:
        with transaction.atomic():
            answer = act()
            raise Undone
    except Undone:
        return answer


def never_changed(subscription, at):
    return undone(lambda: told(subscription, at))


# --- A to B to A ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["year", "week", "day"])
@pytest.mark.parametrize("at", [START + MINUTE, HALF, HALF + 14 * MINUTE])
@pytest.mark.parametrize("later", [timedelta(), 40 * DAY])
def test_a_plan_with_other_periods_that_is_taken_back_never_was(monthly, plans, other, at, later):
    """Also when a quarter hour begins in between, and in the first quarter hour of a period."""
    back = at + 10 * MINUTE
    as_if = never_changed(monthly, back + later)

    move(monthly, plans[other], at)
    move(monthly, plans["month"], back)

    assert told(monthly, back + later) == as_if
    assert list(differences()) == []


def test_after_a_quarter_hour_it_is_a_change_like_any_other(monthly, plans):
    move(monthly, plans["year"], HALF)
    move(monthly, plans["month"], HALF + 15 * MINUTE)

    [*_, last] = queries.periods(monthly.customer)
    assert (last.starts_at, last.version) == (HALF + 15 * MINUTE, plans["month"])


@pytest.mark.parametrize("other", ["year", "week"])
@pytest.mark.parametrize("minutes", [0, 14])
def test_credits_that_were_used_in_between_are_drawn_from_those_that_always_were(monthly, plans, other, minutes):
    at, customer = HALF + minutes * MINUTE, monthly.customer
    use(customer, 90, START + DAY)

    def use_more():
        use(customer, 40, at + MINUTE)

    as_if = undone(lambda: (use_more(), told(monthly, at + DAY)))[1]
    move(monthly, plans[other], at)
    use_more()
    move(monthly, plans["month"], at + 2 * MINUTE)

    assert told(monthly, at + DAY) == as_if
    assert list(differences()) == []


@pytest.mark.parametrize("other", ["year", "week"])
def test_a_cancellation_waits_as_it_did(monthly, plans, other):
    cycle.cancel(subscription=monthly, when="period_end", at=START + DAY)
    as_if = never_changed(monthly, HALF + DAY)

    move(monthly, plans[other], HALF)
    move(monthly, plans["month"], HALF + MINUTE)

    assert told(monthly, HALF + DAY) == as_if
    assert monthly.ends_at == START + 30 * DAY


def test_in_a_trial_the_trial_goes_on(globex, meter):
    versions = {
        key: plan(f"trial-{key}", key, TIMES[key], trial_days=10, prices=(searches(unit="credits"),))
        for key in ("month", "year")
    }
    tried = cycle.subscribe(customer=globex, version=versions["month"], starts_at=START, anchor_day=5, at=START)
    use(globex, 3, START + DAY)

    def as_told():
        return told(tried, START + 60 * DAY)[2]

    as_if = undone(as_told)
    move(tried, versions["year"], START + DAY)
    move(tried, versions["month"], START + DAY + MINUTE)

    assert as_told() == as_if


def test_a_period_that_ends_in_between_is_followed_by_the_next(monthly, plans):
    end = START + 30 * DAY
    as_if = never_changed(monthly, end + 10 * MINUTE)

    move(monthly, plans["day"], end - 4 * MINUTE)
    cycle.advance(customer_id=monthly.customer_id, at=end)
    move(monthly, plans["month"], end + 10 * MINUTE)

    assert told(monthly, end + 10 * MINUTE) == as_if


def test_periods_that_begin_between_anchors_stay_such(globex, plans):
    yearly = cycle.subscribe(
        customer=globex, version=plans["year"], starts_at=START, anchor_day=9, anchor_month=3, at=START
    )
    as_if = never_changed(yearly, START + 30 * DAY)

    move(yearly, plans["month"], START + MINUTE)
    move(yearly, plans["year"], START + 2 * MINUTE)
    assert told(yearly, START + 30 * DAY) == as_if


def test_of_several_changes_in_a_quarter_hour_the_last_one_counts(monthly, plans):
    as_if = never_changed(monthly, HALF + 13 * MINUTE)

    for minutes, interval in enumerate(["year", "month", "week", "day", "week", "month", "year", "month"]):
        move(monthly, plans[interval], HALF + minutes * MINUTE)

    assert told(monthly, HALF + 13 * MINUTE) == as_if
    move(monthly, plans["year"], HALF + 14 * MINUTE)
    [_, last] = queries.periods(monthly.customer)
    assert (last.starts_at, last.version, last.status) == (HALF, plans["year"], "open")
    assert balance(monthly.customer, HALF + 14 * MINUTE).available == 20 * 365
    assert list(differences()) == []


def test_a_plan_with_periods_as_before_begins_a_segment_of_the_one_that_goes_on(monthly, plans):
    other = plan("other", "month", 60)
    move(monthly, plans["year"], HALF)
    move(monthly, other, HALF + MINUTE)

    [period] = queries.periods(monthly.customer)
    assert [(part.version, part.starts_at, part.ends_at) for part in queries.segments_of(period)] == [
        (plans["month"], START, HALF),
        (other, HALF, START + 30 * DAY),
    ]


def test_a_change_before_it_in_the_same_quarter_hour_stays(monthly, plans):
    other = plan("other", "month", 60)
    move(monthly, other, HALF)
    as_if = never_changed(monthly, HALF + 5 * MINUTE)

    move(monthly, plans["year"], HALF + MINUTE)
    move(monthly, other, HALF + 2 * MINUTE)

    assert told(monthly, HALF + 5 * MINUTE) == as_if


# --- what goes with it ----------------------------------------------------------------------------------------------


def test_an_add_on_keeps_the_period_that_it_shares(monthly, plans, globex):
    """While there is one, there are no other billing periods to change to; so its period is never cut."""
    extra = plan("extra", "month", 10, prices=(), of_plan={"is_add_on": True})
    yearly_extra = plan("yearly-extra", "year", 10, prices=(), of_plan={"is_add_on": True})
    added = cycle.subscribe(customer=globex, version=extra, starts_at=START + DAY, beside=monthly, at=START + DAY)
    cycle.cancel(subscription=added, when="now", at=START + 3 * DAY)
    as_if = never_changed(monthly, HALF + DAY)

    move(monthly, plans["year"], HALF)
    beside = cycle.subscribe(customer=globex, version=yearly_extra, starts_at=HALF, beside=monthly, at=HALF)
    with pytest.raises(ValidationError):
        move(monthly, plans["month"], HALF + MINUTE)
    cycle.cancel(subscription=beside, when="now", at=HALF + MINUTE)
    move(monthly, plans["month"], HALF + 2 * MINUTE)

    assert told(monthly, HALF + DAY) == as_if
    again = cycle.subscribe(customer=globex, version=extra, starts_at=HALF, beside=monthly, at=HALF + 3 * MINUTE)
    assert again.periods.get().ends_at == START + 30 * DAY


@pytest.mark.parametrize("redeemed_at", [START + DAY, HALF + MINUTE])
def test_a_coupon_for_one_period_discounts_the_one_that_goes_on(monthly, plans, redeemed_at):
    def redeem():
        once = create_coupon(key="half", name="Half", percent=D(50), duration="once", at=START)
        coupons.redeem(subscription=monthly, coupon=once, at=redeemed_at)

    as_if = undone(lambda: (redeem(), told(monthly, START + 70 * DAY)))[1]

    if redeemed_at < HALF:
        redeem()
    move(monthly, plans["year"], HALF)
    if redeemed_at > HALF:
        redeem()
    move(monthly, plans["month"], HALF + 2 * MINUTE)

    assert told(monthly, START + 70 * DAY) == as_if


def test_agreed_prices_are_as_they_were(monthly, plans, globex):
    def agree(version, amount):
        cycle.override_price(
            customer=globex, price=version.prices.get(), row=None, amounts=MatchSpec({}, D(amount)), at=START
        )

    agree(plans["month"], "0.5")
    before = list(PriceOverride.objects.values_list("pk", "starts_at", "ends_at"))

    move(monthly, plans["year"], HALF)
    assert PriceOverride.objects.filter(price__version=plans["year"], ends_at=None).exists()
    move(monthly, plans["month"], HALF + MINUTE)

    lasting = [row for row in PriceOverride.objects.values_list("pk", "starts_at", "ends_at") if row[1] != row[2]]
    assert lasting == before


def test_budgets_watch_the_period_that_goes_on(monthly, plans, globex):
    move(monthly, plans["year"], HALF)
    move(monthly, plans["month"], HALF + MINUTE)

    assert judged_periods([globex.pk], HALF + DAY) == list(queries.periods(globex))
    assert services.roll(customer_id=globex.pk, at=HALF + 2 * DAY)  # the empty one closes
    cycle.advance(customer_id=globex.pk, at=HALF + 2 * DAY)
    assert [one.ends_at for one in queries.periods(globex)] == [START + 30 * DAY]
    assert queries.period_before(queries.periods(globex).get()) is None
    assert list(differences()) == []


# --- whatever happens -----------------------------------------------------------------------------------------------

seconds = st.one_of(st.integers(0, 900), st.integers(0, 27 * 86_400))
pairs = st.permutations(sorted(TIMES)).map(lambda intervals: intervals[:2])
pauses = st.one_of(st.floats(0, 1), st.floats(0, 899))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=pairs, times=st.tuples(seconds, pauses), how=st.tuples(st.sampled_from([None, 10]), st.booleans()))
def test_a_to_b_to_a_is_as_if_there_had_been_no_change(globex, plans, pair, times, how):
    """Statements, credits, allowance and what is to come, whichever plans they are."""
    one, other = (plans[interval] for interval in pair)
    anchor_day, is_cancelled = how
    at = START + timedelta(seconds=times[0])
    back = at + timedelta(seconds=times[1])
    day = anchor_day if pair[0] in ("month", "year") else None

    def act(does_change):
        customer = type(globex).objects.get(pk=globex.pk)
        subscription = cycle.subscribe(customer=customer, version=one, starts_at=START, anchor_day=day, at=START)
        use(customer, 30, START)
        if is_cancelled and queries.periods(globex).get().ends_at > at + 2 * DAY:  # others would end in between
            cycle.cancel(subscription=subscription, when="period_end", at=START)
        if does_change:
            move(subscription, other, at)
        use(customer, 7, back, name="between")
        if does_change:
            move(subscription, one, back)
            assert list(differences()) == []
        return told(subscription, back), told(subscription, at + 2 * DAY)

    assert undone(lambda: act(does_change=True)) == undone(lambda: act(does_change=False))
