"""An operator moves subscriptions to another version in the admin, after a look at what it means.

Set SCREENSHOTS to a folder to look at the pages.
"""

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from billing.pricing.models import PlanVersion
from billing.pricing.queries import spec_of
from billing.pricing.services import create_version, publish
from billing.subscriptions.models import Subscription

pytestmark = [pytest.mark.browser, pytest.mark.servers]

SHOTS = os.environ.get("SCREENSHOTS")


@pytest.mark.parametrize("javascript", [True, False])
def test_a_subscription_is_moved_by_hand(site, busy, olivia, javascript):
    version = PlanVersion.objects.select_related("plan").get()
    dearer = replace(spec_of(version), base_fee=Decimal(99))
    newer = publish(version=create_version(plan=version.plan, spec=dearer, at=busy.now), at=busy.now)
    subscription = Subscription.objects.get()
    page = site.open(f"/admin/billing/subscription/move/?ids={subscription.pk}", user=olivia, javascript=javascript)

    page.select_option("[name=version]", str(newer.pk))
    page.click("text=Show who is affected")
    expect(page.locator("tbody tr")).to_have_count(1)
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"move-{javascript}.png", full_page=True)
    page.click("text=Move 1 subscription")

    expect(page.locator("body")).to_contain_text("is moved to")
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"moved-{javascript}.png", full_page=True)
    subscription.refresh_from_db()
    assert subscription.next_version == newer
