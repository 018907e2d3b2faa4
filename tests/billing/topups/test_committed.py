"""What holds between commits, seen by others: these tests really commit."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest
from django.db import connection

from billing.credits.models import CreditGrant
from billing.topups import automatic
from billing.topups.automatic import top_up_automatically
from billing.topups.models import TopUp, TopUpPrice
from tests.billing.topups.conftest import now
from tests.billing.topups.test_automatic import RULE, amounts
from tests.processes import addresses


@pytest.fixture
def db(committed) -> None:
    """Everything that asks for the database gets real commits."""


@pytest.mark.parametrize("key", [None, "buy-1"])
def test_the_purchase_is_committed_before_stripe_hears_of_it(fake, acme, buy, key):
    TopUpPrice.objects.create(unit="credits", currency="USD", unit_amount=Decimal("0.05"))
    seen = []

    def look(path):
        with psycopg.connect(addresses()["DATABASE_URL"]) as other:
            seen.append(other.execute("SELECT status, reference FROM billing_topup").fetchall())

    fake.on_post = look
    assert buy(key=key).status_code == 201
    assert seen == [[("pending", "")]]


def test_two_workers_at_once_charge_once(fake, house, card):
    automatic.set_rule(customer=house, **RULE | {"cooldown_minutes": 0})
    at = now()

    def work(_):
        try:
            return top_up_automatically(at=at)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as workers:
        assert sum(workers.map(work, range(12))) == 1
    assert amounts(fake) == [500]
    assert (TopUp.objects.count(), CreditGrant.objects.count()) == (1, 1)
