"""Whose books fail a check is parked with the reason, still counts, and is free when they pass again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from accounts.models import Customer, User
from billing.credits.models import Settlement
from billing.credits.queries import balances
from billing.cycle.checking import check_all, check_nightly, retry_parked
from billing.cycle.models import BooksCheck
from billing.cycle.services import advance, tick
from billing.pricing.spec import CreditSpec, PriceSpec
from tests.conftest import as_owner
from tests.factories import event, fold, ingest, make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)
AT = START + timedelta(days=1)


@pytest.fixture
def pair(committed):
    """Two customers that search."""
    make_meter("searches", aggregation="count", event_type="search")
    price = PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1))
    version = make_version(make_plan(), credits=(CreditSpec("credits", Decimal(100)),), prices=(price,))
    customers = [Customer.objects.create(key=key, name=key) for key in ("globex", "initech")]
    for customer in customers:
        make_subscription(customer, version, START)
        search(customer, 3)
        fold(customer, at=AT + timedelta(days=1))  # sums up the day
    return customers


def search(customer, number, at=AT):
    sent = [
        event(f"{customer.key}-{at}-{n}", customer.key, type="search", timestamp=at.isoformat()) for n in range(number)
    ]
    ingest(*sent, at=at)
    tick(at=at)


def damage(by):
    as_owner(f"UPDATE billing_usageday SET quantity = quantity + ({by})")


def available(customer):
    return balances(customer, AT + timedelta(hours=1))[0].available


def test_books_that_agree_are_recorded_as_such(pair):
    check = check_all(at=AT)
    assert (check.customers, check.differences, check.parked, check.found) == (2, 0, 0, [])


def test_a_check_from_the_middle_of_a_quarter_hour_on_compares_all_of_it(pair):
    search(pair[0], 2, AT + timedelta(minutes=7))
    assert check_all(at=AT + timedelta(minutes=9), since=AT + timedelta(minutes=5)).found == []


def test_only_the_customer_whose_books_fail_is_parked_and_says_why(pair):
    globex, initech = pair
    as_owner(f"UPDATE billing_usageday SET quantity = quantity + 1 WHERE customer_id = {globex.pk}")
    check = check_all(at=AT)
    search(globex, 2, AT + timedelta(minutes=1))
    search(initech, 2, AT + timedelta(minutes=1))
    state = Settlement.objects.get(customer=globex)

    assert (check.differences > 0, check.parked) == (True, 1)
    assert "a day is not the sum of its buckets" in check.found[0]
    assert "a day is not the sum of its buckets" in state.parked_reason
    assert balances(globex, AT + timedelta(hours=1))[0].unsettled == 2  # counted, not guessed
    assert (available(globex), available(initech)) == (95, 95)


def test_it_is_free_by_itself_when_the_checks_pass_again(pair):
    globex, _ = pair
    damage(1)
    check_all(at=AT)
    search(globex, 2, AT + timedelta(minutes=1))
    assert retry_parked(at=AT + timedelta(hours=1)) == 0
    damage(-1)

    assert retry_parked(at=AT + timedelta(hours=1)) == 2
    [balance] = balances(globex, AT + timedelta(hours=1))
    assert (balance.parked_reason, balance.unsettled, balance.balance) == ("", 0, 95)
    assert check_all(at=AT).differences == 0


def test_what_settlement_parked_is_tried_again_without_new_events(pair):
    globex, _ = pair
    as_owner("UPDATE billing_ledgeraccount SET debits = debits + 1 WHERE kind = 'grant'")
    search(globex, 1, AT + timedelta(minutes=1))
    assert Settlement.objects.get(customer=globex).parked_reason.startswith("BooksDiffer")
    as_owner("UPDATE billing_ledgeraccount SET debits = debits - 1 WHERE kind = 'grant'")

    assert retry_parked(at=AT + timedelta(hours=1)) == 1
    assert available(globex) == 96


def test_late_usage_of_a_parked_customer_is_settled_where_it_belongs(pair):
    globex, _ = pair
    damage(1)
    check_all(at=AT)
    may = datetime(2026, 5, 3, tzinfo=UTC)
    advance(customer_id=globex.pk, at=may)
    ingest(event("late", "globex", type="search", timestamp=AT.isoformat()), at=AT)
    advance(customer_id=globex.pk, at=may)
    damage(-1)
    retry_parked(at=may)

    [balance] = balances(globex, may)
    assert [grant.used for grant in balance.grants if grant.grant.effective_at == START] == [4]


def test_the_night_is_checked_once(pair):
    night = datetime(2026, 3, 2, 3, 5, tzinfo=UTC)
    assert check_nightly(at=night) is not None
    assert check_nightly(at=night + timedelta(hours=20)) is None
    assert check_nightly(at=night + timedelta(hours=24)) is not None
    assert BooksCheck.objects.count() == 2


def test_an_operator_sees_the_last_check_and_who_is_parked(client, pair):
    damage(1)
    check = check_all(at=AT)
    client.force_login(User.objects.create_superuser("olivia@vendor.test", "x", name="Olivia"))

    shown = client.get(f"/admin/billing/bookscheck/{check.pk}/change/").content.decode()
    parked = client.get("/admin/billing/settlement/?parked_reason__isempty=0").content.decode()
    assert client.get("/admin/billing/bookscheck/").status_code == 200
    assert "a day is not the sum of its buckets" in shown
    assert "a day is not the sum of its buckets" in parked
