"""Buying credits in a browser, with a payment page on another site, as Stripe's is.

Set SCREENSHOTS to a folder to look at the pages, light and dark, wide and narrow.
"""

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from billing import clock
from billing.topups import automatic, services
from billing.topups.models import PaymentAccount, TopUp, TopUpPrice, TopUpStatus
from billing.topups.payments import Outcome, Progress
from tests import processes
from tests.browser.test_manners import CUT_OFF, LOOKS, found_by_axe
from tests.stripe_server import SECRET, FakeStripe

pytestmark = [pytest.mark.browser, pytest.mark.servers]

D = Decimal
SHOTS = os.environ.get("SCREENSHOTS")
PAGE = "/c/acme/credits/top-ups"


@pytest.fixture(scope="module")
def stripe() -> Iterator[FakeStripe]:
    fake = FakeStripe()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def address(django_db_setup, stripe) -> Iterator[str]:
    """A web process that takes payments."""
    keys = {"STRIPE_API_KEY": "sk_test", "STRIPE_API_BASE": stripe.url, "STRIPE_WEBHOOK_SECRET": SECRET}
    web = processes.web("browser-stripe", **keys)
    stripe.tells = web.url
    with processes.running(web):
        yield web.url


@pytest.fixture
def price(busy) -> TopUpPrice:
    bounds = {"least": D(20), "most": D(10_000), "choices": [D(100), D(500), D(2500)]}
    return TopUpPrice.objects.create(unit="credits", currency="USD", unit_amount=D("0.05"), **bounds)


@pytest.fixture
def history(price, acme, alice) -> list[TopUp]:
    """One of each state, a rule and a card."""
    PaymentAccount.objects.create(
        customer=acme,
        provider="stripe",
        reference="cus_1",
        payment_method="pm_1",
        card="Visa ending in 4242, until 04/2030",
    )
    limits = {"threshold": D(10), "target": D(500), "monthly_ceiling": D(2000), "cooldown_minutes": 60}
    automatic.set_rule(customer=acme, unit="credits", is_active=True, **limits)
    made = [
        services.order(customer=acme, unit="credits", amount=D(amount), created_by=alice, at=clock.now())
        for amount in (100, 500, 100, 2500, 500)
    ]
    paid = Outcome(Progress.PAID, "pi_p", "https://pay.stripe.com/receipts/x")
    for top_up in made[:2]:
        services.settle(public_id=top_up.public_id, outcome=paid, at=clock.now())
        paid = Outcome(Progress.PAID, "pi_q")
    services.reverse(public_id=made[1].public_id, failure="The payment is disputed.", at=clock.now())
    services.fail(public_id=made[2].public_id, failure="The payment page has expired.", at=clock.now())
    TopUp.objects.filter(pk=made[3].pk).update(status=TopUpStatus.ACTION_REQUIRED, is_automatic=True)
    return made


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("javascript", [True, False])
def test_an_owner_buys_and_sees_the_balance_rise(site, price, alice, javascript):
    page = site.open("/c/acme/credits", user=alice, javascript=javascript)
    expect(page.locator("#available-1")).to_have_text("10 credits")
    page.get_by_role("link", name="Top up", exact=True).click()
    page.get_by_role("button", name="500 credits $25.00").click()
    expect(page).to_have_url(f"{TopUp.objects.get().url}")
    page.go_back()
    expect(page.get_by_role("heading", name="Buy credits")).to_be_visible()
    page.go_forward()

    page.get_by_role("button", name="Pay").click()

    expect(page.locator("#state")).to_contain_text("Your payment is being confirmed")
    shoot(page, f"confirming-{javascript}")
    expect(page.locator("#state")).to_contain_text("500 credits were added")
    page.get_by_role("link", name="See your credits").click()
    expect(page.locator("#available-1")).to_have_text("510 credits")


def test_a_card_is_left_for_automatic_top_ups(site, price, alice):
    page = site.open(PAGE, user=alice)
    page.get_by_role("button", name="Set up a card").click()
    page.get_by_role("button", name="Pay").click()
    expect(page.locator("main")).to_contain_text("The card is shown below as soon as it is confirmed")
    page.wait_for_timeout(1500)
    page.goto(PAGE)
    expect(page.locator("main")).to_contain_text("Visa ending in 4242")

    page.get_by_label("Buy automatically").check()
    page.get_by_label("When less than this is available").fill("10")
    page.get_by_label("Fill up to").fill("500")
    page.get_by_label("At most in a calendar month").fill("2000")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("Credits are bought automatically now.")


@pytest.mark.parametrize("look", LOOKS)
def test_every_state_is_accessible_and_nothing_is_cut_off(site, history, alice, look):
    page = site.open(PAGE, user=alice, **LOOKS[look])
    for path in [PAGE, *(f"{PAGE}/{top_up.public_id}" for top_up in history)]:
        page.goto(path)
        shoot(page, f"{look}-{path.rpartition('/')[2]}".replace(" ", "-"))
        assert found_by_axe(page) == "", path
        assert page.evaluate(CUT_OFF) == [], path
