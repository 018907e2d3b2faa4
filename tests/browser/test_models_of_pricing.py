"""An operator sets up each model of pricing by hand; usage comes; the customer reads what it costs, and why."""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from playwright.sync_api import Page, expect

from tests.factories import make_api_key
from tests.oracle import statement as oracle

pytestmark = [pytest.mark.browser, pytest.mark.servers]


@dataclass(frozen=True)
class Model:
    """What is typed into the admin's forms, the properties of the events, and what the customer reads."""

    meter: dict[str, str]
    price: dict[str, str]
    events: list[dict[str, Any]]
    due: str
    explained: str
    fee: str = "0"
    match: tuple[dict[str, str], ...] = ()
    credits: dict[str, str] = field(default_factory=dict)
    overage: dict[str, str] = field(default_factory=dict)
    void: tuple[int, ...] = ()


MODELS = {
    "tokens": Model(
        meter={"unit": "token", "aggregation": "sum", "value": "tokens", "dimensions": "model"},
        price={"unit": "USD", "scheme": "per_unit", "per": "1000", "unit_amount": "0.5"},
        match=({"where": "model = large-2", "unit_amount": "2"},),
        events=[{"tokens": 3000, "model": "small-1"}, {"tokens": 1000, "model": "large-2"}],
        explained="1,000 / 1,000 x 2 = 2 USD",
        due="$3.50",
    ),
    "calls": Model(
        meter={"unit": "call", "aggregation": "count"},
        price={
            "unit": "USD",
            "scheme": "graduated",
            "included": "1",
            "tiers-0-up_to": "2",
            "tiers-0-unit_amount": "1.5",
            "tiers-1-unit_amount": "1",
        },
        events=[{} for _ in range(5)],
        explained="1 included + 2 x 1.5 + 2 x 1 = 5 USD",
        due="$5.00",
    ),
    "credits": Model(
        meter={"unit": "image", "aggregation": "count", "dimensions": "quality"},
        price={"unit": "credits", "scheme": "per_unit", "unit_amount": "3"},
        credits={"unit": "credits", "amount": "10"},
        overage={"unit": "credits", "unit_amount": "0.5"},
        events=[{} for _ in range(5)],
        explained="5 beyond the grants x 0.5 = 2.5 USD",
        due="$2.50",
    ),
    "subscription": Model(
        meter={"unit": "minute", "aggregation": "sum", "value": "minutes"},
        price={"unit": "USD", "scheme": "per_unit", "unit_amount": "1", "included": "10", "maximum_amount": "20"},
        fee="49",
        events=[{"minutes": "60.5"}, {"minutes": "39.5"}],
        explained="min((100 - 10 included) x 1, 20 maximum) = 20 USD",
        due="$69.00",
    ),
    "outcomes": Model(
        meter={
            "unit": "ticket",
            "aggregation": "count",
            "filters": '[{"property": "outcome", "op": "eq", "value": "resolved"}]',
        },
        price={"unit": "USD", "scheme": "per_unit", "unit_amount": "0.99"},
        events=[{"outcome": outcome, "ticket": f"T-{n}"} for n, outcome in enumerate(["resolved"] * 3 + ["open"])],
        void=(2,),
        explained="2 x 0.99 = 1.98 USD",
        due="$1.98",
    ),
}


@pytest.mark.usefixtures("ticks", "acme")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_set_up_by_hand_charged_and_explained(site, alice, olivia, name):
    model = MODELS[name]
    admin = site.open("/admin/", user=olivia)
    make_meter(admin, name, model)
    make_plan(admin, name, model)
    subscribe(admin, name)
    api = Api(site.url, make_api_key()[1])

    used = [
        {"id": f"{name}-{n}", "type": f"{name}.used", "customer": "acme", "properties": properties}
        for n, properties in enumerate(model.events)
    ]
    assert api("/events", used)["accepted"] == len(used)
    for n in model.void:
        api("/events/void", {"source": "default", "id": used[n]["id"], "reason": "Reopened within 72 hours"})

    page = site.open("/c/acme/plan", user=alice)
    expect(page.locator("#used")).to_have_text(model.due)
    for row in page.locator("details.explain summary").all():
        row.click()
    expect(page.locator("#invoice")).to_contain_text(model.explained)
    page.get_by_role("link", name="Check the amount due").click()
    expect(page.locator("#bridge")).to_contain_text(re.compile(r"\+ unexplained\s*0\s"))
    receipt_opens(page, used[0])
    assert_is_what_the_events_come_to(api, name, used, model)


def save(page: Page, said: str) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text(said).first).to_be_visible()


def fill(page: Page, fields: dict[str, str], prefix: str = "") -> None:
    for field_name, value in fields.items():
        control = page.locator(f'[name="{prefix}{field_name}"]')
        if control.evaluate("control => control.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)


def make_meter(page: Page, name: str, model: Model) -> None:
    page.goto("/admin/billing/meter/add/")
    fill(page, {"key": name, "name": name.capitalize(), "event_type": f"{name}.used", **model.meter})
    save(page, "was added successfully")


def make_plan(page: Page, name: str, model: Model) -> None:
    page.goto("/admin/billing/plan/add/")
    fill(page, {"name": f"Plan {name}", "key": name, "currency": "USD"})
    save(page, "was added successfully")
    page.goto("/admin/billing/planversion/add/")
    page.locator(".select2-selection").first.click()
    page.locator(".select2-search__field").fill(name)
    page.locator(".select2-results__option", has_text=f"Plan {name}").click()
    fill(page, {"base_fee": model.fee})
    for inline, fields in (("credits", model.credits), ("overage", model.overage)):
        if fields:
            page.locator(f"#{inline}-group a.add-row").click()
            fill(page, fields, f"{inline}-0-")
    page.get_by_role("button", name="Save and continue editing").click()
    page.get_by_role("link", name="Add a price").click()
    fill(page, {"key": "price", "meter": name, **model.price})
    for number, row in enumerate(model.match):
        fill(page, row, f"match-{number}-")
    page.get_by_role("button", name="Save the price").click()
    expect(page.get_by_text("price is saved.")).to_be_visible()
    page.get_by_role("link", name="Publish").first.click()
    page.get_by_role("button", name=re.compile("^Publish")).click()
    expect(page.get_by_text("is published.").first).to_be_visible()


def subscribe(page: Page, name: str) -> None:
    page.goto("/admin/billing/subscription/add/")
    page.locator('[name="customer"]').select_option(label="Acme (acme)")
    page.locator('[name="version"]').select_option(label=f"Plan {name} v1")
    fill(page, {"starts_at_0": f"{datetime.now(UTC):%Y-%m-%d}", "starts_at_1": "00:00:00"})
    save(page, "was added successfully")


class Api:
    """The vendor's backend."""

    def __init__(self, url: str, secret: str) -> None:
        self.url, self.secret = f"{url}/api/v1", secret
        self.open = build_opener(ProxyHandler({})).open

    def __call__(self, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body).encode()
        with self.open(Request(self.url + path, sent, headers), timeout=20) as answer:
            return json.load(answer)


def receipt_opens(page: Page, event: dict[str, Any]) -> None:
    """From the line to its events, and to what was sent."""
    page.get_by_role("link", name="Events of this line").first.click()
    page.get_by_role("link", name=event["id"], exact=True).click()
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    for value in event["properties"].values():
        expect(page.locator("#main")).to_contain_text(str(value))


def assert_is_what_the_events_come_to(api: Api, name: str, used: list[dict[str, Any]], model: Model) -> None:
    wanted = oracle.statement(
        currency="USD",
        meters=[api(f"/meters/{name}")],
        version=api(f"/plans/{name}/versions/1"),
        events=used,
        void=[used[n]["id"] for n in model.void],
    )
    assert api("/customers/acme/upcoming-invoice")["amount_due"] == f"{oracle.plain(wanted.amount_due).normalize():f}"
