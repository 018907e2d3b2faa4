"""Acme, subscribed, with and without usage."""

import pytest

from billing.pricing.models import PlanVersion
from tests.house import House, make_offer


@pytest.fixture
def plan(db) -> PlanVersion:
    return make_offer()


@pytest.fixture
def house(acme, plan) -> House:
    return House(acme).subscribe(plan)


@pytest.fixture
def busy(house) -> House:
    return house.use_some()
