"""An operator reads what alerts said, and when, in which zone."""

import pytest

from billing.budgets.models import Alert
from tests.billing.budgets.conftest import make_budget, spend, watch

pytestmark = pytest.mark.django_db


def test_alerts_are_listed_with_their_level_and_a_time_that_names_its_zone(client, olivia, subscribed):
    make_budget(subscribed)
    spend(subscribed, "1604.20")
    watch(subscribed)
    client.force_login(olivia)
    page = client.get("/admin/billing/alert/").content.decode()
    assert "80 %" in page
    assert "80.00" not in page
    assert f"{Alert.objects.latest('pk').created_at:%-d %b %Y, %H:%M} UTC" in page
