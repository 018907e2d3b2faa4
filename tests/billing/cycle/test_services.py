"""The tick: everybody who waits, each by himself, in any number of processes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection

from accounts.models import Customer
from billing.budgets import services as budgets
from billing.credits import queries as credit_questions
from billing.credits import services as credits
from billing.credits import settlement
from billing.credits.models import AccountKind, AllocationCell, GrantKind, LedgerAccount, LedgerTransaction, Settlement
from billing.cycle.services import advance, subscribe, tick
from billing.cycle.tasks import tick as tick_task
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.metering.models import UsageDelta
from billing.metering.queries import freshness
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from billing.subscriptions.models import BillingPeriod
from tests.conftest import as_owner
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

START = datetime(2026, 3, 1, tzinfo=UTC)
NOON = START + timedelta(hours=12)
DAY = timedelta(days=1)


def make_house(*names: str) -> list[Customer]:
    """Customers whose searches cost a credit each, with 100 credits a month and 0.01 USD beyond them."""
    make_meter("searches", aggregation="count", event_type="search")
    version = make_version(
        make_plan(),
        credits=(CreditSpec("credits", Decimal(100)),),
        prices=(PriceSpec("searches", meter="searches", unit="credits", unit_amount=Decimal(1)),),
        overage=(OverageSpec("credits", Decimal("0.01")),),
    )
    customers = [Customer.objects.create(key=name, name=name) for name in names]
    for customer in customers:
        make_subscription(customer, version, START)
    return customers


def use(customer: Customer, count: int, *, name: str = "s", at: datetime = NOON) -> None:
    sent = [
        event(f"{customer.key}-{name}-{n}", customer.key, type="search", timestamp=at.isoformat()) for n in range(count)
    ]
    assert ingest(*sent, at=at).accepted == count


def used(customer: Customer) -> Decimal:
    return sum(cell.posted for cell in AllocationCell.objects.filter(period__customer=customer))


@pytest.fixture
def globex(db) -> Customer:
    [globex] = make_house("globex")
    tick(at=START)
    return globex


# --- one after the other --------------------------------------------------------------------------------------


def test_a_tick_counts_and_settles_everybody_who_waits(db):
    customers = make_house("acme", "globex", "initech")
    for customer in customers:
        use(customer, 10)

    assert tick(at=NOON) == 3

    assert [used(customer) for customer in customers] == [10, 10, 10]
    assert tick(at=NOON) == 0


def test_a_new_subscription_has_its_credits_at_once(db, globex):
    version = globex.subscriptions.get().version
    acme = Customer.objects.create(key="acme", name="Acme")

    subscribe(customer=acme, version=version, starts_at=NOON, at=NOON)

    assert credit_questions.balances(acme, NOON)[0].available == 100


def test_usage_before_the_subscription_is_priced_from_its_start_on(db, globex):
    version = globex.subscriptions.get().version
    acme = Customer.objects.create(key="acme", name="Acme")
    use(acme, 3, at=NOON - DAY / 2)
    use(acme, 4, name="t", at=NOON)
    tick(at=NOON)

    subscribe(customer=acme, version=version, starts_at=NOON, at=NOON + DAY)

    assert used(acme) == 4


def test_ticks_that_were_missed_for_months_are_made_up(globex):
    use(globex, 130)

    tick(at=START + timedelta(days=100))

    assert [period.status for period in BillingPeriod.objects.filter(customer=globex)] == ["grace"] * 3 + ["open"]
    assert [
        grant.grant.effective_at.month for grant in credit_questions.balances(globex, START + 100 * DAY)[0].grants
    ] == [
        6,
        3,
        4,
        5,
    ]
    assert list(differences()) == []


def test_a_tick_tells_open_pages_only_when_something_moved(globex):
    before = freshness(globex).version
    advance(customer_id=globex.pk, at=NOON)
    assert freshness(globex).version == before

    use(globex, 1)
    advance(customer_id=globex.pk, at=NOON)

    assert freshness(globex).version > before


def test_one_transaction_holds_the_usage_of_a_tick(globex):
    use(globex, 150)

    tick(at=NOON)

    assert LedgerTransaction.objects.filter(code="usage").count() == 1


def test_the_task_and_the_command_tick(globex, capsys):
    use(globex, 5, at=datetime.now(UTC))
    tick_task()
    assert not UsageDelta.objects.exists()

    use(globex, 5, name="t", at=datetime.now(UTC))
    call_command("tick")
    assert capsys.readouterr().out == "1 customers advanced.\n"
    assert not UsageDelta.objects.exists()


# --- when something is wrong ----------------------------------------------------------------------------------


def test_a_customer_that_cannot_be_advanced_does_not_stop_the_others(db, monkeypatch, caplog):
    acme, globex = make_house("acme", "globex")
    tick(at=START)
    use(acme, 10)
    use(globex, 10)
    counted = settlement.settle

    def settle(states, at):
        if acme.pk in {state.pk for state in states}:
            raise OperationalError("deadlock detected")
        return counted(states, at)

    monkeypatch.setattr(settlement, "settle", settle)
    assert tick(at=NOON) == 1

    assert (used(acme), used(globex)) == (0, 10)
    assert "could not be advanced" in caplog.text
    assert UsageDelta.objects.filter(customer=acme).exists()
    monkeypatch.undo()
    assert tick(at=NOON) == 1
    assert used(acme) == 10


def test_books_that_fail_a_check_are_parked_and_go_on_counting(committed, caplog):
    [globex] = make_house("globex")
    use(globex, 10)
    tick(at=NOON)
    as_owner("UPDATE billing_allocationcell SET posted = posted + 1")
    use(globex, 10, name="t")

    tick(at=NOON)

    state = Settlement.objects.get(customer=globex)
    [balance] = credit_questions.balances(globex, NOON)
    assert "has 90 left by its account, 89 by its cells" in state.parked_reason
    assert not UsageDelta.objects.exists()
    assert (balance.unsettled, balance.parked_reason) == (9, state.parked_reason)
    assert caplog.text.count("is parked") == 1


def test_a_parked_customer_is_settled_once_its_books_are_right(committed, caplog):
    [globex] = make_house("globex")
    use(globex, 10)
    tick(at=NOON)
    as_owner("UPDATE billing_allocationcell SET posted = posted + 1")
    use(globex, 10, name="t")
    tick(at=NOON)

    as_owner("UPDATE billing_allocationcell SET posted = posted - 1")
    advance(customer_id=globex.pk, at=NOON)

    assert Settlement.objects.get(customer=globex).parked_reason == ""
    assert credit_questions.balances(globex, NOON)[0].available == 80
    assert list(differences()) == []


def test_a_parked_customer_is_not_paid_out(committed, caplog):
    [globex] = make_house("globex")
    given = credits.grant(customer=globex, unit="credits", amount=Decimal(5), kind=GrantKind.PAID, at=START)
    use(globex, 10)
    tick(at=NOON)
    as_owner("UPDATE billing_allocationcell SET posted = posted + 1")

    with pytest.raises(Conflict, match="parked"):
        credits.void(grant=given, at=NOON)


def test_budgets_count_the_overage_of_a_parked_customer(committed, caplog):
    [globex] = make_house("globex")
    tick(at=START)
    as_owner("UPDATE billing_creditgrant SET amount = 99")
    use(globex, 200)

    tick(at=NOON)

    assert Settlement.objects.get(customer=globex).parked_reason
    month = [START, START + 31 * DAY]
    assert credit_questions.spend_series(globex, edges=month, unit="USD")[0].amount > 1


def test_an_alert_that_cannot_be_written_does_not_stop_counting(globex, monkeypatch, caplog):
    def fail(**_):
        raise ValueError("no such template")

    monkeypatch.setattr(budgets, "watch_all", fail)
    use(globex, 10)

    tick(at=NOON)

    assert used(globex) == 10


# --- at once --------------------------------------------------------------------------------------------------


def at_once(*acts):
    """Run them in threads that start together; their results in order."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        try:
            barrier.wait(10)
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(60) for future in [pool.submit(run, act) for act in acts]]


def test_ticks_at_once_while_events_come_settle_each_once(committed):
    customers = make_house("acme", "globex", "initech")
    tick(at=START)
    done = threading.Event()

    def send():
        try:
            for batch in range(8):
                for customer in customers:
                    use(customer, 20, name=str(batch))
        finally:
            done.set()

    def tick_on():
        while not done.is_set():
            tick(at=NOON)

    at_once(send, tick_on, tick_on)
    tick(at=NOON)

    assert [used(customer) for customer in customers] == [160, 160, 160]
    assert list(differences()) == []


def test_the_same_customer_advanced_at_once_is_settled_once(committed):
    [globex] = make_house("globex")
    use(globex, 130)

    at_once(*[lambda: advance(customer_id=globex.pk, at=NOON)] * 4)

    assert LedgerTransaction.objects.filter(code="usage").count() == 1
    assert LedgerTransaction.objects.filter(code="grant").count() == 1
    assert list(differences()) == []


def test_grants_voids_and_ticks_at_once_leave_books_that_agree(committed):
    [globex] = make_house("globex")
    use(globex, 130)
    tick(at=NOON)

    def give_and_void():
        for _ in range(5):
            given = credits.grant(customer=globex, unit="credits", amount=Decimal(7), kind=GrantKind.PAID, at=NOON)
            credits.void(grant=given, at=NOON)

    def use_and_tick(name):
        for n in range(5):
            use(globex, 5, name=f"{name}{n}")
            tick(at=NOON)

    at_once(give_and_void, give_and_void, lambda: use_and_tick("a"), lambda: use_and_tick("b"))
    tick(at=NOON)

    assert used(globex) == 180
    assert list(differences()) == []
    assert LedgerAccount.objects.filter(kind=AccountKind.ISSUED).count() == 1
