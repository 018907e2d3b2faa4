"""Gateways that spend leases locally, and a real server: the limit holds, and is used up but for what leases tie up."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from headroom_client import Client

from billing import clock
from billing.authorizations.models import Authorization
from billing.budgets.services import create_budget
from billing.cycle.services import subscribe, tick
from billing.cycle.verify import differences
from billing.pricing.spec import PriceSpec
from billing.rating.queries import lines
from billing.subscriptions.queries import current_period
from tests.factories import make_api_key, make_meter, make_plan, make_version
from tests.processes import Web, running, web

pytestmark = pytest.mark.servers

GATEWAYS = 3
LIMIT, CHUNK = 90, 10


@pytest.fixture(scope="module")
def site(django_db_setup) -> Iterator[Web]:
    site = web("lease-web")
    with running(site):
        yield site


@pytest.fixture
def db(committed) -> None:
    """The web process must see what a test writes."""


@pytest.fixture
def key(acme) -> str:
    make_meter("work", event_type="work", value="n")
    version = make_version(make_plan(), prices=(PriceSpec("work", "work", "USD", Decimal(1)),))
    subscribe(customer=acme, version=version, starts_at=datetime.now(UTC) - timedelta(days=1), at=clock.now())
    create_budget(
        customer=acme,
        name="Production",
        unit="USD",
        amount=Decimal(LIMIT),
        thresholds=[],
        recipients=["owners"],
        stop_at_percent=Decimal(100),
        at=clock.now(),
    )
    return make_api_key()[1]


def test_gateways_that_spend_locally_stay_below_the_limit_together(acme, site, key):
    done = threading.Event()

    def count() -> None:
        """As the worker does."""
        while not done.wait(0.2):
            tick(at=clock.now())
        connection.close()

    def gateway() -> None:
        client = Client(site.url, key, proxies={}, max_age=0.05)
        with client, client.lease(customer="acme", unit="USD", amount=CHUNK) as lease:
            quiet_since = time.monotonic()
            while time.monotonic() < quiet_since + 5:
                spending = lease.spend(1)
                if spending is None:
                    time.sleep(0.05)
                    continue
                with spending:
                    client.record(type="work", customer="acme", properties={"n": 1})
                quiet_since = time.monotonic()

    counter, gateways = threading.Thread(target=count), [threading.Thread(target=gateway) for _ in range(GATEWAYS)]
    for thread in [counter, *gateways]:
        thread.start()
    for thread in gateways:
        thread.join()
    done.set()
    counter.join()
    tick(at=clock.now())

    [line] = lines(current_period(acme, clock.now()))
    assert LIMIT - CHUNK < line.amount <= LIMIT
    assert not Authorization.objects.filter(settled_at=None).exists()
    assert list(differences()) == []
