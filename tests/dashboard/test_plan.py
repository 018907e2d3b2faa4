"""Plan & pricing says what a customer pays, and every line opens down to its events."""

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import clock
from billing.metering.correcting import void_event
from billing.periods import local_date
from billing.pricing.models import Plan
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from billing.subscriptions.services import cancel, change
from dashboard import plan
from dashboard.reading import PlanReading
from tests.factories import make_plan, make_version
from tests.house import PRICES, House

pytestmark = pytest.mark.django_db
D = Decimal


@pytest.fixture
def member(client, alice):
    client.force_login(alice)
    return client


def page(client, path="/c/acme/plan", **query):
    response = client.get(path, query)
    assert response.status_code == 200
    return response.content.decode()


def text(html):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def read(house):
    return plan.plan_page(PlanReading(house.customer, clock.now()))


# --- what it says -----------------------------------------------------------------------------------------------


def test_it_says_in_words_what_is_paid(member, acme, plan):
    version = make_version(
        Plan.objects.get(key="pro"),
        prices=PRICES,
        base_fee=D(20),
        minimum_spend=D(50),
        credits=(CreditSpec("credits", D(4000), rollover_max=D(500)),),
        overage=(OverageSpec("credits", D("0.012")),),
    )
    House(acme).subscribe(version)
    said = text(page(member))
    assert "$20.00 per month, in advance, and what you use." in said
    assert (
        "4,000 credits per month are included; up to 500 credits of what is left move to the next ones, once." in said
    )
    assert "a credit costs $0.012" in said
    assert "At least $50.00 per month" in said


def test_included_credits_and_quantities_are_bars(acme, plan):
    meter = PRICES[0].meter
    price = PriceSpec("input", meter, "USD", D(1), included=D(1000))
    version = make_version(
        Plan.objects.get(key="pro"), prices=(price, PRICES[2]), credits=(CreditSpec("credits", D(10)),)
    )
    house = House(acme).subscribe(version)
    house.use(input_tokens=400)
    for _ in range(3):
        house.use(type="search")
    house.count()
    assert [(one.used, one.amount, one.percent) for one in read(house).included] == [
        (D(3), D(10), D(30)),
        (D(400), D(1000), D(40)),
    ]


def test_the_upcoming_invoice_opens_to_its_arithmetic_and_ends_in_the_amount_due(member, busy):
    html = page(member)
    said = text(html)
    assert "2,000,000 / 1,000,000 x 2.5 = 5 USD" in said
    assert "Upcoming invoice, in the making" in said
    assert re.search(r'id="used"><data class="num" value="([^"]+)"', html)[1] == "5.16"
    assert 'href="/c/acme/plan/lines/pro/1/input/1/' in html
    assert [(row.name, row.amount) for row in read(busy).invoice.rows] == [
        ("input_tokens, everything else", D("0.03")),
        ("input_tokens, model large-2", D(5)),
        ("output_tokens", D("0.1299996")),
    ]


def test_the_bridge_is_worked_out_when_it_is_asked_for(member, busy):
    html = page(member)
    assert "unexplained" not in html
    assert "unexplained" not in page(member, "/c/acme/plan/live")
    address = unescape(re.search(r'id="bridge".*?hx-get="([^"]+)"', html, re.S)[1])

    alone = text(page(member, address))
    part = member.get(address, headers={"HX-Request": "true"}).content.decode()

    assert "+ unexplained 0 = due 5.16" in alone
    assert "Price book" in alone
    assert part.lstrip().startswith('<section class="card" id="bridge"')
    assert "+ unexplained 0 = due 5.16" in text(part)
    assert [row.unexplained for row in PlanReading(busy.customer, clock.now()).bridges] == [0, 0]


def test_a_minimum_is_projected_with_and_without_further_usage(member, acme, plan):
    version = make_version(Plan.objects.get(key="pro"), prices=PRICES, minimum_spend=D(5000))
    house = House(acme)
    house.now -= timedelta(days=6)
    house.subscribe(version)
    house.now = clock.now()
    for day in range(6):
        house.use(days_ago=day, model="large-2", input_tokens=10_000_000)
    house.count()
    said = text(page(member))
    assert "projected: this if nothing more is used" in said
    assert re.search(r"if nothing more is used until [^;]+; \$[\d,.]+ if usage goes on as expected", said)


def test_the_price_book_lists_every_row_with_its_price(member, busy):
    said = text(page(member))
    assert "model large-2 $2.50 per 1,000,000 tokens" in said
    assert "everything else $0.15 per 1,000,000 tokens" in said


def test_a_newer_version_is_a_change_that_does_not_touch_this_subscription(member, busy):
    make_version(Plan.objects.get(key="pro"), prices=PRICES[1:], base_fee=D(30))
    said = text(page(member))
    assert "Pro v2 is for new subscriptions; yours stays on version 1" in said
    assert "Base fee: none → $30.00, in advance" in said


def test_what_was_asked_for_is_a_change_to_come(member, busy):
    lite = make_version(make_plan("lite"), prices=PRICES[:1])
    subscription = busy.customer.subscriptions.get()
    change(subscription=subscription, version=lite, when="period_end", at=clock.now())
    assert "You change to Lite v1" in text(page(member))
    change(subscription=subscription, version=lite, when="now", at=clock.now())
    books = read(busy).book
    assert [book.version for book in books] == ["Pro v1", "Lite v1"]
    assert books[0].ends_at == books[1].starts_at
    cancel(subscription=subscription, when="period_end", at=clock.now())
    assert "The subscription ends" in text(page(member))


def test_without_a_subscription_it_says_so(member):
    assert "No plan yet" in text(page(member))


def test_an_earlier_period_is_shown_and_no_longer_moves(member, acme, plan):
    house = House(acme)
    house.now -= timedelta(days=40)
    house.subscribe(plan)
    house.now = clock.now()
    house.count()
    earlier = PlanReading(acme, clock.now()).earlier
    html = page(member, period=str(local_date(earlier.starts_at, earlier.timezone)))
    assert "Statement" in text(html)
    assert "data-live" not in html


def test_it_says_what_the_last_period_would_have_been_on_another_plan(member, acme, plan):
    prices = tuple(replace(price, unit_amount=D(1), match=()) for price in PRICES[:2])
    make_version(make_plan("flat", is_listed=True), prices=prices, base_fee=D(3))
    make_version(make_plan("secret"), prices=prices)
    make_version(make_plan("partial", is_listed=True), prices=prices[:1])
    house = House(acme)
    house.now -= timedelta(days=25)
    house.subscribe(plan)
    house.now = clock.now()
    house.use(days_ago=30, model="large-2", input_tokens=2_000_000, output_tokens=1_000_000)
    house.count()
    assert "on other plans" in text(page(member))
    assert "Flat" not in text(page(member))
    said = text(page(member, show="comparison"))
    part = member.get("/c/acme/plan?show=comparison", headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith('<section class="card" id="comparison"')
    assert "Flat" in text(part)
    assert "Your last billing period on other plans" in said
    assert re.search(r"Flat \$3.00 per month, in advance, and what you use. \$6\.00", said)
    assert "Secret" not in said
    assert "Partial" not in said


# --- how it behaves ---------------------------------------------------------------------------------------------


def test_the_open_page_asks_for_what_moved(member, busy):
    version = re.search(r'data-version="([^"]+)"', page(member))[1]
    assert member.get("/c/acme/plan/live", {"v": version}).status_code == 204
    busy.use(model="large-2", input_tokens=1_000_000)
    busy.count()
    fragment = page(member, "/c/acme/plan/live", v=version)
    assert fragment.lstrip().startswith('<div id="live"')
    assert "$7.66" in text(fragment)


def test_it_asks_as_often_as_the_overview(member, busy):
    paces = {re.search(r'hx-trigger="(every \d+s)', page(member, path))[1] for path in ("/c/acme/", "/c/acme/plan")}
    assert len(paces) == 1


def line_of(house, price, row):
    lines = PlanReading(house.customer, clock.now()).lines
    found = next(one for one in lines if (one.price.key, one.row) == (price, row))
    return f"/c/acme/plan/lines/{plan.address(found)}"


def test_it_is_for_members_alone(client, busy, charlie, bob):
    for path in ("/c/acme/plan", "/c/acme/plan/live", line_of(busy, "input", 0), "/c/acme/event?id=e1"):
        client.logout()
        assert client.get(path).status_code == 302
        client.force_login(charlie)
        assert client.get(path).status_code == 404
        client.force_login(bob)
        assert client.get(path).status_code == 200
        assert client.post(path).status_code == 405


def test_cost_does_not_grow_with_events(member, house):
    counted = []
    for events in (1, 3):
        for number in range(events):
            house.use(model=f"m{number}", input_tokens=1_000_000)
            house.use(type="search")
        house.count()
        page(member)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page(member)
        counted.append(len(queries))
    assert counted[0] == counted[1]


# --- down to the events -----------------------------------------------------------------------------------------


def test_a_line_lists_its_events_with_their_shares(member, busy):
    html = page(member, line_of(busy, "input", 1))
    said = text(html)
    assert "2,000,000 / 1,000,000 x 2.5 = $5.00 for 2,000,000 tokens" in said
    assert said.count("$2.50") == 2
    assert 'href="/c/acme/event?source=default&amp;id=e2"' in html
    assert "e3" not in said
    assert member.get("/c/acme/plan/lines/pro/1/input/1").status_code == 404


def test_a_receipt_shows_what_was_sent_and_what_it_costs(member, house):
    house.use(type="search", api_key="chat", ticket="T-17")
    house.count()
    html = page(member, "/c/acme/event", id="e1")
    said = text(html)
    assert "ticket T-17" in said
    assert "Costs 1 credit " in said
    assert member.get("/c/acme/event", {"id": "none"}).status_code == 404


def test_the_receipt_of_a_void_event_says_so(member, busy):
    void_event(source="default", event_id="e1", reason="reopened", api_key=None, at=clock.now())
    busy.count()
    said = text(page(member, "/c/acme/event", id="e1"))
    assert "This event is void." in said
    assert "reopened" in said


def test_an_event_of_another_customer_is_not_there(client, busy, charlie):
    client.force_login(charlie)
    assert client.get("/c/globex/event", {"id": "e1"}).status_code == 404
