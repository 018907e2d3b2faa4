"""A product manager at work in the admin: every scheme is typed by hand, previewed, reviewed and published.

Set SCREENSHOTS to a folder to look at the pages, light and dark, wide and narrow.
"""

import os
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from billing.pricing.models import PlanVersion
from billing.pricing.queries import spec_of
from billing.pricing.schemes import Tier
from billing.pricing.services import create_version
from billing.pricing.spec import VersionSpec

pytestmark = [pytest.mark.browser, pytest.mark.servers]

D = Decimal
SHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture
def draft(busy) -> PlanVersion:
    """The next version of Acme's plan, with its prices; Acme has used something."""
    version = PlanVersion.objects.select_related("plan").get()
    return create_version(plan=version.plan, spec=spec_of(version), at=busy.now)


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def choose(page: Page, scheme: str, **amounts: str) -> None:
    page.select_option("[name=scheme]", scheme)
    for name, amount in amounts.items():
        page.fill(f"[name={name}]", amount)


TYPED = {
    "per_unit": ({"unit_amount": "0.3", "included": "100"}, {"unit_amount": D("0.3"), "included": D(100)}),
    "package": ({"package_size": "50", "package_amount": "4"}, {"package_size": D(50), "package_amount": D(4)}),
    "percentage": ({"rate": "2.9", "fixed_amount": "0.3"}, {"rate": D("2.9"), "fixed_amount": D("0.3")}),
    "graduated": (
        {"tiers-0-up_to": "1000", "tiers-0-unit_amount": "2", "tiers-1-unit_amount": "1", "tiers-1-flat_amount": "5"},
        {"tiers": (Tier(D(1000), D(2)), Tier(None, D(1), D(5)))},
    ),
    "volume": (
        {"tiers-0-up_to": "1000", "tiers-0-unit_amount": "2", "tiers-1-unit_amount": "1", "maximum_amount": "90"},
        {"tiers": (Tier(D(1000), D(2)), Tier(None, D(1))), "maximum_amount": D(90)},
    ),
}


@pytest.mark.parametrize("scheme", TYPED)
@pytest.mark.parametrize("javascript", [True, False])
def test_each_scheme_is_typed_by_hand(site, draft, olivia, scheme, javascript):
    typed, kept = TYPED[scheme]
    page = site.open(f"/admin/billing/planversion/{draft.pk}/prices/output/", user=olivia, javascript=javascript)

    choose(page, scheme, **{name: amount for name, amount in typed.items() if "-" not in name})
    for name, amount in typed.items():
        if "-" in name:
            page.fill(f"[name={name}]", amount)
    for other in {"unit_amount", "package_size", "rate", "tiers-0-up_to"} - typed.keys():
        expect(page.locator(f"[name={other}]")).to_be_hidden()  # only what the scheme takes is on the page
    page.click("text=Save the price")

    expect(page.locator("text=output is saved").first).to_be_visible()
    [price] = [price for price in spec_of(PlanVersion.objects.get(pk=draft.pk)).prices if price.key == "output"]
    assert price.scheme == scheme
    assert {name: getattr(price, name) for name in kept} == kept


@pytest.mark.parametrize(
    ("width", "dark"),
    [(1280, False), (1280, True), (390, False), (390, True)],
    ids=["wide", "dark", "phone", "phone-dark"],
)
def test_a_version_is_typed_previewed_reviewed_and_published(site, draft, olivia, width, dark):
    look = f"{width}-{'dark' if dark else 'light'}"
    page = site.open(f"/admin/billing/planversion/{draft.pk}/change/", user=olivia, width=width, dark=dark)
    shoot(page, f"version-{look}")
    page.click("text=Edit input")

    expect(page.locator("#price-preview")).to_contain_text("everyone on Pro v1 (1 customer) would have cost $5.16")
    page.fill("[name=match-0-unit_amount]", "2.2")
    page.fill("[name=match-1-where]", "model = mini | nano")
    page.fill("[name=match-1-unit_amount]", "0.05")
    # Live: two million tokens of large-2, thirty cents less each.
    expect(page.locator("#price-preview")).to_contain_text("$4.56")
    expect(page.locator("#price-preview")).to_contain_text("\N{MINUS SIGN}11.6 %")
    expect(page.locator("[name=match-1-where]")).to_have_value("model = mini | nano")
    shoot(page, f"price-{look}")
    page.click("text=Save the price")

    said = "input, model = large-2: $2.50 per 1,000,000 → $2.20 per 1,000,000"
    expect(page.locator(".hr-panel").first).to_contain_text(said)
    page.click("text=What would it have cost?")
    expect(page.locator("table.hr-table")).to_contain_text("Acme")
    shoot(page, f"preview-{look}")
    page.fill("[name=customer]", "acme")
    page.click("button:has-text('Preview')")
    expect(page.locator("#content-main")).to_contain_text("2,000,000 / 1,000,000 x 2.2")
    shoot(page, f"preview-one-{look}")
    page.go_back()
    page.go_back()
    page.click("text=Review and publish")
    expect(page.locator("#content-main")).to_contain_text(said)
    shoot(page, f"publish-{look}")
    page.click(f"button:has-text('Publish {draft}')")

    expect(page.locator("body")).to_contain_text("is published")
    shoot(page, f"published-{look}")
    draft.refresh_from_db()
    assert draft.status == "published"


def test_what_is_wrong_is_told_beside_it(site, busy, olivia):
    version = PlanVersion.objects.select_related("plan").get()
    draft = create_version(plan=version.plan, spec=VersionSpec(), at=busy.now)
    page = site.open(f"/admin/billing/planversion/{draft.pk}/prices/", user=olivia)

    page.fill("[name=key]", "input")
    page.select_option("[name=meter]", "input_tokens")
    choose(page, "graduated")
    page.fill("[name=tiers-0-up_to]", "10")
    page.fill("[name=match-0-where]", "large-2")
    page.click("text=Save the price")

    expect(page.locator(".hr-error")).to_contain_text(["model = large-2"])
    shoot(page, "errors")
    page.fill("[name=match-0-where]", "")
    page.click("text=Save the price")
    expect(page.locator(".hr-error")).to_contain_text(["The last tier has up_to null"])
    assert not draft.prices.exists()
