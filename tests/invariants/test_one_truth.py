"""While 2,000 events come in a second, page, API and ledger agree wherever they speak of the same moment.

How many came in a second, and how many pairs of answers spoke of the same moment, is in the report of the run
(`-rP` shows it). A machine that cannot keep up sends fewer: that fails nothing, but enough pairs must be compared.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import combinations
from threading import Event, Thread
from time import monotonic

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

PAIRS = 200  # of answers that speak of the same moment
MOST_ROUNDS = 1_000
RATE = 2_000  # events in a second
BATCH = 100
TICK = 0.25  # seconds between two, as in production: several answers fall between them


@pytest.fixture
def acme(committed):
    found = Customer.objects.create(key="acme", name="Acme")
    make_subscription(found, make_offer(), clock.now() - timedelta(days=2), at=clock.now())
    tick(at=clock.now())
    given = {"unit": "credits", "amount": Decimal(1_000_000), "kind": GrantKind.PAID}
    credits.grant(customer=found, **given, at=clock.now())
    return found


class Traffic:
    """Events come, and are counted four times a second, until `end`. `events`: how many came so far."""

    def __init__(self) -> None:
        self.events = 0
        self.began = monotonic()
        self._ended = Event()
        self._threads = [Thread(target=self._alone, args=[act]) for act in (self._send, self._count)]
        for thread in self._threads:
            thread.start()

    @property
    def rate(self) -> float:
        """Events in a second."""
        return self.events / (monotonic() - self.began)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _alone(self, act: Callable[[], None]) -> None:
        try:
            act()
        finally:
            connection.close()

    def _send(self) -> None:
        """On time, however long each takes; whoever is late sends at once."""
        number = 0
        while not self._ended.wait(max(self.began + number * BATCH / RATE - monotonic(), 0)):
            sent = [event(f"e{number}-{n}", type="search", api_key="chat") for n in range(BATCH - 1)]
            ingest(*sent, event(f"t{number}", model="large-2", api_key="chat", input_tokens=7), at=clock.now())
            self.events += BATCH
            number += 1

    def _count(self) -> None:
        while not self._ended.wait(TICK):
            tick(at=clock.now())


@pytest.fixture
def traffic(acme):
    found = Traffic()
    yield found
    found.end()


# Page and API say what is left, spend what was used; the ledger says both.
COMPARED = (("page", "api"), ("page", "ledger"), ("api", "ledger"), ("ledger", "spend"))

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


def same_moment(answers: Mapping[str, Answer]) -> list[tuple[str, str]]:
    """Which of the answers speak of the same moment, two by two."""
    return [(one, other) for one, other in combinations(answers, 2) if answers[one][0] == answers[other][0]]


def test_what_is_settled_through_the_same_moment_is_the_same_number_everywhere(client, acme, traffic):
    client.force_login(member(acme, "alice", Role.OWNER))
    key = bearer(make_api_key()[1])
    available, consumed = defaultdict(set), defaultdict(set)
    pairs: Counter[tuple[str, str]] = Counter()
    for _ in range(MOST_ROUNDS):
        of_page, of_api = page(client), api(client, key)
        at, left, used = ledger(acme)
        of_spend = spend(client, key)
        pairs.update(same_moment({"page": of_page, "api": of_api, "ledger": (at, left)}))
        pairs.update(same_moment({"ledger": (at, used), "spend": of_spend}))
        for moment, amount in (of_page, of_api, (at, left)):
            available[moment].add(amount)
        for moment, amount in (of_spend, (at, used)):
            consumed[moment].add(amount)
        if min(pairs[two] for two in COMPARED) >= PAIRS:
            break
    print(f"{traffic.rate:.0f} events/s, {dict(pairs)} in {len(available)} moments")  # noqa: T201 -- a report

    assert [found for found in available.values() if len(found) > 1] == []
    assert [found for found in consumed.values() if len(found) > 1] == []
    assert {two: pairs[two] for two in COMPARED if pairs[two] < PAIRS} == {}
    assert len({amount for found in consumed.values() for amount in found}) > 5
    assert len(consumed) > 5
