"""The books are checked, and a single wrong number is found."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Customer
from billing.cycle.services import advance
from billing.cycle.verify import differences
from billing.pricing.spec import CreditSpec, PriceSpec
from tests.conftest import as_owner
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)


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
    return globex


def test_books_that_agree_pass(settled, capsys):
    assert list(differences()) == []
    call_command("verify")
    assert "agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE billing_usagebucket SET quantity = quantity + 1", "a day is not the sum"),
        ("UPDATE billing_usageday SET events = events + 1", "a day is not the sum"),
        ("DELETE FROM billing_periodtotal", "a period total is not the sum"),
        ("UPDATE billing_daymember SET events = events + 1", "a day has other members"),
        ("DELETE FROM billing_periodmember", "a period has other members"),
        ("UPDATE billing_allocationcell SET posted = posted + 1 WHERE grant_id IS NULL", "a cell is not the sum"),
        ("UPDATE billing_ledgeraccount SET credits = credits + 1 WHERE kind = 'consumed'", "an account's sums"),
        ("UPDATE billing_creditgrant SET amount = amount + 1", "a grant's account was not given"),
        (
            "ALTER TABLE billing_ledgerentry DISABLE TRIGGER append_only;"
            "UPDATE billing_ledgerentry SET amount = amount + 1 WHERE direction = 'debit';"
            "ALTER TABLE billing_ledgerentry ENABLE TRIGGER append_only",
            "a ledger transaction does not balance",
        ),
    ],
)
def test_one_wrong_number_is_found(settled, damage, found, capsys):
    as_owner(damage)

    assert any(difference.startswith(found) for difference in differences())
    with pytest.raises(CommandError, match="difference"):
        call_command("verify")
