"""An operator finds what is not counted, and mends it."""

import pytest
from playwright.sync_api import expect

from billing import clock
from billing.metering.correcting import void_event
from billing.metering.models import UnmatchedEvent
from tests.browser.test_manners import CUT_OFF
from tests.factories import event, ingest

pytestmark = [pytest.mark.browser, pytest.mark.servers]


def test_an_operator_makes_the_missing_meter_from_the_page(site, busy, olivia):
    at = clock.now()
    ingest(*(event(f"i{n}", type="image.made", size="1024x1024", images=2) for n in range(3)), at=at)
    ingest(event("w", "initech", tokens=1), {"id": "r", "source": "gateway-2", "customer": "acme"}, at=at)
    void_event(source="default", event_id="w", reason="sent twice by hand", at=at)
    page = site.open("/admin/billing/unmatchedevent/intake/", user=olivia)

    unmatched = page.get_by_role("region", name="Unmatched: stored, counted by nothing yet")
    expect(unmatched.get_by_role("row", name="image.made")).to_contain_text("3")
    unmatched.get_by_role("row", name="image.made").get_by_role("link", name="Make a meter").click()
    page.get_by_label("Key").fill("images")
    page.get_by_label("Name").fill("Images")
    page.get_by_label("Unit").fill("image")
    page.get_by_label("Value").fill("images")
    expect(page.get_by_label("Event type")).to_have_value("image.made")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()
    page.goto("/admin/billing/unmatchedevent/intake/")

    expect(page.get_by_role("row", name="image.made")).to_have_count(0)
    expect(page.get_by_role("row", name="initech").get_by_role("link", name="Make this customer")).to_be_visible()
    assert list(UnmatchedEvent.objects.values_list("event_id", flat=True)) == ["w"]


@pytest.mark.parametrize("look", [{"width": 1280}, {"width": 320, "height": 700, "dark": True}])
def test_nothing_of_the_page_is_cut_off(site, busy, olivia, look):
    at = clock.now()
    ingest(event("w", "initech", tokens=1), {"id": "r", "source": "gateway-2", "customer": "acme"}, at=at)
    page = site.open("/admin/billing/unmatchedevent/intake/", user=olivia, **look)
    expect(page.get_by_role("region", name="Corrections")).to_be_visible()
    assert page.evaluate(CUT_OFF.replace("body *", "#content-main *").replace(".scroll", ".hr-scroll")) == []
