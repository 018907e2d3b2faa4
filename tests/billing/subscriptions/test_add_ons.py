"""Add-ons: subscriptions beside another one, whose billing periods, cancellation and statement they share."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

from accounts.models import Customer
from billing.credits.statements import period_statement
from billing.errors import Conflict
from billing.pricing.spec import PriceSpec
from billing.subscriptions import services
from billing.subscriptions.models import Subscription, SubscriptionStatus
from tests.factories import event, fold, ingest, make_meter, make_plan, make_subscription, make_version

D = Decimal
START = datetime(2026, 11, 3, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def main(globex):
    make_meter("tokens")
    version = make_version(make_plan(), base_fee=D(20), prices=(PriceSpec("tokens", "tokens", "USD", D(1)),))
    return make_subscription(globex, version, START, anchor_day=1)


def add_on(key="voice", **terms):
    make_meter(key, event_type=key)
    plan = make_plan(f"{key}-add-on", is_add_on=True)
    return make_version(plan, **{"base_fee": D(30), "prices": (PriceSpec(key, key, "USD", D(2)),), **terms})


def attach(main, version, at=START + 5 * DAY):
    return services.start(customer=main.customer, version=version, starts_at=at, beside=main, at=at)


def test_an_add_on_is_billed_where_its_subscription_is(main):
    voice = attach(main, add_on())
    services.roll(customer_id=main.customer_id, at=START + 40 * DAY)

    ours, theirs = (
        [(one.starts_at, one.ends_at) for one in each.periods.order_by("starts_at")] for each in (main, voice)
    )
    assert theirs[0] == (START + 5 * DAY, ours[0][1])
    assert theirs[1:] == ours[1:]


def test_a_bundle_holds_several_and_one_statement_lists_them(main):
    at = START + 8 * DAY
    attach(main, add_on())
    attach(main, add_on("images", base_fee=D(0)))
    sent = [event(f"e{key}", "globex", type=kind, timestamp=at.isoformat(), **{key: 3}) for key, kind in (
        ("tokens", "llm.completion"), ("voice", "voice"), ("images", "images"))]  # fmt: skip
    ingest(*sent, at=at)
    fold(main.customer, at=at)

    said = period_statement(main.periods.get(), at=at).main

    assert said.usage == 3 * 1 + 3 * 2 + 3 * 2
    assert said.fees == D("18.67") + D("23.00")  # 28 and 23 of November's 30 days


def test_a_meter_is_priced_once_however_it_is_bundled(main):
    version = make_version(make_plan("more", is_add_on=True), prices=(PriceSpec("t", "tokens", "USD", D(1)),))

    with pytest.raises(Conflict) as refused:
        attach(main, version)
    assert refused.value.code == "meter_already_priced"


def test_it_ends_and_resumes_with_its_subscription(main):
    voice = attach(main, add_on())
    at = START + 9 * DAY

    services.cancel(subscription=main, when="period_end", at=at)
    voice.refresh_from_db()
    assert voice.ends_at == main.periods.get().ends_at

    services.resume(subscription=main, at=at)
    voice.refresh_from_db()
    assert voice.ends_at is None

    services.cancel(subscription=main, when="now", at=at)
    voice.refresh_from_db()
    assert (voice.status, voice.ends_at) == (SubscriptionStatus.ENDED, at)


def test_it_is_cancelled_alone(main):
    voice = attach(main, add_on())

    services.cancel(subscription=voice, when="now", at=START + 9 * DAY)

    main.refresh_from_db()
    assert (main.status, main.ends_at) == (SubscriptionStatus.ACTIVE, None)


def test_what_does_not_fit_is_refused_at_its_field(main, acme):
    voice, other = add_on(), make_version(make_plan("other"))

    def fields(**arguments):
        values = {"customer": main.customer, "starts_at": START + DAY, "at": START + DAY, **arguments}
        with pytest.raises(ValidationError) as refused:
            services.start(**values)
        return list(refused.value.error_dict)

    assert fields(version=voice) == ["beside"]
    assert fields(version=voice, beside=main, customer=acme) == ["beside"]
    assert fields(version=voice, beside=main, starts_at=START - DAY) == ["starts_at"]
    assert fields(version=other, beside=main) == ["plan"]
    assert fields(version=add_on("yearly", interval="year"), beside=main) == ["plan"]
    assert fields(version=add_on("euro"), beside=attach(main, voice)) == ["beside"]


def test_a_subscription_with_add_ons_keeps_its_billing_periods(main):
    attach(main, add_on())
    yearly = make_version(make_plan("yearly"), interval="year")

    with pytest.raises(ValidationError, match="add-ons"):
        services.change(subscription=main, version=yearly, when="now", at=START + 9 * DAY)


def test_it_does_not_go_on_alone_where_its_subscription_is_cancelled(main):
    voice = attach(main, add_on())
    at = START + 9 * DAY
    services.cancel(subscription=main, when="period_end", at=at)

    with pytest.raises(Conflict) as refused:
        services.resume(subscription=voice, at=at)
    assert refused.value.code == "subscription_cancelled"


def test_none_begins_when_its_subscription_has_ended(main):
    at, later = START + 9 * DAY, START + 60 * DAY
    scheduled = services.start(customer=main.customer, version=add_on(), starts_at=later, beside=main, at=at)
    services.cancel(subscription=main, when="period_end", at=at)

    scheduled.refresh_from_db()
    assert (scheduled.status, scheduled.ends_at) == (SubscriptionStatus.ENDED, later)
    main.refresh_from_db()
    with pytest.raises(ValidationError, match="cancelled by then"):
        services.start(customer=main.customer, version=add_on("images"), starts_at=later, beside=main, at=at)


def test_what_became_of_its_subscription_meanwhile_counts(main):
    read_before = Subscription.objects.get(pk=main.pk)
    at = START + 9 * DAY
    services.cancel(subscription=main, when="now", at=at)

    with pytest.raises(ValidationError, match="has ended"):
        attach(read_before, add_on(), at)


# --- trials -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tried(globex):
    """14 days of trial from the third, at 10 o'clock."""
    make_meter("tokens")
    version = make_version(
        make_plan(), base_fee=D(20), trial_days=14, prices=(PriceSpec("tokens", "tokens", "USD", D(1)),)
    )
    return make_subscription(globex, version, START + timedelta(hours=10))


def spans(subscription):
    return [
        (period.starts_at, period.ends_at, [segment.is_trial for segment in period.plan_segments.order_by("starts_at")])
        for period in subscription.periods.order_by("starts_at")
    ]


def test_in_a_trial_it_is_tried_too_and_billed_with_it_afterwards(tried):
    voice = attach(tried, add_on())
    at = START + 20 * DAY
    services.roll(customer_id=tried.customer_id, at=at)

    trial_end = START + 14 * DAY + timedelta(hours=10)
    (_, _, tries), ours = spans(tried)
    assert (tries, ours[2]) == ([True], [False])
    assert spans(voice) == [(START + 5 * DAY, trial_end, [True]), ours]
    said = period_statement(tried.periods.earliest("starts_at"), at=at)
    assert (len(said.covered), said.main.amount_due) == (2, 0)
    assert period_statement(tried.periods.latest("starts_at"), at=at).main.fees == 20 + 30


def test_it_ends_with_a_trial_that_is_cancelled(tried):
    voice = attach(tried, add_on())
    services.cancel(subscription=tried, when="period_end", at=START + 6 * DAY)
    services.roll(customer_id=tried.customer_id, at=START + 60 * DAY)

    for one in (tried, voice):
        one.refresh_from_db()
        assert (one.status, one.ends_at) == (SubscriptionStatus.ENDED, tried.trial_ends_at)
        assert one.periods.count() == 1


def test_a_trial_of_its_own_ends_within_the_shared_periods(main):
    voice = attach(main, add_on(trial_days=30))
    at = START + 60 * DAY
    services.roll(customer_id=main.customer_id, at=at)

    assert [one[1] for one in spans(voice)] == [one[1] for one in spans(main)]
    assert [tries for *_, tries in spans(voice)] == [[True], [True, False], [False]]
    december = period_statement(main.periods.get(starts_at=datetime(2026, 12, 1, tzinfo=UTC)), at=at).main
    assert december.fees == 20 + D("23.23")  # 24 of 31 days: the trial ends on the eighth


def test_a_change_in_a_trial_of_its_own_keeps_it(main):
    voice = attach(main, add_on(trial_days=10))
    other = add_on("images", base_fee=D(3))
    for at in (START + 7 * DAY, START + 7 * DAY + timedelta(minutes=1)):
        services.change(subscription=voice, version=other, when="now", at=at)

    found = [
        (one.starts_at, one.version, one.is_trial) for one in voice.periods.get().plan_segments.order_by("starts_at")
    ]
    assert found == [
        (START + 5 * DAY, voice.version, True),
        (START + 7 * DAY, other, True),
        (START + 15 * DAY, other, False),
    ]


def test_it_shares_the_periods_of_another_zone_too(main):
    """The customer moved within the billing period: that keeps its end, and so does what is added to it."""
    Customer.objects.filter(pk=main.customer_id).update(timezone="Asia/Tokyo")
    main.customer.refresh_from_db()
    voice = attach(main, add_on())
    services.roll(customer_id=main.customer_id, at=START + 60 * DAY)

    assert [one[1] for one in spans(voice)] == [one[1] for one in spans(main)]
