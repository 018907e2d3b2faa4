"""What the database keeps of the ledger, whoever writes: these go around every service."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import DataError, IntegrityError, ProgrammingError, connection, transaction
from django.db.models import F

from accounts.models import Customer
from billing.credits import services
from billing.credits.models import (
    AccountKind,
    AllocationCell,
    BilledLine,
    CreditGrant,
    Direction,
    GrantKind,
    LedgerAccount,
    LedgerEntry,
    LedgerSeal,
    LedgerTransaction,
    TransactionCode,
)
from billing.pricing.spec import PriceSpec
from tests.conftest import as_owner
from tests.factories import make_meter, make_plan, make_subscription, make_version

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def grant(globex) -> CreditGrant:
    """100 credits of Globex."""
    return services.grant(customer=globex, unit="credits", amount=Decimal(100), kind=GrantKind.PAID, at=AT)


def account(customer, kind, unit="credits") -> LedgerAccount:
    return LedgerAccount.objects.get_or_create(customer=customer, unit=unit, kind=kind)[0]


def write(customer, *entries: tuple[LedgerAccount, Direction, object], key: str = "by hand") -> LedgerTransaction:
    """A transaction as a careless program would write it."""
    written = LedgerTransaction.objects.create(
        customer=customer, code=TransactionCode.USAGE, idempotency_key=key, effective_at=AT
    )
    LedgerEntry.objects.bulk_create(
        LedgerEntry(transaction=written, account=place, direction=direction, amount=amount)
        for place, direction, amount in entries
    )
    return written


def commit(act: Callable[[], object]) -> None:
    """Do it, and check what a commit would check."""
    with transaction.atomic(), connection.cursor() as cursor:
        act()
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def test_a_transaction_that_balances_is_taken(grant):
    consumed = account(grant.customer, AccountKind.CONSUMED)

    commit(lambda: write(grant.customer, (grant.account, Direction.DEBIT, 5), (consumed, Direction.CREDIT, 5)))


@pytest.mark.parametrize(
    "amounts",
    [[(Direction.DEBIT, 5), (Direction.CREDIT, 4)], [(Direction.DEBIT, 5)], [], [(Direction.DEBIT, 5)] * 2],
)
def test_a_transaction_that_does_not_balance_is_refused_at_commit(grant, amounts):
    consumed = account(grant.customer, AccountKind.CONSUMED)

    with pytest.raises(IntegrityError, match="does not balance"):
        commit(lambda: write(grant.customer, *((consumed, direction, amount) for direction, amount in amounts)))


def test_units_balance_each_by_itself(grant):
    money = account(grant.customer, AccountKind.CONSUMED, "USD")

    with pytest.raises(IntegrityError, match="does not balance"):
        commit(lambda: write(grant.customer, (grant.account, Direction.DEBIT, 5), (money, Direction.CREDIT, 5)))


def test_a_transaction_keeps_to_the_accounts_of_its_customer(grant, acme):
    other = account(acme, AccountKind.CONSUMED)

    with pytest.raises(IntegrityError, match="account of another customer"):
        commit(lambda: write(grant.customer, (grant.account, Direction.DEBIT, 5), (other, Direction.CREDIT, 5)))


def test_an_entry_cannot_join_a_transaction_that_balanced_before(grant):
    written = LedgerTransaction.objects.get()
    entry = LedgerEntry(transaction=written, account=grant.account, direction=Direction.CREDIT, amount=Decimal(1))

    with pytest.raises(IntegrityError, match="does not balance"):
        commit(entry.save)


def test_a_grant_cannot_be_overdrawn(grant):
    consumed = account(grant.customer, AccountKind.CONSUMED)

    with pytest.raises(IntegrityError, match="grant_account_never_overdrawn"), transaction.atomic():
        write(
            grant.customer,
            (grant.account, Direction.DEBIT, Decimal("100.000000000001")),
            (consumed, Direction.CREDIT, Decimal("100.000000000001")),
        )


def test_the_sums_of_an_account_move_with_its_entries(grant):
    consumed = account(grant.customer, AccountKind.CONSUMED)

    write(grant.customer, (grant.account, Direction.DEBIT, 30), (consumed, Direction.CREDIT, 30))

    grant.account.refresh_from_db()
    assert (grant.account.credits, grant.account.debits) == (100, 30)


def test_the_application_cannot_touch_the_sums_of_an_account(grant):
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        LedgerAccount.objects.update(credits=F("credits") + 1)
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        LedgerAccount.objects.all()._raw_delete("default")


@pytest.mark.parametrize("model", [LedgerTransaction, LedgerEntry, LedgerSeal, BilledLine])
def test_the_application_can_neither_change_nor_delete_what_is_posted(grant, model):
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        model.objects.update(id=F("id"))
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        model.objects.all()._raw_delete("default")


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (CreditGrant, {"amount": 1}),
        (CreditGrant, {"unit": "USD"}),
        (CreditGrant, {"expires_at": None}),
        (CreditGrant, {"effective_at": AT}),
        (CreditGrant, {"priority": 1}),
        (CreditGrant, {"cost_basis": 1}),
        (CreditGrant, {"meters": []}),
        (CreditGrant, {"customer": 1}),
        (AllocationCell, {"grant": None}),
        (AllocationCell, {"segment_starts_at": AT}),
        (AllocationCell, {"unit": "USD"}),
    ],
)
def test_what_a_grant_and_a_cell_are_stays(grant, model, change):
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        model.objects.update(**change)
    with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
        model.objects.all()._raw_delete("default")


@pytest.mark.parametrize("table", ["billing_ledgertransaction", "billing_ledgerentry", "billing_ledgerseal"])
@pytest.mark.parametrize("change", ["UPDATE {} SET id = id", "DELETE FROM {}"])
def test_nor_can_the_owner(committed, table, change):
    globex = Customer.objects.create(key="globex", name="Globex")
    services.grant(customer=globex, unit="credits", amount=Decimal(100), kind=GrantKind.PAID, at=AT)
    services.seal_all()

    with pytest.raises(IntegrityError, match="append-only"):
        as_owner(change.format(table))


@pytest.mark.parametrize("amount", ["0", "-1", "NaN"])
def test_an_entry_says_a_positive_amount(grant, amount):
    with pytest.raises(IntegrityError, match="entry_amount_positive"), transaction.atomic():
        _insert_entry(grant, amount)


def test_an_infinite_amount_does_not_fit(grant):
    with pytest.raises(DataError, match="infinite"), transaction.atomic():
        _insert_entry(grant, "Infinity")


def _insert_entry(grant: CreditGrant, amount: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_ledgerentry (transaction_id, account_id, direction, amount)"
            " VALUES (%s, %s, 'debit', %s)",
            [LedgerTransaction.objects.get().pk, grant.account.pk, amount],
        )


def test_a_key_posts_once(grant):
    consumed = account(grant.customer, AccountKind.CONSUMED)
    entries = [(grant.account, Direction.DEBIT, 1), (consumed, Direction.CREDIT, 1)]
    write(grant.customer, *entries, key="once")

    with pytest.raises(IntegrityError, match="idempotency_key"), transaction.atomic():
        write(grant.customer, *entries, key="once")


@pytest.mark.parametrize(
    ("model", "fields", "constraint"),
    [
        (LedgerTransaction, {"code": "gift", "idempotency_key": "x", "effective_at": AT}, "transaction_code_is_known"),
        (LedgerAccount, {"unit": "credits", "kind": "pocket"}, "account_kind_is_known"),
        (LedgerAccount, {"unit": "credits", "kind": "grant"}, "grant_account_has_its_grant"),
        (LedgerAccount, {"unit": "credits", "kind": "issued"}, "one_account_per_kind_and_unit"),
        (CreditGrant, {"amount": Decimal(0), "effective_at": AT}, "grant_amount_positive"),
        (CreditGrant, {"amount": Decimal(1), "effective_at": AT, "expires_at": AT}, "grant_expires_after_it_begins"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(grant, model, fields, constraint):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        model.objects.create(customer=grant.customer, **fields)


def test_a_line_has_one_cell_per_segment_and_grant(subscribed_period):
    cell = {"period": subscribed_period, "price": subscribed_period.version.prices.get(), "row": 0, "unit": "credits"}
    AllocationCell.objects.create(**cell, segment_starts_at=AT, grant=None)

    with pytest.raises(IntegrityError, match="one_cell_per_line_segment_and_grant"), transaction.atomic():
        AllocationCell.objects.create(**cell, segment_starts_at=AT, grant=None)


@pytest.fixture
def subscribed_period(globex):
    make_meter("searches", aggregation="count", event_type="search")
    price = PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1))
    return make_subscription(globex, make_version(make_plan(), prices=(price,)), AT).periods.get()
