"""Add-ons: subscriptions beside another one, whose billing periods, cancellation and statement they share."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

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
