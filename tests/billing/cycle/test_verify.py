"""The books are checked, and a single wrong number is found."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, ProgrammingError, connection

from accounts.models import Customer
from billing.authorizations.facts import Amount
from billing.authorizations.services import Allowed, authorize
from billing.credits import sealing
from billing.credits.models import BilledLine, GrantKind, LedgerSeal
from billing.credits.services import grant as give
from billing.credits.services import seal_all
from billing.cycle.services import advance
from billing.cycle.verify import differences
from billing.metering import correcting
from billing.pricing.spec import CreditSpec, PriceSpec
from tests.conftest import as_owner
from tests.factories import event, fold, ingest, make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)
BILLED = ("quantity", "events", "amount", "covered", "beyond", "overage")
DAYS = 3000  # back to then, whenever this runs


def _tampered(table, change, verb="UPDATE"):
    """What the owner of the database can do when nobody looks."""
    return (
        f"BEGIN; SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE billing_{table} DISABLE TRIGGER append_only;"
        f"{verb} billing_{table} {change}; ALTER TABLE billing_{table} ENABLE TRIGGER append_only; COMMIT"
    )


@pytest.fixture
def settled(committed):
    """Globex with some usage, settled and committed."""
    globex = Customer.objects.create(key="globex", name="Globex")
    make_meter("searches", aggregation="count", event_type="search")
    make_meter("users", aggregation="unique", event_type="search", value="user")
    price = PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1))
    version = make_version(make_plan(), credits=(CreditSpec("credits", Decimal(100)),), prices=(price,))
    make_subscription(globex, version, START)
    at = START + timedelta(days=1)
    ingest(*(event(f"s{n}", "globex", type="search", timestamp=at.isoformat(), user=n % 9) for n in range(130)), at=at)
    advance(customer_id=globex.pk, at=at)
    seal_all()
    ingest(event("late", "globex", type="search", timestamp=at.isoformat(), user=1), at=at)
    advance(customer_id=globex.pk, at=at)
    seal_all()
    fold(globex, at=at + timedelta(days=1))  # sums up the day
    later = at + timedelta(hours=1)
    give(customer=globex, unit="credits", amount=Decimal(100), kind=GrantKind.PAID, at=later)
    seal_all()
    held = authorize(customer=globex.key, wanted=Amount("credits", Decimal(1)), ttl=timedelta(days=900), at=later)
    assert isinstance(held, Allowed)
    return globex


def test_books_that_agree_pass(settled, capsys):
    assert list(differences()) == []
    call_command("verify_ledger", days=DAYS)
    assert "agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE billing_usagebucket SET quantity = quantity + 1", "a day is not the sum"),
        ("UPDATE billing_usageday SET events = events + 1", "a day is not the sum"),
        ("DELETE FROM billing_periodtotal", "a period total is not the sum"),
        ("UPDATE billing_usagebucket SET quantity = quantity + 1", "a counter is not the sum of its events"),
        ("UPDATE billing_usagebucket SET events = events + 1", "a counter is not the sum of its events"),
        (
            _tampered("usageevent", "WHERE event_id = 's7'", verb="DELETE FROM"),
            "a counter is not the sum of its events",
        ),
        (_tampered("ledgertransaction", "SET effective_at = effective_at - interval '1 day'"), "a seal is broken"),
        (_tampered("ledgertransaction", "SET reason = 'forged' WHERE code = 'usage'"), "a seal is broken"),
        (_tampered("ledgerseal", "SET digest = repeat('0', 64) WHERE number = 1"), "a seal is broken"),
        (_tampered("ledgerseal", "WHERE number = 1", verb="DELETE FROM"), "a seal is broken"),
        ("UPDATE billing_daymember SET events = events + 1", "a day has other members"),
        ("DELETE FROM billing_periodmember", "a period has other members"),
        ("UPDATE billing_periodtotal SET members = members + 1", "a period total does not count its members"),
        ("UPDATE billing_holdaccount SET reserved = reserved + 1", "what is reserved is not the sum of its holds"),
        ("UPDATE billing_hold SET amount = amount + 1", "what is reserved is not the sum of its holds"),
        (
            "UPDATE billing_authorization SET settled_at = now(), ended_at = now(), ended_by = 'expiry'",
            "what is reserved",
        ),
        ("UPDATE billing_allocationcell SET posted = posted + 1 WHERE grant_id IS NULL", "a cell is not the sum"),
        ("UPDATE billing_ledgeraccount SET credits = credits + 1 WHERE kind = 'consumed'", "an account's sums"),
        ("UPDATE billing_creditgrant SET amount = amount + 1", "a grant's account was not given what"),
        (
            _tampered("ledgerentry", "SET amount = amount + 1 WHERE direction = 'debit'"),
            "a ledger transaction does not balance",
        ),
        (_tampered("ledgerentry", "SET amount = amount + 1"), "a seal is broken"),
    ],
)
def test_one_wrong_number_is_found_in_the_books_that_it_is_in(settled, damage, found, capsys):
    other = Customer.objects.create(key="other", name="Other")
    as_owner(damage)

    assert any(difference.startswith(found) for difference in differences())
    assert any(difference.startswith(found) for difference in differences(settled))
    assert list(differences(other)) == []
    with pytest.raises(CommandError, match="difference"):
        call_command("verify_ledger", days=DAYS)


@pytest.fixture
def billed(settled):
    """March is closed and billed, and an event of it came too late for that."""
    at = START + timedelta(days=40)
    for _ in range(2):  # a period never closes in the roll that ends it
        advance(customer_id=settled.pk, at=at)
    sent = event("too late", "globex", type="search", timestamp=(START + timedelta(days=2)).isoformat(), user=1)
    ingest(sent, at=at, backfill=True)
    advance(customer_id=settled.pk, at=at)
    assert BilledLine.objects.count() == 2
    assert list(differences()) == []
    return settled


@pytest.mark.parametrize(
    ("change", "found"),
    [
        *((f"SET {name} = {name} + 1", "what is billed of a line") for name in BILLED),
        ("SET row = row + 1", "what is billed of a line"),
        ("SET unit = 'USD'", "a billed line has another unit or period"),
        ("SET recorded_at = recorded_at - interval '1 day'", "a billed line has another unit or period"),
        ("SET period_id = (SELECT min(period_id) FROM billing_billedline)", "a billed line has another unit or period"),
        ("SET period_id = (SELECT max(period_id) FROM billing_billedline)", "a billed line has another unit or period"),
        ("WHERE id = (SELECT min(id) FROM billing_billedline)", "what is billed of a line"),
    ],
)
def test_a_billed_line_that_was_changed_is_found(billed, change, found):
    as_owner(_tampered("billedline", change, verb="UPDATE" if change.startswith("SET") else "DELETE FROM"))

    assert any(difference.startswith(found) for difference in differences(billed))


def test_the_owner_cannot_change_a_billed_line_by_mistake(billed):
    with pytest.raises(IntegrityError, match="append-only"):
        as_owner("UPDATE billing_billedline SET amount = 0")


def test_what_waits_for_the_fold_is_no_difference(settled):
    ingest(event("waiting", "globex", type="search", timestamp=(START + timedelta(days=1)).isoformat()), at=START)

    assert list(differences()) == []


def test_the_counter_of_a_meter_that_is_gone_is_found(settled):
    """The fold counts what came before the meter went, and no foreign key refuses it."""
    at = START + timedelta(days=1)
    images = make_meter("images", aggregation="count", event_type="image")
    ingest(event("last", "globex", type="image", timestamp=at.isoformat()), at=at)
    number = images.pk
    images.delete()
    waits = list(differences())
    advance(customer_id=settled.pk, at=at)

    assert waits == list(differences())
    assert len(waits) == 1
    assert f"meter {number}, which is gone," in waits[0]


def test_a_corrected_event_counts_as_it_holds(settled):
    correcting.void_event(source="default", event_id="s3", at=START + timedelta(days=1))
    advance(customer_id=settled.pk, at=START + timedelta(days=1))

    assert list(differences()) == []


def test_one_customer_is_checked_alone(settled):
    other = Customer.objects.create(key="other", name="Other")
    as_owner("UPDATE billing_usageday SET events = events + 1")

    assert list(differences(other)) == []
    assert len(list(differences(settled))) > 0
    call_command("verify_ledger", customer="other", days=DAYS)
    with pytest.raises(CommandError, match="no customer nobody"):
        call_command("verify_ledger", customer="nobody")


# --- seals ----------------------------------------------------------------------------------------------------------


def test_each_seal_covers_what_was_posted_since_the_last(settled):
    covered = list(LedgerSeal.objects.values_list("number", "transactions"))
    assert covered == [(1, 2), (2, 1), (3, 1)]
    assert seal_all() == 0


def test_long_stretches_are_sealed_in_pieces(settled, monkeypatch):
    monkeypatch.setattr(sealing, "AT_ONCE", 2)
    at = START + timedelta(days=2)
    for number in range(5):
        ingest(event(f"more{number}", "globex", type="search", timestamp=at.isoformat()), at=at)
        advance(customer_id=settled.pk, at=at)

    assert seal_all() == 5
    assert list(differences()) == []


@pytest.mark.parametrize("change", ["UPDATE {} SET digest = digest", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_application_cannot_change_a_seal(settled, change):
    with pytest.raises(ProgrammingError, match="permission denied"), connection.cursor() as cursor:
        cursor.execute(change.format("billing_ledgerseal"))


def test_the_owner_cannot_change_a_seal_by_mistake(settled):
    with pytest.raises(IntegrityError, match="append-only"):
        as_owner("UPDATE billing_ledgerseal SET number = number + 1")
