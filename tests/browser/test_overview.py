"""The overview in a browser: live, complete without JavaScript, edited in place."""

import json
import re
from urllib.request import Request, urlopen

import pytest
from django.conf import global_settings
from django.contrib.sessions.models import Session
from playwright.sync_api import expect

from accounts.models import Membership
from billing.budgets.models import Budget
from tests.conftest import PASSWORD
from tests.factories import make_api_key

pytestmark = [pytest.mark.browser, pytest.mark.servers]


def post_event(url, secret, **properties):
    event = {"id": "live-1", "type": "llm.completion", "customer": "acme", "properties": properties}
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    with urlopen(Request(f"{url}/api/v1/events", json.dumps(event).encode(), headers), timeout=10) as response:
        return json.load(response)


def test_an_event_moves_the_number_on_the_open_page_without_a_reload(site, ticks, busy, alice):
    _, secret = make_api_key()
    page = site.open("/c/acme/", user=alice)
    expect(page.locator("#used")).to_have_text("$5.16")
    expect(page.locator("#freshness")).to_contain_text("Live, data to")
    page.evaluate("window.opened = 'before'")
    page.locator("#spend-days").focus()

    answer = post_event(site.url, secret, model="large-2", api_key="chat", input_tokens=1_000_000)

    assert answer["accepted"] == 1
    expect(page.locator("#used")).to_have_text("$7.66")
    expect(page.locator("#breakdowns")).to_contain_text("$7.50")
    assert page.evaluate("window.opened") == "before"
    assert page.evaluate("document.activeElement.id") == "spend-days"  # nobody loses their place


def test_the_chart_is_drawn_with_its_unit(site, busy, alice):
    page = site.open("/c/acme/", user=alice)
    expect(page.locator("#spend-plot .main-svg").first).to_be_visible()
    expect(page.locator("#spend-plot .ytick").last).to_contain_text("$")
    assert page.locator("#spend-plot .main-svg").first.evaluate("svg => getComputedStyle(svg).position") == "absolute"


def test_a_dashboard_whose_session_ended_goes_to_sign_in(site, busy, alice):
    page = site.open("/c/acme/", user=alice)
    Session.objects.all().delete()
    page.wait_for_url(re.compile(r"/accounts/login/\?next=/c/acme/$"))
    site.forgive("401")


def test_a_lost_connection_is_said_and_the_numbers_stay(site, busy, alice):
    page = site.open("/c/acme/", user=alice)
    page.context.set_offline(True)
    expect(page.locator("#freshness")).to_contain_text("No connection")
    expect(page.locator("#used")).to_have_text("$5.16")
    page.context.set_offline(False)
    expect(page.locator("#freshness")).to_contain_text("Live")
    site.forgive("ERR_INTERNET_DISCONNECTED", "htmx:sendError", "htmx:afterRequest")


def test_without_javascript_the_page_is_complete(site, busy, alice):
    page = site.open("/c/acme/", user=alice, javascript=False)
    expect(page.locator("#used")).to_have_text("$5.16")
    expect(page.locator("#spend-plot polyline")).to_be_visible()
    expect(page.locator("#spend-days tbody tr").first).to_contain_text("so far")
    page.get_by_role("link", name="Set a budget").click()
    page.get_by_label("Amount per billing period").fill("20")
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile(r"/c/acme/#budget$"))
    expect(page.locator("#tiles")).to_contain_text("$14.84")


def test_the_budget_is_edited_in_place(site, busy, alice):
    page = site.open("/c/acme/", user=alice)
    page.evaluate("window.opened = 'before'")
    page.get_by_role("link", name="Set a budget").click()
    amount = page.get_by_label("Amount per billing period")
    amount.fill("2,000")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#id_amount_error")).to_contain_text("such as 2000 or 1250.50")
    expect(amount).to_be_focused()
    amount.fill("10")
    page.get_by_role("button", name="Save").click()

    expect(page.locator("#budget")).to_contain_text("$10.00 per billing period")
    expect(page.locator("#tiles")).to_contain_text("$4.84")
    expect(page.locator("#banners")).to_contain_text("50 % of “Monthly budget” used")
    assert page.evaluate("window.opened") == "before"
    assert Budget.objects.get().amount == 10

    site.forgive("422")

    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_role("link", name="Cancel").click()
    expect(page.locator("#budget form")).to_have_count(0)


def test_a_viewer_reads_the_budget_and_cannot_edit_it(site, busy, bob):
    page = site.open("/c/acme/", user=bob)
    expect(page.locator("#budget")).to_contain_text("Owners and billing members can change this.")
    expect(page.locator("#budget a")).to_have_text(["All budgets and alerts"])


def test_signing_in_and_out(site, busy, alice, settings):
    settings.PASSWORD_HASHERS = global_settings.PASSWORD_HASHERS  # tests hash fast, the web process does not
    alice.set_password(PASSWORD)
    alice.save()
    page = site.open("/c/acme/")
    page.get_by_label("Email").fill(alice.email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile(r"/c/acme/$"))
    page.locator("summary", has_text=alice.email).click()
    page.get_by_role("button", name="Sign out").click()
    page.goto("/c/acme/")
    expect(page).to_have_url(re.compile(r"/accounts/login/\?next=/c/acme/$"))


def test_switching_customers(site, busy, alice, globex):
    Membership.objects.create(user=alice, customer=globex, role="viewer")
    page = site.open("/", user=alice)
    page.locator("summary", has_text="Customer: Acme").click()
    page.get_by_role("link", name="Globex").click()
    expect(page).to_have_url(re.compile(r"/c/globex/$"))
    expect(page.locator("#no-usage")).to_contain_text("No usage yet")
    page.locator("summary", has_text="Customer: Globex").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Acme")).to_be_hidden()


def test_a_theme_is_kept_and_changes_the_chart(site, busy, alice):
    page = site.open("/c/acme/", user=alice)
    line = page.locator("#spend-plot .js-line").first
    expect(line).to_be_visible()
    light = line.evaluate("line => getComputedStyle(line).stroke")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(line).not_to_have_css("stroke", light)
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_csv_is_downloaded_under_its_name(site, busy, alice):
    page = site.open("/c/acme/", user=alice)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"acme-spend-\d{4}-\d\d-\d\d-to-\d{4}-\d\d-\d\d\.csv", download.value.suggested_filename)
