"""While events come, page, API and ledger agree wherever they speak of the same moment."""

import re
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Event, Thread

import pytest
from django.db import connection

from accounts.models import Customer, Role
from billing import clock
from billing.credits import journal
from billing.credits import services as credits
from billing.credits.models import AccountKind, GrantKind, LedgerAccount
from billing.credits.queries import settled_through
from billing.cycle.services import tick
from billing.money import CONTEXT
from billing.reads import snapshot
from tests.conftest import member
from tests.factories import bearer, event, ingest, make_api_key, make_subscription
from tests.house import make_offer

ROUNDS = 200
PAUSE = 0.1  # seconds between ticks, so that several answers fall between two of them
BATCH = 100  # events each time


@pytest.fixture
def acme(committed):
    found = Customer.objects.create(key="acme", name="Acme")
    make_subscription(found, make_offer(), clock.now() - timedelta(days=2), at=clock.now())
    tick(at=clock.now())
    given = {"unit": "credits", "amount": Decimal(1_000_000), "kind": GrantKind.PAID}
    credits.grant(customer=found, **given, at=clock.now())
    return found


@pytest.fixture
def traffic(acme):
    """Events come and are counted, until the test is over."""
    ended = Event()

    def run() -> None:
        number = 0
        while not ended.wait(PAUSE):
            sent = [event(f"e{number}-{n}", type="search", api_key="chat") for n in range(BATCH)]
            ingest(*sent, event(f"t{number}", model="large-2", api_key="chat", input_tokens=7), at=clock.now())
            tick(at=clock.now())
            number += 1
        connection.close()

    thread = Thread(target=run)
    thread.start()
    yield
    ended.set()
    thread.join()


type Answer = tuple[datetime, Decimal]  # settled through, and credits available


def page(client) -> Answer:
    html = client.get("/c/acme/credits/live?v=0").content.decode()
    settled = re.search(r'data-settled-through="([^"]+)"', html)[1]
    left = re.search(r'id="available-1"[^>]*><data [^>]*value="([^"]+)"', html)[1]
    return datetime.fromisoformat(settled), Decimal(left)


def api(client, key) -> Answer:
    answer = client.get("/api/v1/customers/acme/credits", **key).json()
    [found] = [one for one in answer["data"] if one["unit"] == "credits"]
    return datetime.fromisoformat(found["settled_through"]), Decimal(found["available"])


def spend(client, key) -> Answer:
    """The total of rated usage in credits, if all that is counted was settled."""
    found = client.get("/api/v1/customers/acme/spend?unit=credits", **key).json()
    return datetime.fromisoformat(found["settled_through"]), Decimal(found["total"])


def ledger(customer) -> tuple[datetime, Decimal, Decimal]:
    """What grants hold, and everything that was consumed."""
    with snapshot():
        consumed = LedgerAccount.objects.filter(customer=customer, kind=AccountKind.CONSUMED, unit="credits").first()
        used = CONTEXT.subtract(consumed.credits, consumed.debits) if consumed else Decimal(0)
        return settled_through(customer), journal.posted(customer)["credits"], used


def test_what_is_settled_through_the_same_moment_is_the_same_number_everywhere(client, acme, traffic):
    client.force_login(member(acme, "alice", Role.OWNER))
    key = bearer(make_api_key()[1])
    available, consumed = defaultdict(set), defaultdict(set)
    told: dict[datetime, set[str]] = defaultdict(set)
    for _ in range(ROUNDS):
        at, left = page(client)
        available[at].add(left)
        told[at].add("page")
        at, left = api(client, key)
        available[at].add(left)
        told[at].add("api")
        at, left, used = ledger(acme)
        available[at].add(left)
        consumed[at].add(used)
        told[at].add("ledger")
        at, used = spend(client, key)
        consumed[at].add(used)
        told[at].add("spend")

    assert [found for found in available.values() if len(found) > 1] == []
    assert [found for found in consumed.values() if len(found) > 1] == []
    assert len(told) > 5
    assert sum({"page", "api", "ledger"} <= names for names in told.values()) > 5
    assert sum({"spend", "ledger"} <= names for names in told.values()) > 5
