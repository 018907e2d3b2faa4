"""What the demo begins with leaves something to happen."""

import json

import pytest
from django.core.management import call_command

from accounts.models import Customer
from billing.budgets import queries as budgets
from billing.clock import now
from billing.metering.models import UsageDelta


@pytest.mark.django_db
def test_all_usage_is_counted_and_eighty_percent_of_the_budget_lies_ahead(tmp_path):
    call_command("seed_demo", json=tmp_path / "seed.json")
    assert not UsageDelta.objects.exists()
    [status] = budgets.status(Customer.objects.get(key="acme"), now())
    assert 75 < status.percent < 80
    assert [level.fired_at is not None for level in status.thresholds] == [True, False, False]
    assert json.loads((tmp_path / "seed.json").read_text())["sign_ins"][0]["role"] == "owner"
