"""What was agreed with a customer goes on under another plan version, as far as that prices the same."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.cycle import moving
from billing.cycle import services as cycle
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.pricing.models import PriceOverride
from billing.pricing.spec import MatchSpec, PriceSpec
from billing.rating.queries import lines
from billing.subscriptions import queries
from tests.billing.subscriptions.conftest import DAY, HALF, START, searches
from tests.factories import event, ingest, make_meter, make_plan, make_version

D = Decimal
JULY = datetime(2026, 7, 1, tzinfo=UTC)
MODELS = (MatchSpec({"model": "large"}, D(5)), MatchSpec({"model": ["mini", "nano"]}, D("0.5")))


@pytest.fixture
def plan(db):
    make_meter("searches", aggregation="count", event_type="search", dimensions=["model"])
    return make_plan()


@pytest.fixture
def old(plan):
    return make_version(plan, prices=(searches(match=MODELS),))


@pytest.fixture
def subscription(globex, old):
    return cycle.subscribe(customer=globex, version=old, starts_at=START, at=START)


def agree(subscription, amount, *, row=None, version=None, at=START, **dates):
    price = (version or subscription.version).prices.get()
    return cycle.override_price(
        customer=subscription.customer,
        price=price,
        row=None if row is None else price.match.all()[row],
        amounts=MatchSpec({}, D(amount)),
        at=at,
        **dates,
    )


def move(subscription, version, at, when="now"):
    return cycle.change(subscription=subscription, version=version, when=when, at=at)


def use(subscription, at, **properties):
    ingest(event(f"{at}-{properties}", "globex", type="search", timestamp=at.isoformat(), **properties), at=at)
    cycle.advance(customer_id=subscription.customer_id, at=at)


def amounts(subscription, period=0):
    """What each row of each plan segment costs."""
    found = lines(subscription.periods.order_by("starts_at")[period])
    return [(line.segment.version.number, line.row, line.amount) for line in found if line.quantity]


def test_it_holds_from_the_change_on(subscription, plan):
    agree(subscription, "0.7")
    agree(subscription, "4", row=0)
    # The rows stand in another order, and so do the values.
    new = make_version(
        plan, base_fee=D(9), prices=(searches(match=(MatchSpec({"model": ["nano", "mini"]}, D(1)), MODELS[0])),)
    )
    use(subscription, START + DAY)
    move(subscription, new, HALF)
    use(subscription, HALF + DAY)
    use(subscription, HALF + DAY, model="large")
    use(subscription, HALF + DAY, model="mini")

    assert amounts(subscription) == [(1, 0, D("0.7")), (2, 0, D("0.7")), (2, 1, 1), (2, 2, 4)]
    assert list(differences()) == []


def test_it_holds_from_the_next_period_on_where_the_change_waits_for_it(subscription, plan):
    new = make_version(plan, prices=(searches(amount="3"),))
    move(subscription, new, START + DAY, when="period_end")
    agree(subscription, "0.7", at=START + 2 * DAY, ends_at=JULY + 3 * DAY)
    for day in (1, 5):
        use(subscription, JULY + day * DAY)

    assert amounts(subscription, 1) == [(2, 0, D("0.7") + 3)]


def test_it_holds_where_the_period_begins_anew(subscription, plan):
    agree(subscription, "0.7")
    yearly = make_version(plan, interval="year", prices=(searches(amount="3"),))
    move(subscription, yearly, START + timedelta(minutes=2))
    use(subscription, START + DAY)

    assert amounts(subscription) == [(2, 0, D("0.7"))]


def test_what_is_undone_at_once_changes_nothing(subscription, plan, old):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(PriceSpec("other", "searches", "USD", D(3), per=D(10)),))
    also = make_version(plan, prices=(searches(amount="3"),))
    for version in (new, old, also, old):
        move(subscription, version, HALF)
    use(subscription, HALF + DAY)

    assert amounts(subscription) == [(1, 0, D("0.7"))]


def test_an_agreement_ends_under_every_version(subscription, plan, old):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(searches(amount="3"),))
    move(subscription, new, HALF)
    copy = PriceOverride.objects.get(price__version=new)
    cycle.end_override(override=copy, at=HALF + DAY)
    move(subscription, old, HALF + 2 * DAY)
    use(subscription, HALF + 3 * DAY)

    assert amounts(subscription) == [(1, 0, 1)]
    with pytest.raises(Conflict):
        cycle.end_override(override=copy, at=HALF + 3 * DAY)


def test_an_agreement_ends_by_any_part_of_it_while_one_still_holds(subscription, plan):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(searches(amount="3"),))
    agree(subscription, "0.6", version=new, starts_at=HALF + DAY, ends_at=HALF + 2 * DAY)
    move(subscription, new, HALF)
    past = PriceOverride.objects.get(price__version=new, ends_at=HALF + DAY)
    cycle.end_override(override=past, at=HALF + 3 * DAY)
    use(subscription, HALF + 4 * DAY)

    assert amounts(subscription) == [(2, 0, 3)]
    past.refresh_from_db()
    assert past.ends_at == HALF + DAY
    with pytest.raises(Conflict) as refused:
        cycle.end_override(override=past, at=HALF + 4 * DAY)
    assert refused.value.code == "override_ended"


def test_what_is_agreed_anew_for_another_version_does_not_end_what_was_agreed_before(subscription, plan, old):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(searches(amount="3"),))
    other = agree(subscription, "0.6", version=new)
    move(subscription, new, HALF)
    cycle.end_override(override=other, at=HALF + DAY)
    use(subscription, HALF + DAY)
    move(subscription, old, HALF + 2 * DAY)
    use(subscription, HALF + 3 * DAY)

    assert amounts(subscription) == [(2, 0, 3), (1, 0, D("0.7"))]


def test_what_an_end_changes_is_settled_at_once(subscription):
    agreed = agree(subscription, "0.7")
    use(subscription, START + timedelta(minutes=5))
    cycle.end_override(override=agreed, at=START + timedelta(minutes=10))

    assert amounts(subscription) == [(1, 0, 1)]
    assert list(differences()) == []


def test_what_was_agreed_for_the_other_version_itself_wins(subscription, plan):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(searches(amount="3"),))
    agree(subscription, "0.6", version=new)
    move(subscription, new, HALF)
    use(subscription, HALF + DAY)

    assert amounts(subscription) == [(2, 0, D("0.6"))]


def test_it_goes_on_before_and_after_what_was_agreed_for_the_other_version_itself(subscription, plan):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(searches(amount="3"),))
    agree(subscription, "0.6", version=new, starts_at=HALF + 2 * DAY, ends_at=HALF + 3 * DAY)
    move(subscription, new, HALF)
    for day in (1, 2, 3):
        use(subscription, HALF + day * DAY)

    assert amounts(subscription) == [(2, 0, D("0.7") + D("0.6") + D("0.7"))]
    assert list(differences()) == []


@pytest.mark.parametrize(
    ("dates", "said", "difference"),
    [
        ({}, "falls away, because other amounts are agreed there", D("-0.1")),
        (
            {"starts_at": datetime(2099, 1, 1, tzinfo=UTC), "ends_at": datetime(2099, 1, 2, tzinfo=UTC)},
            "carried over, but not while other amounts are agreed there",
            0,
        ),
    ],
)
def test_the_preview_of_a_move_counts_with_what_was_agreed_for_the_other_version(
    subscription, plan, dates, said, difference
):
    agree(subscription, "0.7")
    new = make_version(plan, prices=(searches(amount="3"),))
    agree(subscription, "0.6", version=new, **dates)
    use(subscription, START + DAY)
    [one] = moving.affected(list(queries.subscriptions()), new)

    assert one.agreed == [f"searches: {said}"]
    assert one.preview.difference == difference


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        (None, "searches has no price there"),
        (searches(unit="credits"), "searches is priced in credits there, not in USD"),
        (searches(per=D(10)), "searches is priced per 10 there, not per 1"),
        (
            PriceSpec("searches", "searches", "USD", scheme="package"),
            "searches is priced by another scheme there: package, not per unit",
        ),
        (searches(match=MODELS[1:]), "searches has no row for model = large there"),
    ],
)
def test_the_preview_of_a_move_says_what_falls_away_and_why(subscription, plan, price, reason):
    agree(subscription, "0.7", row=0)
    new = make_version(plan, prices=(price,) if price else ())
    [one] = moving.affected(list(queries.subscriptions()), new)

    assert one.agreed == [f"searches, model = large: falls away, because {reason}"]
    move(subscription, new, HALF)
    assert not PriceOverride.objects.filter(price__version=new).exists()


def test_the_preview_of_a_move_says_what_is_carried_over(subscription, plan):
    agree(subscription, "0.7", ends_at=datetime(2099, 1, 1, tzinfo=UTC))
    agree(subscription, "4", row=0)
    new = make_version(plan, prices=(searches(match=MODELS),))
    [one] = moving.affected(list(queries.subscriptions()), new)

    assert one.agreed == [
        "searches: carried over, until 1 January 2099, 00:00 UTC",
        "searches, model = large: carried over",
    ]
