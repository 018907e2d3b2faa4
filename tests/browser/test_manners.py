"""Every page: nothing against the Content-Security-Policy, nothing that axe finds, nothing cut off on a small phone.

Violations and console errors fail a test by the fixture; see conftest.py.
"""

from decimal import Decimal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.admin import site as admin_site
from django.urls import reverse
from playwright.sync_api import expect

from accounts.models import User
from billing import clock
from billing.budgets.services import create_budget
from billing.budgets.validation import ThresholdSpec
from billing.pricing.models import PlanVersion

pytestmark = [pytest.mark.browser, pytest.mark.servers]

CREDITS = ["/c/acme/credits", "/c/acme/credits/top-ups"]
DASHBOARD = ["/c/acme/", *CREDITS, "/c/acme/plan", "/c/acme/budget", "/c/acme/budget/edit", "/c/acme/team"]
ACCOUNT = ["/accounts/password/change/", "/accounts/2fa/", "/accounts/logout/"]
STRANGERS = ["/accounts/login/", "/accounts/password/reset/", "/accounts/signup/"]
LOOKS = {
    "desktop light": {"width": 1280},
    "desktop dark": {"width": 1280, "dark": True},
    "phone light": {"width": 375, "height": 812},
    "phone dark": {"width": 320, "height": 700, "dark": True},
}

# What sticks out of the window, or is cut inside its own box, and cannot be scrolled to.
CUT_OFF = """() => {
  const cut = [];
  const scrolls = (node) => node.closest(".scroll, .code, .sr-only, .skip, svg");
  for (const node of document.querySelectorAll("body *")) {
    const box = node.getBoundingClientRect(), style = getComputedStyle(node);
    if (!box.width || scrolls(node) || style.clipPath !== "none") continue;
    const inside = style.overflowX !== "visible" && node.scrollWidth > node.clientWidth + 1;
    if (box.right > innerWidth + 1 || box.left < -1 || inside) cut.push(node.outerHTML.slice(0, 120));
  }
  return cut;
}"""


@pytest.fixture
def full(busy):
    """Everything that a page can show at once: a budget that was crossed, credits, breakdowns."""
    create_budget(
        customer=busy.customer,
        name="Production",
        unit="USD",
        amount=Decimal(6),
        thresholds=[ThresholdSpec(percent=Decimal(percent)) for percent in (50, 80, 100)],
        recipients=["owners", "ap@acme.test"],
        at=clock.now(),
    )
    return busy


def settled(page):
    """The page once its charts are drawn, which they are when they come into view."""
    for plot in page.locator("[data-figure]").all():
        plot.scroll_into_view_if_needed()
        expect(plot.locator(".main-svg").first).to_be_visible()
    return page


def visited(site, paths, **who):
    """Each page in turn, in one window: it fetches and compiles their scripts once."""
    page = site.open(paths[0], **who)
    yield settled(page)
    for path in paths[1:]:
        page.goto(path)
        yield settled(page)


def found_by_axe(page):
    results = Axe().run(page)
    return results.generate_report() if results.violations_count else ""


@pytest.mark.parametrize("look", LOOKS)
def test_a_members_pages_are_accessible(site, full, alice, look):
    for page in visited(site, DASHBOARD + ACCOUNT, user=alice, **LOOKS[look]):
        assert found_by_axe(page) == "", page.url


@pytest.mark.parametrize("look", LOOKS)
def test_pages_of_strangers_are_accessible(site, committed, look):
    for page in visited(site, STRANGERS, **LOOKS[look]):
        assert found_by_axe(page) == "", page.url


def test_a_page_without_usage_and_one_without_a_customer_are_accessible(site, house, alice):
    for user, path in ((alice, "/c/acme/"), (User.objects.create_user("new@nowhere.test", "x"), "/")):
        assert found_by_axe(site.open(path, user=user)) == ""


@pytest.mark.parametrize("width", [320, 375])
def test_nothing_is_cut_off_on_a_phone(site, full, alice, width):
    for page in visited(site, DASHBOARD + ACCOUNT, user=alice, width=width, height=700):
        assert page.evaluate("document.documentElement.scrollWidth") == width, page.url
        assert page.evaluate(CUT_OFF) == [], page.url


def test_sums_of_many_millions_fit_the_smallest_phone(site, house, alice):
    for key in ("ingest-worker-of-the-european-region", "chat"):
        house.use(model="a-model-with-a-rather-long-name-2026-11-24", api_key=key, input_tokens=10**15)
    house.count()
    page = settled(site.open("/c/acme/", user=alice, width=320, height=700))
    expect(page.locator("#used")).to_contain_text("$300,000,000.00")
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert page.evaluate(CUT_OFF) == []


def test_errors_are_pages_too(site, full, alice, bob):
    for user, path, status in ((alice, "/c/nobody/", "404"), (bob, "/c/acme/budget/edit", "403")):
        page = site.open(path, user=user, width=320, height=700)
        expect(page.locator("main")).to_contain_text(status)
        assert found_by_axe(page) == ""
        assert page.evaluate(CUT_OFF) == []
    site.forgive("404", "403")


def test_an_operators_pages_keep_their_policy(site, full, olivia):
    version = PlanVersion.objects.get()
    lists = [
        reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") for model in admin_site._registry
    ]
    forms = [reverse("admin:billing_planversion_change", args=[version.pk]), reverse("admin:accounts_user_add")]
    page = site.open("/admin/", user=olivia)
    for path in [*lists, *forms, "/api/v1/docs/"]:
        page.goto(path)
        assert page.title(), path


def test_an_operator_who_visits_is_told_so(site, full, olivia):
    page = settled(site.open(reverse("overview", args=["acme"]), user=olivia, width=375, height=812))
    expect(page.locator("main")).to_contain_text("You are visiting as an operator.")
    assert found_by_axe(page) == ""
