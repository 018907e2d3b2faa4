"""The credits page in a browser: live, complete without JavaScript, and down to the events of a posting."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from billing import clock
from billing.credits import services
from billing.credits.models import GrantKind
from tests.browser.test_manners import CUT_OFF, found_by_axe, settled

pytestmark = [pytest.mark.browser, pytest.mark.servers]
PAGE = "/c/acme/credits"


@pytest.fixture
def searching(house):
    """Two searches a day for four days, of ten that come with the plan, and fifty that are given for five days."""
    for day in range(4):
        house.use(days_ago=day + 0.1, type="search", api_key="chat")
        house.use(days_ago=day + 0.2, type="search", api_key="ingest")
    services.grant(
        customer=house.customer,
        unit="credits",
        amount=Decimal(50),
        kind=GrantKind.PROMOTIONAL,
        priority=5,
        reason="Launch gift",
        expires_at=clock.now() + timedelta(days=5),
        at=clock.now(),
    )
    house.count()
    return house


def test_usage_moves_the_open_page_without_a_reload(site, ticks, searching, bob):
    page = site.open(PAGE, user=bob)
    expect(page.locator("#available-1")).to_have_text("52 credits")
    page.evaluate("window.opened = 'before'")
    page.get_by_text("Ledger", exact=True).scroll_into_view_if_needed()
    page.get_by_role("region", name="Ledger, table").focus()
    rows = page.locator("#ledger tbody tr").count()

    searching.use(type="search", api_key="chat")

    expect(page.locator("#available-1")).to_have_text("51 credits")
    expect(page.locator("#ledger tbody tr")).to_have_count(rows + 1)
    expect(page.locator("#ledger tbody tr").first).to_contain_text("searches")
    assert page.evaluate("window.opened") == "before"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Ledger, table"


def test_a_posting_opens_down_to_its_own_events(site, ticks, searching, bob):
    """The eight searches of before are behind the posting before."""
    searching.use(type="search", api_key="chat")
    page = site.open(PAGE, user=bob)
    expect(page.locator("#available-1")).to_have_text("51 credits")
    page.locator("#ledger tbody tr").first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Usage")
    expect(page.locator("#events tbody tr")).to_have_count(1)
    page.locator("#events tbody a").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Receipt")
    expect(page.locator("main")).to_contain_text("e9")


def test_everything_is_there_without_javascript(site, searching, bob):
    page = site.open(PAGE, user=bob, javascript=False)
    expect(page.locator("#available-1")).to_have_text("52 credits")
    expect(page.locator("#tiles-1")).to_contain_text("Burn per day")
    expect(page.locator("#tiles-1")).to_contain_text("will be lost at this pace")
    expect(page.locator("#burn-plot-1 polyline")).to_have_count(2)
    expect(page.locator("#burn-plot-1 .stroke-limit")).to_have_count(1)
    expect(page.locator("#burn-days-1")).to_contain_text("expected")
    expect(page.locator(".table--grants tbody tr").first).to_contain_text("1. Launch gift")
    page.get_by_role("link", name="Granted", exact=True).click()
    expect(page).to_have_url(re.compile(r"code=grant"))
    expect(page.locator("#ledger tbody tr")).to_have_count(2)
    page.locator("#ledger tbody a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Granted")


def test_the_chart_says_what_is_available_and_when_it_expires(site, searching, bob):
    page = settled(site.open(PAGE, user=bob))
    expect(page.locator("#burn-plot-1 .scatterlayer .trace")).to_have_count(2)
    expect(page.locator("#burn-plot-1 .shapelayer path")).to_have_count(1)
    expect(page.locator("figcaption")).to_contain_text("52 credits available")


def test_the_ledger_is_downloaded_under_its_name(site, searching, bob):
    page = site.open(PAGE, user=bob)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "acme-credits.csv"


def test_a_customer_without_credits_reads_what_comes_here(site, acme, bob):
    page = site.open(PAGE, user=bob)
    expect(page.locator("#no-credits")).to_contain_text("No credits yet")
    expect(page.get_by_role("link", name="CSV")).to_have_count(0)


def test_the_credits_of_others_are_not_found(site, searching, charlie):
    page = site.open(PAGE, user=charlie)
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Credits")
    site.forgive("404")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_a_posting_fits_every_screen(site, searching, bob, width, dark):
    page = site.open(PAGE, user=bob, width=width, dark=dark)
    page.locator("#ledger tbody tr", has_text="Usage").first.get_by_role("link").click()
    expect(page.locator("#events")).to_be_visible()
    assert page.evaluate(CUT_OFF) == []
    assert found_by_axe(page) == ""
