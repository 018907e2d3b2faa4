"""The overview says the same number everywhere, at a price that does not grow with what it shows."""

import csv
import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from html import unescape
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import clock, money
from billing.budgets.services import create_budget
from billing.budgets.validation import ThresholdSpec
from billing.cycle.services import advance
from dashboard import building, charts
from dashboard.reading import Reading
from tests.factories import bearer, event, fold, ingest, make_api_key, make_subscription

pytestmark = pytest.mark.django_db
D = Decimal


@pytest.fixture
def member(client, alice):
    client.force_login(alice)
    return client


def page(client, path="/c/acme/"):
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def text(html):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def used(html):
    return D(re.search(r'id="used"><data class="num" value="([^"]+)"', html)[1])


def overview(house):
    return building.overview(Reading(house.customer, clock.now()))


def make_budget(house, amount, *percents):
    return create_budget(
        customer=house.customer,
        name="Production",
        unit="USD",
        amount=D(amount),
        thresholds=[ThresholdSpec(percent=D(percent)) for percent in percents],
        recipients=["owners"],
        at=clock.now(),
    )


# --- what it says -----------------------------------------------------------------------------------------------


def test_the_tiles_say_what_is_used_and_left(member, busy):
    make_budget(busy, "20", "50", "80")
    said = text(page(member))
    assert "$5.16" in said
    assert "$14.84" in said
    assert "25.7 % of $20.00" in said
    assert "plan Pro" in said


def test_spend_over_the_budget_is_said_in_words(member, busy):
    make_budget(busy, "4", "100")
    said = text(page(member))
    assert "Over budget" in said
    assert "100 % of “Production” used. $5.16 of $4.00" in said


def test_models_and_keys_are_listed_largest_first_and_sum_to_what_was_used(busy):
    found = overview(busy)
    by_model, by_key = found.breakdowns
    assert [(row.name, row.amount) for row in by_model.rows] == [("large-2", D(5)), ("small-1", D("0.1599996"))]
    assert [row.name for row in by_key.rows] == ["chat", "ingest"]
    assert by_model.title == "By model"
    assert by_key.title == "By key"
    assert by_model.total == by_key.total == found.used == D("5.1599996")


def test_input_and_output_tokens_are_tokens(busy):
    small = next(row for row in overview(busy).breakdowns[0].rows if row.name == "small-1")
    assert [(quantity.amount, quantity.unit) for quantity in small.quantities] == [(D(416_666), "token")]


def test_usage_without_a_key_is_listed_as_such(member, house):
    house.use(model="large-2", input_tokens=1_000_000)
    house.count()
    assert [row.name for row in overview(house).breakdowns[1].rows] == [None]
    assert "not given" in text(page(member))


def test_many_models_are_summed_into_one_row_that_says_how_many(house):
    for number in range(12):
        house.use(model=f"m-{number:02}", api_key="chat", output_tokens=1_000_000 + number)
    house.count()
    by_model = overview(house).breakdowns[0]
    assert len(by_model.rows) == building.SHOWN
    assert by_model.rest.name == "4 others"
    assert money.total(row.amount for row in (*by_model.rows, by_model.rest)) == by_model.total


def test_days_are_those_of_the_customer_and_end_today(busy):
    days = overview(busy).days
    assert days[0].start == Reading(busy.customer, busy.now).local(busy.at(10)).replace(
        hour=days[0].start.hour, minute=days[0].start.minute, second=0, microsecond=0
    )
    assert all((day.start.hour, day.start.minute) == (0, 0) for day in days[1:])
    assert days[-1].start.date() == Reading(busy.customer, clock.now()).local(clock.now()).date()
    assert days[-1].cumulative == money.total(day.amount for day in days) == D("5.1599996")


def test_the_chart_has_a_table_beside_it_with_the_same_numbers(member, busy):
    html = page(member)
    figure = json.loads(re.search(r'<script id="spend-figure" type="application/json">(.+?)</script>', html)[1])
    assert figure["data"][0]["y"][-1] == pytest.approx(5.1599996)
    assert "<caption" in html
    assert html.count('<th scope="row">') >= 10


def test_a_customer_that_never_sent_anything_is_shown_how(member, house):
    html = page(member)
    said = text(html)
    assert "No usage yet" in said
    assert "curl http://testserver/api/v1/events" in html
    assert '"customer": "acme"' in html.replace("&quot;", '"')


def test_usage_that_no_price_covers_is_no_empty_page(member, acme, plan):
    ingest(event("a", model="large-2", input_tokens=5), at=clock.now())
    fold(acme, at=clock.now())
    said = text(page(member))
    assert "No usage yet" not in said
    assert "Spend this period" in said


def test_a_hostile_model_name_stays_text(member, house):
    house.use(model="</script><img src=x onerror=alert(1)>", api_key="=1+1", input_tokens=1_000_000)
    house.count()
    assert "<img src=x" not in page(member)


# --- one truth ----------------------------------------------------------------------------------------------------


def rows(client, path="/c/acme/spend.csv"):
    body = b"".join(client.get(path).streaming_content).decode()
    return list(csv.DictReader(StringIO(body)))


def test_the_csv_sums_to_every_number_of_the_page(member, busy):
    found, lines = overview(busy), rows(member)
    assert sum(D(line["amount"]) for line in lines) == found.used == used(page(member))
    for day in found.days:
        assert sum(D(line["amount"]) for line in lines if line["start"] == day.start.isoformat()) == day.amount
    for breakdown, column in zip(found.breakdowns, ("model", "api_key"), strict=True):
        for row in breakdown.rows:
            assert sum(D(line["amount"]) for line in lines if line[column] == row.name) == row.amount


def test_the_api_answers_the_same_numbers(client, member, busy):
    found, lines, moment = overview(busy), rows(member), datetime.fromisoformat
    _, secret = make_api_key(customer=busy.customer)
    asked = "/api/v1/customers/acme/spend?unit=USD&granularity=day"
    by_day = client.get(asked, **bearer(secret)).json()
    groups = client.get(f"{asked}&group_by=model,api_key", **bearer(secret)).json()
    assert D(by_day["total"]) == D(groups["total"]) == found.used
    assert [D(row["amount"]) for row in by_day["series"]][: len(found.days)] == [day.amount for day in found.days]
    for row in groups["series"]:
        same = [line for line in lines if (line["model"], line["api_key"]) == tuple(row["group"].values())]
        in_csv = [D(line["amount"]) for line in same if moment(line["start"]) == moment(row["start"])]
        assert sum(in_csv) == D(row["amount"])


def test_the_csv_is_named_after_customer_and_period_and_says_its_units(member, busy):
    response = member.get("/c/acme/spend.csv")
    first, last = overview(busy).period_start, overview(busy).days[-1].start
    assert response.headers["Content-Disposition"].startswith(f'attachment; filename="acme-spend-{first:%Y-%m-%d}-to-')
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    line = rows(member)[-1]
    assert (line["quantity_unit"], line["unit"], line["amount"]) == ("token", "USD", "0.1299996")
    assert line["start"] == last.isoformat()


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\t=1"])
def test_a_cell_cannot_be_a_formula(member, house, name):
    house.use(model=name, api_key="chat", input_tokens=1_000_000)
    house.count()
    assert rows(member)[0]["model"] == f"'{name}"


# --- live -----------------------------------------------------------------------------------------------------------


def test_an_open_page_that_is_current_gets_nothing_and_one_query_more_than_signing_in(member, busy):
    version = re.search(r'data-version="([^"]+)"', page(member))[1]
    with CaptureQueriesContext(connection) as queries:
        response = member.get("/c/acme/live", {"v": version})
    assert response.status_code == 204
    assert response.headers["X-Data-Delayed"] == "false"
    assert re.fullmatch(r"\d\d:\d\d:\d\d CES?T", response.headers["X-Data-To"])
    assert len(queries) == 4  # session, user, memberships; and this one:
    assert "billing_watermark" in queries[-1]["sql"]


def test_an_open_page_gets_the_part_that_moves_when_something_moved(member, busy):
    version = re.search(r'data-version="([^"]+)"', page(member))[1]
    busy.use(model="large-2", api_key="chat", input_tokens=2_000_000)
    busy.count()
    response = member.get("/c/acme/live", {"v": version}, headers={"HX-Request": "true"})
    fragment = response.content.decode()
    assert fragment.lstrip().startswith('<div id="live"')
    assert used(fragment) == D("10.1599996")
    assert "X-Data-To" in response.headers
    assert "<html" not in fragment


def test_events_that_wait_longer_than_promised_are_said_to_be_delayed(member, busy):
    busy.use(model="large-2", api_key="chat", input_tokens=1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_watermark SET counted_through = now() - interval '1 minute'")
    response = member.get("/c/acme/live", {"v": "another"})
    assert response.headers["X-Data-Delayed"] == "true"
    assert 'data-delayed="true"' in response.content.decode()


# --- earlier periods --------------------------------------------------------------------------------------------


@pytest.fixture
def past(acme, plan):
    """Acme 40 days after its subscription began, with usage in both periods; the day on which the first began."""
    now = clock.now()
    subscription = make_subscription(acme, plan, now - timedelta(days=40))
    advance(customer_id=acme.pk, at=now)
    for number, days in enumerate((39, 38, 0)):
        stamp = (now - timedelta(days=days)).isoformat()
        sent = event(f"e{number}", timestamp=stamp, model="large-2", api_key="chat", input_tokens=1_000_000)
        ingest(sent, at=now, backfill=True)
    advance(customer_id=acme.pk, at=now)
    return subscription.starts_at.astimezone(ZoneInfo("Europe/Berlin")).date().isoformat()


def test_an_ended_period_is_shown_as_it_ended(member, past):
    ended = page(member, f"/c/acme/?period={past}")
    assert used(ended) == D(5)
    assert used(page(member)) == D("2.50")
    assert "Ended" in text(ended)
    assert "so far" not in text(ended)
    assert "data-live" not in ended
    assert f"spend.csv?period={past}" in ended
    assert sum(D(row["amount"]) for row in rows(member, f"/c/acme/spend.csv?period={past}")) == D(5)


def test_earlier_periods_are_reached_by_links(member, past):
    assert f'href="/c/acme/?period={past}"' in page(member)
    earlier = text(page(member, f"/c/acme/?period={past}"))
    assert "Earlier period" not in earlier
    assert "Present period" in earlier


@pytest.mark.parametrize("day", ["2020-01-01", "yesterday", "", "0001-01-01", "9999-12-31"])
def test_a_day_on_which_no_period_begins_is_not_found(member, past, day):
    assert member.get("/c/acme/", {"period": day}).status_code == 404
    assert member.get("/c/acme/spend.csv", {"period": day}).status_code == 404


# --- what it costs ------------------------------------------------------------------------------------------------


def queries_of(client, path):
    client.get(path)
    with CaptureQueriesContext(connection) as queries:
        response = client.get(path)
        b"".join(response)
    return len(queries)


@pytest.mark.parametrize("path", ["/c/acme/", "/c/acme/spend.csv", "/c/acme/live?v=old"])
def test_the_number_of_queries_does_not_grow(member, busy, path):
    make_budget(busy, "20", "50")
    few = queries_of(member, path)
    for number in range(30):
        busy.use(days_ago=number % 9, model=f"m-{number}", api_key=f"k-{number}", output_tokens=1_000_000)
    busy.count()
    assert queries_of(member, path) == few


# --- credits --------------------------------------------------------------------------------------------------------


def test_credits_say_what_is_left_and_when_it_expires(member, house):
    for _ in range(3):
        house.use(type="search", api_key="chat")
    house.count()
    [credits] = overview(house).credits
    assert (credits.unit, credits.available, credits.overage) == ("credits", 7, 0)
    assert [(grant.name, grant.amount, grant.remaining) for grant in credits.grants] == [("From the plan", 10, 7)]
    assert "7 credits expire after" in text(page(member))


def test_credits_beyond_the_grants_are_spend_with_a_name_of_their_own(member, house):
    for number in range(14):
        house.use(days_ago=number % 3, type="search", api_key="chat")
    house.use(model="large-2", api_key="chat", input_tokens=1_000_000)
    house.count()
    found, lines = overview(house), rows(member)
    assert found.used == D("2.50") + 4 * D("0.05")
    assert found.credits[0].overage == 4
    assert [row.name for row in found.breakdowns[0].rows] == ["large-2", "credits beyond the grants"]
    assert sum(D(line["amount"]) for line in lines if line["price"] == "overage:credits") == D("0.20")
    assert sum(D(line["amount"]) for line in lines) == found.used
    assert "4 credits used beyond the grants" in text(page(member))


# --- forecast -------------------------------------------------------------------------------------------------------


def test_three_days_of_usage_give_a_range_that_holds_what_is_used(member, house):
    for hour in range(24 * 4):
        house.use(days_ago=hour / 24, model="large-2", api_key="chat", input_tokens=400_000)
    house.count()
    make_budget(house, "100", "80")
    found = overview(house)
    assert found.used < found.forecast.low < found.forecast.high
    assert found.forecast.crosses_at > clock.now()
    assert "crosses the budget about" in text(page(member))


def test_the_chart_shows_where_the_period_is_expected_to_end(member, house):
    for hour in range(24 * 4):
        house.use(days_ago=hour / 24, model="large-2", api_key="chat", input_tokens=400_000)
    house.count()
    found, html = overview(house), page(member)
    figure = charts.cumulative_figure(found)
    spend, low, high = figure["data"]
    assert low["x"][0] == high["x"][0] == spend["x"][-1]
    assert [low["y"][-1], high["y"][-1]] == [float(found.forecast.low), float(found.forecast.high)]
    assert figure["layout"]["yaxis"]["range"][1] > high["y"][-1]
    assert '<polygon class="fill-1"' in html
    assert "are expected by" in text(html)


def test_too_little_usage_gives_no_number(member, house):
    house.use(days_ago=1, model="large-2", api_key="chat", input_tokens=400_000)
    house.count()
    assert overview(house).forecast is None
    assert "Not enough data yet" in text(page(member))


def test_a_budget_that_is_used_up_is_crossed_no_more(member, house):
    for hour in range(24 * 4):
        house.use(days_ago=hour / 24, model="large-2", api_key="chat", input_tokens=400_000)
    house.count()
    make_budget(house, "1", "80")
    assert overview(house).forecast.crosses_at is None
    assert "budget used up" in text(page(member))
