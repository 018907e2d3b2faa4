"""Changing, cancelling and resuming: what a billing period holds afterwards, and what each part of it costs."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.credits.statements import period_statement
from billing.cycle import services as cycle
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.money import total
from billing.periods import QUARTER
from billing.pricing.schemes import Tier
from billing.pricing.services import create_version
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec, VersionSpec
from billing.rating.queries import lines, rated_series
from billing.subscriptions import queries, services
from billing.subscriptions.models import BillingPeriod, PlanSegment
from tests.billing.subscriptions.conftest import DAY, HALF, START, D, balance, searches, use
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version


@pytest.fixture
def small(meter):
    return make_version(make_plan("small"), base_fee=D(10), prices=(searches(amount="1", included=D(100)),))


@pytest.fixture
def large(meter):
    return make_version(make_plan("large"), base_fee=D(100), prices=(searches(amount="0.5", included=D(1000)),))


@pytest.fixture
def yearly(meter):
    return make_version(make_plan("yearly"), interval="year", base_fee=D(365), prices=(searches(),))


@pytest.fixture
def subscription(globex, small):
    return cycle.subscribe(customer=globex, version=small, starts_at=START, at=START)


def plan_segments(subscription):
    found = PlanSegment.objects.filter(period__customer=subscription.customer).order_by("starts_at")
    return found.select_related("period", "version__plan")


def segments(subscription):
    return [
        (segment.version.plan.key, f"{segment.starts_at:%m-%d %H:%M}", f"{segment.ends_at:%m-%d %H:%M}")
        for segment in plan_segments(subscription)
    ]


def fees(subscription):
    """What the base fee of each plan segment comes to."""
    found = plan_segments(subscription)
    return [segment.share.of_fee(segment.version.base_fee, "USD") for segment in found]


def rated(subscription):
    return [(line.quantity, line.amount) for line in lines(subscription.periods.latest("starts_at"))]


# --- a change now ---------------------------------------------------------------------------------------------


def test_a_change_now_begins_a_segment_at_the_quarter_hour(subscription, large):
    at = HALF + timedelta(minutes=7, seconds=30)

    cycle.change(subscription=subscription, version=large, when="now", at=at)

    assert segments(subscription) == [
        ("small", "06-01 00:00", "06-16 00:00"),
        ("large", "06-16 00:00", "07-01 00:00"),
    ]
    subscription.refresh_from_db()
    assert subscription.version == large
    assert subscription.periods.get().version == large


def test_the_fees_are_those_of_the_seconds(subscription, large):
    cycle.change(subscription=subscription, version=large, when="now", at=START + 10 * DAY)

    assert fees(subscription) == [D("3.33"), D("66.67")]


def test_quantities_begin_anew_and_what_is_included_counts_in_proportion(subscription, globex, large):
    use(globex, 60, START + DAY)
    cycle.change(subscription=subscription, version=large, when="now", at=HALF)
    use(globex, 510, HALF + DAY)

    # Half of 100 were included, then half of 1,000.
    assert rated(subscription) == [(60, 10), (510, 5)]
    edges = [START, HALF, START + 30 * DAY]
    assert [row.amount for row in rated_series(globex, edges=edges, unit="USD")] == [10, 5]


def test_bounds_of_tiers_are_not_cut(globex, meter):
    tiers = (Tier(D(10), D(2)), Tier(None, D(1)))
    version = make_version(make_plan("tiered"), prices=(searches(scheme="graduated", tiers=tiers),))
    other = make_version(make_plan("other"), prices=(searches(scheme="graduated", tiers=tiers),))
    subscription = cycle.subscribe(customer=globex, version=version, starts_at=START, at=START)
    use(globex, 12, START + DAY)
    cycle.change(subscription=subscription, version=other, when="now", at=HALF)
    use(globex, 12, HALF + DAY)

    assert rated(subscription) == [(12, 22), (12, 22)]


def test_usage_of_an_earlier_segment_that_comes_late_is_priced_there(subscription, globex, large):
    cycle.change(subscription=subscription, version=large, when="now", at=HALF)
    sent = [event(f"late-{n}", "globex", type="search", timestamp=(HALF - DAY).isoformat()) for n in range(51)]
    ingest(*sent, at=HALF + DAY)
    cycle.advance(customer_id=globex.pk, at=HALF + DAY)

    assert rated(subscription) == [(51, 1), (0, 0)]


def test_a_to_b_to_a_has_three_segments_that_share_a_whole(subscription, small, large):
    cycle.change(subscription=subscription, version=large, when="now", at=START + 10 * DAY)
    cycle.change(subscription=subscription, version=small, when="now", at=START + 20 * DAY)

    assert fees(subscription) == [D("3.33"), D("33.34"), D("3.33")]
    assert [segment.share.of(D(100)) for segment in plan_segments(subscription)] == [
        D("33.333333333333"),
        D("33.333333333334"),
        D("33.333333333333"),
    ]


@pytest.mark.parametrize("at", [HALF, HALF + timedelta(minutes=14, seconds=59, milliseconds=500)])
def test_a_change_that_is_taken_back_at_once_never_was(subscription, globex, small, large, at):
    """Also when a quarter hour begins in between."""
    cycle.change(subscription=subscription, version=large, when="now", at=at)
    cycle.change(subscription=subscription, version=small, when="now", at=at + timedelta(seconds=1))

    assert segments(subscription) == [("small", "06-01 00:00", "07-01 00:00")]


def test_of_several_changes_in_a_quarter_hour_the_last_one_counts(subscription, large, yearly, meter):
    medium = make_version(make_plan("medium"), prices=(searches(),))
    for version, minutes in ((large, 0), (medium, 5), (large, 10), (medium, 14)):
        cycle.change(subscription=subscription, version=version, when="now", at=HALF + timedelta(minutes=minutes))

    assert segments(subscription) == [
        ("small", "06-01 00:00", "06-16 00:00"),
        ("medium", "06-16 00:00", "07-01 00:00"),
    ]


def test_a_plan_with_other_periods_begins_a_new_one(subscription, yearly):
    cycle.change(subscription=subscription, version=yearly, when="now", at=HALF)

    assert segments(subscription) == [
        ("small", "06-01 00:00", "06-16 00:00"),
        ("yearly", "06-16 00:00", "06-16 00:00"),
    ]
    assert fees(subscription) == [5, 365]
    assert [period.status for period in subscription.periods.all()] == ["grace", "open"]


def test_a_plan_with_other_periods_replaces_one_that_has_just_begun(subscription, small, yearly):
    cycle.change(subscription=subscription, version=yearly, when="now", at=START + timedelta(minutes=5))
    assert segments(subscription) == [("yearly", "06-01 00:00", "06-01 00:00")]

    cycle.change(subscription=subscription, version=small, when="now", at=START + timedelta(minutes=6))
    assert segments(subscription) == [("small", "06-01 00:00", "07-01 00:00")]


def test_a_change_to_another_currency_is_refused(subscription, meter):
    euros = make_version(make_plan("euros", currency="EUR"), prices=(searches(unit="EUR"),))

    with pytest.raises(ValidationError) as refused:
        services.change(subscription=subscription, version=euros, when="now", at=HALF)

    assert set(refused.value.error_dict) == {"plan"}


def test_a_change_to_a_draft_is_refused(subscription, large):
    draft = create_version(plan=large.plan, spec=VersionSpec(), at=START)

    with pytest.raises(ValidationError) as refused:
        services.change(subscription=subscription, version=draft, when="now", at=HALF)

    assert set(refused.value.error_dict) == {"version"}


def test_a_change_to_a_meter_that_another_subscription_prices_is_refused(subscription, globex, meter):
    make_meter("images", aggregation="count", event_type="image")
    images = make_version(make_plan("images"), prices=(PriceSpec("images", "images", "USD", D(1)),))
    other = make_subscription(globex, images, START)

    with pytest.raises(Conflict) as refused:
        services.change(subscription=other, version=subscription.version, when="period_end", at=HALF)

    assert refused.value.code == "meter_already_priced"


# --- with the period ------------------------------------------------------------------------------------------


def test_a_change_at_the_period_end_waits_for_it(subscription, globex, large):
    services.change(subscription=subscription, version=large, when="period_end", at=HALF)
    assert segments(subscription) == [("small", "06-01 00:00", "07-01 00:00")]

    cycle.advance(customer_id=globex.pk, at=START + 31 * DAY)

    assert segments(subscription) == [
        ("small", "06-01 00:00", "07-01 00:00"),
        ("large", "07-01 00:00", "08-01 00:00"),
    ]
    subscription.refresh_from_db()
    assert (subscription.version, subscription.next_version) == (large, None)


def test_a_change_at_the_period_end_may_bring_other_periods(subscription, globex, yearly):
    services.change(subscription=subscription, version=yearly, when="period_end", at=HALF)

    cycle.advance(customer_id=globex.pk, at=START + 60 * DAY)

    assert segments(subscription)[1:] == [("yearly", "07-01 00:00", "07-01 00:00")]
    assert fees(subscription) == [10, 365]


def test_changing_to_the_present_version_calls_off_the_change_that_waits(subscription, small, large):
    services.change(subscription=subscription, version=large, when="period_end", at=HALF)

    changed = services.change(subscription=subscription, version=small, when="period_end", at=HALF)

    assert changed.next_version is None


def test_the_meters_of_a_change_that_waits_are_taken(subscription, globex, meter):
    make_meter("images", aggregation="count", event_type="image")
    images = make_version(make_plan("images"), prices=(PriceSpec("images", "images", "USD", D(1)),))
    services.change(subscription=subscription, version=images, when="period_end", at=HALF)

    with pytest.raises(Conflict):
        make_subscription(globex, images, HALF)


# --- cancelling -----------------------------------------------------------------------------------------------


def test_a_cancelled_subscription_ends_with_its_period(subscription, globex):
    cancelled = cycle.cancel(subscription=subscription, when="period_end", at=HALF)
    assert (cancelled.status, cancelled.ends_at) == ("active", START + 30 * DAY)

    cycle.advance(customer_id=globex.pk, at=START + 90 * DAY)

    subscription.refresh_from_db()
    assert subscription.status == "ended"
    assert [(period.ends_at, period.status) for period in subscription.periods.all()] == [(START + 30 * DAY, "grace")]
    assert queries.due_customers(START + 90 * DAY) == [globex.pk]  # to close it


def test_cancelling_now_charges_the_period_in_proportion(subscription, globex):
    use(globex, 60, START + DAY)

    cancelled = cycle.cancel(subscription=subscription, when="now", at=HALF + timedelta(minutes=7))

    assert (cancelled.status, cancelled.ends_at) == ("ended", HALF)
    assert fees(subscription) == [5]
    assert rated(subscription) == [(60, 10)]
    assert [period.status for period in subscription.periods.all()] == ["grace"]


def test_the_meter_is_free_again_at_once(subscription, globex, small):
    at = HALF + timedelta(minutes=7)
    cycle.cancel(subscription=subscription, when="now", at=at)

    again = cycle.subscribe(customer=globex, version=small, starts_at=at, at=at)

    assert again.starts_at == HALF


def test_a_subscription_that_is_cancelled_in_its_first_quarter_hour_never_was(subscription, globex, small):
    use(globex, 5, START)

    cycle.cancel(subscription=subscription, when="now", at=START + timedelta(minutes=5))

    assert segments(subscription) == []
    assert lines(subscription.periods.get()) == []
    again = cycle.subscribe(customer=globex, version=small, starts_at=START, at=START + timedelta(minutes=6))
    assert rated(again) == [(5, 0)]
    assert list(differences()) == []


@pytest.mark.parametrize("interval", ["year", "week"])
def test_a_cancelled_subscription_ends_with_the_period_that_a_change_begins(subscription, globex, meter, interval):
    services.cancel(subscription=subscription, when="period_end", at=START + DAY)
    other = make_version(make_plan("other"), interval=interval, prices=(searches(),))

    changed = services.change(subscription=subscription, version=other, when="now", at=HALF)

    assert changed.ends_at == queries.periods(globex).last().ends_at
    with pytest.raises(Conflict):  # its meter is taken until then
        cycle.subscribe(customer=globex, version=other, starts_at=changed.ends_at - DAY, at=HALF)


def test_a_cancellation_is_taken_back(subscription, globex):
    cycle.cancel(subscription=subscription, when="period_end", at=HALF)

    services.resume(subscription=subscription, at=HALF + DAY)
    cycle.advance(customer_id=globex.pk, at=START + 31 * DAY)

    assert len(segments(subscription)) == 2


def test_what_is_not_cancelled_is_not_resumed(subscription):
    with pytest.raises(Conflict) as refused:
        services.resume(subscription=subscription, at=HALF)

    assert refused.value.code == "not_cancelled"


def test_it_is_not_resumed_when_another_one_has_its_meters_by_then(subscription, globex, small):
    cycle.cancel(subscription=subscription, when="period_end", at=HALF)
    make_subscription(globex, small, START + 30 * DAY, at=HALF)

    with pytest.raises(Conflict) as refused:
        services.resume(subscription=subscription, at=HALF)

    assert refused.value.code == "meter_already_priced"


@pytest.mark.parametrize("act", ["change", "cancel", "resume"])
def test_what_has_ended_stays_ended(subscription, large, act):
    cycle.cancel(subscription=subscription, when="now", at=HALF)
    more = {"change": {"version": large, "when": "now"}, "cancel": {"when": "now"}, "resume": {}}[act]

    with pytest.raises(Conflict) as refused:
        getattr(services, act)(subscription=subscription, at=HALF, **more)

    assert refused.value.code == "subscription_ended"


# --- parts of a period ----------------------------------------------------------------------------------------


def test_a_period_that_begins_between_two_anchors_counts_in_proportion(globex, small):
    subscription = cycle.subscribe(customer=globex, version=small, starts_at=HALF, anchor_day=1, at=HALF)
    use(globex, 60, HALF + DAY)

    assert fees(subscription) == [5]
    assert rated(subscription) == [(60, 10)]


def test_a_period_that_begins_on_its_anchor_day_counts_whole_whatever_the_hour(globex, small):
    subscription = cycle.subscribe(
        customer=globex, version=small, starts_at=START + timedelta(hours=10), at=START + timedelta(hours=10)
    )

    assert fees(subscription) == [10]


# --- whatever happens -----------------------------------------------------------------------------------------


class Undone(Exception):  # noqa: N818 -- rolls back
    pass


@pytest.fixture
def both(globex, meter):
    prices = (searches(unit="credits", included=D(10)),)
    one = make_version(make_plan("one"), base_fee=D("9.99"), prices=prices, credits=(CreditSpec("credits", D(77)),))
    two = make_version(make_plan("two"), base_fee=D(2000), prices=prices, credits=(CreditSpec("credits", D(5000)),))
    return cycle.subscribe(customer=globex, version=one, starts_at=START, at=START), one, two


instants = st.integers(0, 30 * 86_400 - 2).map(lambda second: START + timedelta(seconds=second))
second_half = st.integers(15 * 86_400 + 1, 30 * 86_400 - 2).map(lambda second: START + timedelta(seconds=second))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instants, st.floats(0, 1))
def test_a_to_b_to_a_within_a_second_costs_what_a_costs_and_gives_nothing_twice(both, at, pause):
    subscription, one, two = both
    try:
        with transaction.atomic():
            cycle.change(subscription=subscription, version=two, when="now", at=at)
            cycle.change(subscription=subscription, version=one, when="now", at=at + timedelta(seconds=pause))

            assert abs(total(fees(subscription)) - one.base_fee) <= D("0.01")
            found = list(plan_segments(subscription))
            assert total(segment.share.of(D(10)) for segment in found) == 10
            assert balance(subscription.customer, at + timedelta(seconds=1)).available == 77
            raise Undone
    except Undone:
        pass


@pytest.fixture
def bundle(globex, meter):
    """A plan with every kind of term and an add-on, both used, and what each is changed to."""
    make_meter("sales", event_type="sale", value="amount")

    def plan(key, times, **fields):
        return make_version(
            make_plan(key, **fields),
            base_fee=D("9.99") * times,
            minimum_spend=D(40) * times,
            prices=(
                PriceSpec("sales", "sales", "USD", scheme="percentage", rate=D("2.9"), fixed_amount=D("0.3"),
                          included=D(7), minimum_amount=D("5.55") * times),
            ) if fields else (searches(unit="credits", included=D(10), maximum_amount=D(500)),),
            credits=(CreditSpec("credits", D(77) * times, every="month", rollover_max=D(5)),),
            overage=(OverageSpec("credits", D("0.013")),),
        )  # fmt: skip

    main = cycle.subscribe(customer=globex, version=plan("one", 1), starts_at=START, at=START)
    added = cycle.subscribe(
        customer=globex, version=plan("extra", 1, is_add_on=True), starts_at=START + 3 * DAY, beside=main, at=START
    )
    use(globex, 90, START + 4 * DAY)
    ingest(event("sale", "globex", type="sale", amount="123.45", timestamp=HALF.isoformat()), at=HALF)
    cycle.advance(customer_id=globex.pk, at=HALF)
    return (main, plan("two", 7)), (added, plan("more", 7, is_add_on=True))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(second_half, st.floats(0, 1), st.sampled_from([(0,), (1,), (0, 1)]))
def test_a_to_b_to_a_within_a_second_changes_no_statement(bundle, at, pause, which):
    end, period = START + 30 * DAY, bundle[0][0].periods.get()
    before = [one.amount_due for one in period_statement(period, at=end).units]
    try:
        with transaction.atomic():
            for number in which:
                subscription, other = bundle[number]
                back = subscription.version
                for version, then in ((other, at), (back, at + timedelta(seconds=pause))):
                    cycle.change(subscription=subscription, version=version, when="now", at=then)

            after = [one.amount_due for one in period_statement(period, at=end).units]
            assert all(now - then <= D("0.01") for now, then in zip(after, before, strict=True))
            assert list(differences()) == []
            raise Undone
    except Undone:
        pass


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(instants, st.booleans()), max_size=6))
def test_the_segments_of_a_period_tile_it_whatever_is_changed(both, changes):
    subscription, one, two = both
    try:
        with transaction.atomic():
            for at, is_first in sorted(changes):
                cycle.change(subscription=subscription, version=one if is_first else two, when="now", at=at)

            found = list(PlanSegment.objects.order_by("starts_at"))
            period = BillingPeriod.objects.get()
            edges = [found[0].starts_at, *(segment.ends_at for segment in found)]
            assert edges == [period.starts_at, *(segment.starts_at for segment in found[1:]), period.ends_at]
            assert all(segment.ends_at - segment.starts_at >= QUARTER for segment in found)
            assert total(segment.share.of_fee(D("9.99"), "USD") for segment in found) == D("9.99")
            assert list(differences()) == []
            raise Undone
    except Undone:
        pass
