"""Many ask at once: real threads, real transactions. Nobody overspends."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier, Event

import pytest
from django.db import connection, transaction

from accounts.models import Customer
from billing.authorizations import services, store
from billing.authorizations.facts import Amount
from billing.authorizations.models import Authorization, HoldAccount
from billing.authorizations.queries import balances
from billing.authorizations.services import Allowed, Question
from billing.cycle.services import subscribe, tick
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.pricing.models import PlanVersion
from tests.billing.authorizations.conftest import (
    MINUTE,
    NOON,
    START,
    allowed,
    ask,
    denied,
    give,
    make_house,
    stop_at,
    use,
)

THREADS = 50


@pytest.fixture
def acme(committed) -> Customer:
    return make_house(Customer.objects.create(key="acme", name="Acme"))


def at_once(act: Callable[[int], object], threads: int = THREADS) -> list[object]:
    """What `act(0)`, `act(1)`, ... answer, each in a thread and connection of its own, begun together."""
    barrier = Barrier(threads)

    def one(number: int) -> object:
        try:
            connection.ensure_connection()
            barrier.wait()
            return act(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


def test_fifty_who_race_for_the_last_credit_get_it_once(acme):
    give(acme, 1)

    answers = at_once(lambda _: ask(acme, 1))

    assert sum(isinstance(answer, Allowed) for answer in answers) == 1
    assert HoldAccount.objects.get().reserved == 1


def test_fifty_who_race_for_a_budget_stay_below_its_stop(acme):
    stop_at(acme, 10)
    stop_at(acme, 7)

    answers = at_once(lambda _: ask(acme, 1, "USD"))

    assert sum(isinstance(answer, Allowed) for answer in answers) == 7
    assert {account.reserved for account in HoldAccount.objects.all()} == {7}


def test_an_authorization_ends_once_whoever_ends_it(acme):
    give(acme, 1)
    held = allowed(ask(acme, 1))

    def end(number: int) -> bool:
        try:
            if number % 3 == 0:
                services.release(authorization=held, at=NOON)
            elif number % 3 == 1:
                services.capture(authorization=held, at=NOON)
            else:
                return not use(acme, "search", "0.01", authorization=held.public_id).results
        except Conflict:
            return False
        return True

    assert sum(at_once(end, 12)) == 1


def test_calls_that_ask_first_never_overspend_while_ticks_settle_them(acme):
    """Each worker asks, works for at most what it asked, and reports it in one of the three ways, while two others
    count and settle as fast as they can."""
    give(acme, 40)
    running = list(range(8))

    def work(number: int) -> Decimal:
        chance, spent = random.Random(number), Decimal(0)
        for _ in range(12):
            amount = chance.randint(1, 3)
            answer = ask(acme, amount)
            if not isinstance(answer, Allowed):
                continue
            held, used = allowed(answer), chance.randint(1, amount)
            if chance.random() < 0.2:
                services.release(authorization=held, at=NOON)
                continue
            assert not use(acme, "search", used, authorization=held.public_id).results
            spent += used
        running.pop()
        return spent

    def count(_: int) -> Decimal:
        while running:
            tick(at=NOON)
            [found] = [one for one in balances(acme, NOON) if one.unit == "credits"]
            assert found.available >= 0
        return Decimal(0)

    spent = sum(at_once(lambda number: work(number) if number < 8 else count(number), 10), Decimal(0))
    tick(at=NOON)

    [found] = balances(acme, NOON)
    assert found.balance == 40 - spent
    assert (found.reserved, found.overage) == (0, 0)
    assert not Authorization.objects.filter(settled_at=None).exists()
    assert list(differences()) == []


@pytest.mark.parametrize("end", [services.capture, services.release])
def test_what_comes_while_a_question_waits_is_counted(acme, end):
    """The hold that covered the usage is gone by then."""
    give(acme, 100)
    held = allowed(ask(acme, 60))
    ask(acme, 1)  # so that everything is remembered

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            end(authorization=held, at=NOON)
            asked = pool.submit(at_once, lambda _: ask(acme, 60), 1)
            while not waiting():
                time.sleep(0.01)
            use(acme, "search", 60)
        [answer] = asked.result()

    assert denied(answer) == "credit_exhausted"


def test_questions_of_one_moment_see_each_other(acme):
    """They share a transaction, of one customer and of several."""
    give(acme, 10)
    ask(acme, 1)  # so that everything is remembered

    answers = at_once(lambda number: ask(acme, 1 + number % 2))

    granted = sum(answer.amounts["credits"] for answer in answers if isinstance(answer, Allowed))
    assert granted in (8, 9)
    assert HoldAccount.objects.get().reserved == granted + 1


def test_an_account_that_is_opened_while_another_customers_is_waited_for_is_judged_under_its_lock(acme):
    """Otherwise what somebody holds of it meanwhile would not be seen."""
    globex = Customer.objects.create(key="globex", name="Globex")
    subscribe(customer=globex, version=PlanVersion.objects.get(), starts_at=START, at=START)
    for customer in (acme, globex):
        give(customer, 10)
    held = allowed(ask(globex, 1))
    together = [Question(key, Amount("credits", Decimal(6)), 5 * MINUTE, NOON) for key in ("globex", "acme")]
    holding, go_on = Event(), Event()

    def meanwhile(_: int) -> None:
        store.open_accounts([(acme.pk, "credits", None)])
        with transaction.atomic():
            allowed(ask(acme, 6))
            holding.set()
            go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic():
            services.release(authorization=held, at=NOON)
            asked = pool.submit(at_once, lambda _: services._answer(together), 1)
            while not waiting():
                time.sleep(0.01)
            pool.submit(at_once, meanwhile, 1)
            assert holding.wait(10)
        while not waiting():
            time.sleep(0.01)
        go_on.set()
        [[of_globex, of_acme]] = asked.result()

    allowed(of_globex)
    assert denied(of_acme) == "credit_exhausted"


def waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        (number,) = cursor.fetchone()
    return bool(number)
