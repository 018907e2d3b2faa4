"""Giving and voiding credits: what is covered is settled at once, and what has ended cannot come back."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

from billing.credits import queries, services
from billing.credits.models import CreditGrant, GrantKind, LedgerAccount, LedgerTransaction
from billing.cycle.services import advance
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.metering.queries import freshness
from tests.billing.credits.conftest import START
from tests.billing.credits.test_settlement import DAY, balance, use

NOON = START + timedelta(hours=12)


def give(customer, amount, at, kind=GrantKind.PROMOTIONAL, **fields) -> CreditGrant:
    return services.grant(customer=customer, unit="credits", amount=Decimal(amount), kind=kind, at=at, **fields)


def test_instants_are_rounded_to_quarter_hours(subscribed):
    given = give(subscribed, 5, NOON + timedelta(minutes=7), expires_at=NOON + DAY + timedelta(minutes=1))

    assert (given.effective_at, given.expires_at) == (NOON, NOON + DAY + timedelta(minutes=15))


def test_a_grant_pays_what_was_used_beyond_the_others_since_it_began(subscribed):
    use(130, NOON)
    advance(customer_id=subscribed.pk, at=NOON)
    assert balance(subscribed, NOON).overage == 30

    give(subscribed, 50, NOON + timedelta(minutes=10))

    found = balance(subscribed, NOON + timedelta(minutes=10))
    assert (found.overage, found.available) == (0, 20)
    assert list(differences()) == []


def test_a_grant_that_begins_in_a_closed_period_pays_what_was_used_in_it(subscribed):
    use(130, NOON)
    now = START + 40 * DAY
    advance(customer_id=subscribed.pk, at=now)
    advance(customer_id=subscribed.pk, at=now)

    late = give(subscribed, 50, now, effective_at=START)

    assert queries.grant_balance(late, now).used == 30


def test_a_grant_tells_open_pages(subscribed):
    before = freshness(subscribed).version

    give(subscribed, 5, NOON)

    assert freshness(subscribed).version > before


def test_a_grant_is_not_available_before_it_begins(subscribed):
    give(subscribed, 5, START, effective_at=NOON)

    assert balance(subscribed, NOON - timedelta(seconds=1)).available == 0
    assert balance(subscribed, NOON).available == 5


def test_credits_of_a_plan_kept_elsewhere_may_be_given_by_hand(subscribed):
    assert give(subscribed, 5, NOON, kind=GrantKind.PLAN).period is None


def test_credits_for_one_meter_pay_no_other(subscribed):
    narrow = services.grant(
        customer=subscribed,
        unit="credits",
        amount=Decimal(50),
        kind=GrantKind.PAID,
        meters=["tokens"],
        priority=1,
        at=START,
    )
    use(30, NOON)
    advance(customer_id=subscribed.pk, at=NOON)

    assert queries.grant_balance(narrow, NOON).used == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit", "usd"),
        ("amount", Decimal(0)),
        ("amount", Decimal(-1)),
        ("expires_at", START),
        ("meters", ["nothing"]),
        ("cost_basis", Decimal("NaN")),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(subscribed, field, value):
    fields = {"customer": subscribed, "unit": "credits", "amount": Decimal(1), "kind": GrantKind.PAID, "at": NOON}

    with pytest.raises(ValidationError) as refused:
        services.grant(**fields | {field: value})

    assert list(refused.value.message_dict) == [field]


# --- void ---------------------------------------------------------------------------------------------------


def test_usage_that_waits_for_the_next_tick_is_settled_before_a_void(subscribed):
    given = give(subscribed, 50, START, priority=1)
    use(10, NOON)

    services.void(grant=given, at=NOON)

    found = queries.grant_balance(CreditGrant.objects.get(pk=given.pk), NOON)
    assert (found.used, found.voided, found.remaining) == (10, 40, 0)
    assert list(differences()) == []


def test_a_void_settles_late_usage_of_a_closed_period_too(subscribed):
    april = START + 31 * DAY
    now = april + 2 * DAY
    advance(customer_id=subscribed.pk, at=april)
    advance(customer_id=subscribed.pk, at=now)
    given = give(subscribed, 50, now)
    use(30, april - timedelta(hours=1), now=now)

    services.void(grant=given, at=now)

    plan = CreditGrant.objects.get(kind="plan", effective_at=START)
    assert queries.grant_balance(plan, now).used == 30


def test_a_grant_is_voided_once(subscribed):
    given = give(subscribed, 50, START)
    services.void(grant=given, at=NOON)

    with pytest.raises(Conflict, match="void already"):
        services.void(grant=given, at=NOON)


def test_an_expired_grant_cannot_be_voided(subscribed):
    given = give(subscribed, 50, START, expires_at=NOON)

    with pytest.raises(Conflict, match="has expired"):
        services.void(grant=given, at=NOON)


def test_the_books_before_a_void_know_nothing_of_it(subscribed):
    given = give(subscribed, 50, START)
    services.void(grant=given, at=NOON)

    [before] = queries.balances(subscribed, START, recorded_by=START)
    [after] = queries.balances(subscribed, NOON, recorded_by=NOON)

    assert (before.balance, before.grants[0].grant.voided_at) == (50, None)
    assert (after.balance, after.grants[0].voided) == (0, 50)


# --- expiry -------------------------------------------------------------------------------------------------


def test_an_expiry_is_posted_for_when_it_was_however_late_the_tick(subscribed):
    given = give(subscribed, 50, START, expires_at=NOON)

    advance(customer_id=subscribed.pk, at=START + 3 * DAY)

    expiry = LedgerTransaction.objects.get(code="expiry")
    assert (expiry.effective_at, expiry.recorded_at) == (NOON, START + 3 * DAY)
    assert LedgerAccount.objects.get(grant=given).debits == 50


def test_an_ended_grant_makes_its_customer_due_until_its_rest_is_posted(subscribed):
    advance(customer_id=subscribed.pk, at=START)
    give(subscribed, 50, START, expires_at=NOON)
    assert queries.due_customers(NOON - timedelta(seconds=1)) == []
    assert queries.due_customers(NOON) == [subscribed.pk]

    advance(customer_id=subscribed.pk, at=NOON)

    assert queries.due_customers(NOON) == []


def test_an_event_at_the_instant_of_expiry_does_not_use_the_grant(subscribed):
    given = give(subscribed, 50, START, priority=1, expires_at=NOON)
    use(3, NOON - timedelta(seconds=1), now=NOON)
    use(4, NOON, first=10)

    advance(customer_id=subscribed.pk, at=NOON)

    found = queries.grant_balance(given, NOON)
    assert (found.used, found.expired) == (3, 47)


def test_a_grant_that_was_voided_when_nothing_was_left_ends_in_the_books_of_then_as_well(subscribed):
    spent = give(subscribed, 5, NOON, priority=1)
    give(subscribed, 5, NOON, priority=2)
    use(5, NOON)
    advance(customer_id=subscribed.pk, at=NOON)

    services.void(grant=spent, at=NOON)

    [now] = queries.balances(subscribed, NOON)
    [recorded] = queries.balances(subscribed, NOON, recorded_by=NOON)
    assert [item.grant.pk for item in recorded.grants] == [item.grant.pk for item in now.grants]
    assert [item.grant.voided_at for item in recorded.grants] == [item.grant.voided_at for item in now.grants]
