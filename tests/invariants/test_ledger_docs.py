"""docs/ledger.md says what is so: its entries are posted, and its names are in the database."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.db import connection

from accounts.models import Customer
from billing.credits import services
from billing.credits.models import CreditGrant, GrantKind, LedgerEntry
from billing.cycle.services import advance
from billing.cycle.verify import differences
from billing.money import plain
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

PAGE = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
HOUR = timedelta(hours=1)


def day(month: int, number: int) -> datetime:
    return datetime(2026, month, number, tzinfo=UTC)


@pytest.fixture
def told(globex) -> Customer:
    """The story of the page."""
    make_meter("searches", aggregation="count", event_type="search")
    version = make_version(
        make_plan(),
        credits=(CreditSpec("credits", Decimal(100), rollover_max=Decimal(25)),),
        prices=(PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1)),),
        overage=(OverageSpec("credits", Decimal("0.01")),),
    )

    def use(count: int, at: datetime, now: datetime) -> None:
        sent = [event(f"{at}-{n}", "globex", type="search", timestamp=at.isoformat()) for n in range(count)]
        ingest(*sent, at=now)
        advance(customer_id=globex.pk, at=now)

    make_subscription(globex, version, day(3, 1))
    advance(customer_id=globex.pk, at=day(3, 1))
    given = {"customer": globex, "unit": "credits"}
    services.grant(
        **given,
        amount=Decimal(20),
        kind=GrantKind.PROMOTIONAL,
        priority=5,
        expires_at=day(3, 11),
        at=day(3, 1),
    )
    use(30, day(3, 2), day(3, 2))
    use(110, day(3, 20), day(3, 20))
    paid = services.grant(**given, amount=Decimal(50), kind=GrantKind.PAID, at=day(3, 21))
    services.void(grant=paid, at=day(3, 21) + HOUR)
    advance(customer_id=globex.pk, at=day(4, 1))
    use(40, day(4, 10), day(4, 10))
    advance(customer_id=globex.pk, at=day(5, 1))
    use(40, day(4, 30), day(5, 1) + HOUR)
    may = CreditGrant.objects.get(effective_at=day(5, 1))
    services.adjust(grant=may, amount=Decimal(10), reason="Sorry for Tuesday", at=day(5, 2))
    return globex


def posted() -> list[str]:
    entries = LedgerEntry.objects.select_related("transaction", "account__grant").order_by("id")
    sides = [f"{_account(entry)} {plain(entry.amount)}" for entry in entries]
    transactions = [f"{entry.transaction.effective_at:%Y-%m-%d} {entry.transaction.code}" for entry in entries][::2]
    return [
        f"{why} Dr {debit} Cr {credit}"
        for why, debit, credit in zip(transactions, sides[::2], sides[1::2], strict=True)
    ]


def _account(entry: LedgerEntry) -> str:
    grant = entry.account.grant
    return entry.account.kind if grant is None else f"grant {grant.kind}"


def test_the_worked_entries_are_what_is_posted(told):
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shown = [" ".join(line.split()) for block in blocks for line in block.splitlines()]

    assert posted() == shown
    assert list(differences()) == []


@pytest.mark.django_db
def test_every_constraint_and_trigger_of_the_page_is_in_the_database():
    table = PAGE.split("## What the database refuses")[1].split("## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint UNION SELECT tgname FROM pg_trigger UNION SELECT relname FROM pg_class"
        )
        known = {name for (name,) in cursor.fetchall()}

    assert len(named) > 15
    assert named - known == set()
