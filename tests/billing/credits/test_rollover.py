"""What is left of a plan's credits moves to the next ones once, up to a limit, however late usage comes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest

from billing.credits import services
from billing.credits.models import AllocationCell, CreditGrant, GrantKind, LedgerEntry
from billing.credits.queries import balances
from billing.cycle.services import advance, tick
from billing.cycle.verify import differences
from billing.pricing.spec import CreditSpec, PriceSpec
from billing.subscriptions import services as subscriptions
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

pytestmark = pytest.mark.django_db
START = datetime(2026, 3, 1, tzinfo=UTC)
D = Decimal


def on(month, day=1, hour=0):
    return datetime(2026, month, day, hour, tzinfo=UTC)


def version(key="pro", amount=100, rollover=30, **spec):
    credits = CreditSpec("credits", D(amount), every=spec.pop("every", "period"), rollover_max=D(rollover))
    return make_version(make_plan(key), credits=(credits,), prices=(price(),), **spec)


def price():
    return PriceSpec("searches", meter="searches", unit="credits", unit_amount=D(1))


@pytest.fixture
def searches(db):
    return make_meter("searches", aggregation="count", event_type="search")


@pytest.fixture
def rolling(globex, searches):
    """Globex has 100 credits a month since March, of which 30 may roll over."""
    make_subscription(globex, version(), START)
    advance(customer_id=globex.pk, at=START)
    return globex


def use(customer, count, at, now=None):
    sent = [event(f"{at}-{now}-{n}", customer.key, type="search", timestamp=at.isoformat()) for n in range(count)]
    assert ingest(*sent, at=now or at, backfill=True).accepted == count
    advance(customer_id=customer.pk, at=now or at)


def story(customer, at):
    """Of each grant in time order: what rolled in, was used, rolled out, expired, and is left."""
    [balance] = balances(customer, at)
    items = sorted(balance.grants, key=lambda item: (item.grant.effective_at, item.grant.pk))
    return [(item.grant.rolled_in, item.used, item.rolled_out, item.expired, item.remaining) for item in items]


def test_what_will_roll_over_is_not_said_to_be_lost(rolling):
    """Two a day: 62 are used in March, 38 would be left, of which 30 go to April's."""
    for day in range(1, 11):
        use(rolling, 2, on(3, day))
    [balance] = balances(rolling, on(3, 11))
    [march] = balance.grants
    assert balance.outlook.per_day == 2
    assert balance.outlook.lapses[march.grant.pk] == 8
    assert [amount for at, amount in balance.outlook.path if at == on(4)] == [38, 130]


def test_a_rest_moves_on_up_to_the_limit_and_the_others_expire(rolling):
    use(rolling, 20, on(3, 5))
    advance(customer_id=rolling.pk, at=on(4))

    assert story(rolling, on(4)) == [(0, 20, 30, 50, 0), (30, 0, 0, 0, 130)]
    assert balances(rolling, on(4))[0].available == 130
    assert list(differences()) == []


def test_a_small_rest_moves_on_whole(rolling):
    use(rolling, 90, on(3, 5))
    advance(customer_id=rolling.pk, at=on(4))

    assert story(rolling, on(4)) == [(0, 90, 10, 0, 0), (10, 0, 0, 0, 110)]


def test_what_rolled_over_rolls_over_again_only_within_the_limit(rolling):
    for month in (4, 5):
        advance(customer_id=rolling.pk, at=on(month))

    assert story(rolling, on(5)) == [(0, 0, 30, 70, 0), (30, 0, 30, 100, 0), (30, 0, 0, 0, 130)]


def test_late_usage_takes_back_what_had_rolled_over_without_it(rolling):
    use(rolling, 90, on(3, 5))
    advance(customer_id=rolling.pk, at=on(4))
    use(rolling, 105, on(4, 1, 2))
    assert story(rolling, on(4, 1, 2)) == [(0, 90, 10, 0, 0), (10, 105, 0, 0, 5)]
    use(rolling, 8, on(3, 31), now=on(4, 1, 3))

    assert story(rolling, on(4, 1, 3)) == [(0, 98, 2, 0, 0), (2, 102, 0, 0, 0)]
    assert balances(rolling, on(4, 1, 3))[0].overage == 3
    assert list(differences()) == []


def test_usage_of_a_closed_month_that_comes_late_goes_through_every_month_since(rolling):
    for month in (4, 5, 6):
        advance(customer_id=rolling.pk, at=on(month, 3))
    use(rolling, 95, on(3, 20), now=on(6, 4))

    assert story(rolling, on(6, 4))[:2] == [(0, 95, 5, 0, 0), (5, 0, 30, 75, 0)]
    assert list(differences()) == []


DEEDS = {
    "march": lambda customer, now: use(customer, 85, on(3, 10), now),
    "end of march": lambda customer, now: use(customer, 9, on(3, 31), now),
    "april": lambda customer, now: use(customer, 110, on(4, 2), now),
    "may": lambda customer, now: use(customer, 3, on(5, 2), now),
}


@pytest.mark.parametrize("order", list(permutations(DEEDS))[::5])
def test_any_order_of_the_same_usage_ends_in_the_same_cells(rolling, order):
    for number, name in enumerate(order):
        DEEDS[name](rolling, on(5, 3, number))

    assert story(rolling, on(5, 4)) == [(0, 94, 6, 0, 0), (6, 106, 0, 0, 0), (0, 3, 0, 0, 97)]
    cells = AllocationCell.objects.filter(grant=None).exclude(posted=0)
    assert [(cell.segment_starts_at, cell.posted) for cell in cells] == [(on(4), 4)]
    assert list(differences()) == []


def test_running_it_again_moves_nothing_twice(rolling):
    advance(customer_id=rolling.pk, at=on(4))
    entries = LedgerEntry.objects.count()
    advance(customer_id=rolling.pk, at=on(4))
    tick(at=on(4))
    assert LedgerEntry.objects.count() == entries


def test_a_void_grant_leaves_nothing_to_the_next(rolling):
    services.void(grant=CreditGrant.objects.get(), at=on(3, 20))
    advance(customer_id=rolling.pk, at=on(4))
    assert story(rolling, on(4))[1] == (0, 0, 0, 0, 100)


def test_voiding_forfeits_what_rolled_over_too_and_late_usage_still_finds_what_was_paid(rolling):
    use(rolling, 80, on(3, 5))
    advance(customer_id=rolling.pk, at=on(4))
    use(rolling, 3, on(4, 2))
    heir = CreditGrant.objects.get(effective_at=on(4))
    services.void(grant=heir, at=on(4, 2, 1))
    use(rolling, 15, on(3, 30), now=on(4, 2, 2))

    heir.refresh_from_db()
    [balance] = balances(rolling, on(4, 2, 3))
    [item] = [item for item in balance.grants if item.grant == heir]
    assert (heir.rolled_in, item.used, item.voided, item.remaining) == (5, 3, 102, 0)
    assert balance.overage == 0
    assert list(differences()) == []


def test_as_the_books_stood_then_the_rest_had_moved_by_then(rolling):
    use(rolling, 90, on(3, 5))
    advance(customer_id=rolling.pk, at=on(4))
    use(rolling, 8, on(3, 31), now=on(4, 1, 3))
    [before] = balances(rolling, on(4, 1, 2), recorded_by=on(4, 1, 2))
    [after] = balances(rolling, on(4, 1, 4), recorded_by=on(4, 1, 4))
    assert (before.balance, after.balance) == (110, 102)


def test_the_next_plans_credits_inherit_too(globex, searches):
    subscription = make_subscription(globex, version(), START)
    advance(customer_id=globex.pk, at=START)

    subscriptions.change(subscription=subscription, version=version("max", amount=500), when="period_end", at=on(3, 9))
    advance(customer_id=globex.pk, at=on(4))
    assert story(globex, on(4)) == [(0, 0, 30, 70, 0), (30, 0, 0, 0, 530)]


# --- every month of a longer period -----------------------------------------------------------------------------------


@pytest.fixture
def yearly(globex, searches):
    """100 credits in each month of a year."""
    make_subscription(globex, version(interval="year", every="month"), START)
    tick(at=START)
    return globex


def test_each_month_of_a_year_brings_its_credits_when_it_begins(yearly):
    assert CreditGrant.objects.count() == 1
    tick(at=on(4))
    tick(at=on(4, 1, 1))

    grants = CreditGrant.objects.order_by("effective_at")
    assert [(grant.effective_at, grant.expires_at) for grant in grants] == [(on(3), on(4)), (on(4), on(5))]
    assert story(yearly, on(4, 1, 1)) == [(0, 0, 30, 70, 0), (30, 0, 0, 0, 130)]


def test_months_that_were_missed_are_made_up_for_in_order(yearly):
    tick(at=on(7, 5))
    assert CreditGrant.objects.count() == 5
    assert [rolled for rolled, *_ in story(yearly, on(7, 5))] == [0, 30, 30, 30, 30]
    assert list(differences()) == []


def test_months_follow_the_day_of_the_start(globex, searches):
    start = datetime(2026, 1, 31, tzinfo=UTC)
    make_subscription(globex, version(interval="year", every="month"), start)
    tick(at=on(4, 2))
    ends = CreditGrant.objects.order_by("effective_at").values_list("expires_at", flat=True)
    assert list(ends) == [on(2, 28), on(3, 31), on(4, 30)]


def test_late_usage_of_an_earlier_month_finds_that_months_credits(yearly):
    tick(at=on(4))
    use(yearly, 120, on(4, 10))
    use(yearly, 95, on(3, 28), now=on(4, 11))
    assert story(yearly, on(4, 11)) == [(0, 95, 5, 0, 0), (5, 105, 0, 0, 0)]
    assert balances(yearly, on(4, 11))[0].overage == 15
    assert list(differences()) == []


# --- corrections by operators -----------------------------------------------------------------------------------------


@pytest.fixture
def paid(globex, searches):
    make_subscription(globex, version(amount=10, rollover=0), START)
    return services.grant(customer=globex, unit="credits", amount=D(50), kind=GrantKind.PAID, at=START)


def adjusted(grant, amount, at=START + timedelta(days=1), reason="Goodwill"):
    return services.adjust(grant=grant, amount=D(amount), reason=reason, at=at)


def test_adding_to_a_grant_pays_what_was_beyond_it(globex, paid):
    use(globex, 70, on(3, 2))
    assert balances(globex, on(3, 3))[0].overage == 10
    adjusted(paid, 25, on(3, 3))

    [balance] = balances(globex, on(3, 3))
    assert (balance.overage, balance.available) == (0, 15)
    assert list(differences()) == []
    entry = LedgerEntry.objects.get(transaction__code="adjustment", account__grant=paid)
    assert (entry.direction, entry.amount, entry.transaction.reason) == ("credit", 25, "Goodwill")


def test_no_more_can_be_taken_than_is_left(globex, paid):
    use(globex, 30, on(3, 2))
    with pytest.raises(services.ValidationError, match="No more than 30 credits"):
        adjusted(paid, -31, on(3, 3))
    adjusted(paid, -30, on(3, 3))
    assert balances(globex, on(3, 3))[0].available == 0
    assert list(differences()) == []


@pytest.mark.parametrize(("amount", "reason", "field"), [(0, "x", "amount"), (5, " ", "reason")])
def test_a_correction_says_how_much_and_why(paid, amount, reason, field):
    with pytest.raises(services.ValidationError) as refused:
        adjusted(paid, amount, reason=reason)
    assert list(refused.value.message_dict) == [field]


def test_a_void_grant_is_not_corrected(paid):
    services.void(grant=paid, at=START + timedelta(hours=1), reason="A mistake")
    assert LedgerEntry.objects.filter(transaction__reason="A mistake").count() == 2
    with pytest.raises(services.Conflict, match="void already"):
        adjusted(paid, 5)
