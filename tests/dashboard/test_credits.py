"""The credits page: what is left, how long it lasts, and every movement down to its events."""

import csv
import json
import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from io import StringIO

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import clock
from billing.credits import services
from billing.credits.models import GrantKind, LedgerTransaction
from billing.credits.queries import balances
from dashboard.credits import credits_page
from dashboard.reading import Reading

pytestmark = pytest.mark.django_db
D = Decimal
PAGE = "/c/acme/credits"


@pytest.fixture
def member(client, bob):
    """A viewer, who may read all of this."""
    client.force_login(bob)
    return client


@pytest.fixture
def searching(house):
    """Two searches a day, at the same time, of ten that come with the plan."""
    for day in range(4):
        for key in ("chat", "ingest"):
            house.use(days_ago=day + 0.1, type="search", api_key=key)
    house.count()
    return house


def give(house, amount, **fields):
    given = {"unit": "credits", "kind": GrantKind.PAID, "at": clock.now(), **fields}
    return services.grant(customer=house.customer, amount=D(amount), **given)


def page(client, path=PAGE):
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def text(html):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<script.+?</script>", "", html))))


def shown(house):
    return credits_page(Reading(house.customer, clock.now()))


def rows(client):
    answer = b"".join(client.get("/c/acme/credits.csv")).decode()
    return list(csv.DictReader(StringIO(answer)))


# --- what it says -------------------------------------------------------------------------------------------------


def test_a_viewer_reads_what_is_left_and_what_is_used_a_day(member, searching):
    said = text(page(member))

    assert "Available 2 credits" in said
    assert "Burn per day" in said
    assert "From the plan" in said
    assert [day.used for day in shown(searching).cards[0].burn_down.days if day.used] == [2, 2, 2, 2]


def test_what_runs_out_is_dated_and_what_lasts_is_not(searching):
    give(searching, "50")
    [card] = shown(searching).cards
    at = clock.now()
    assert at < card.outlook.runs_out_at
    give(searching, "100000", priority=90)
    assert shown(searching).cards[0].outlook.runs_out_at is None


def test_what_will_be_lost_is_said_before_it_is(member, searching):
    give(searching, "500", priority=5, expires_at=clock.now() + timedelta(days=5), reason="Launch gift")
    [card] = shown(searching).cards
    assert card.next_expiry.name == "Launch gift"
    assert 480 < card.next_expiry.lapse < 500
    said = text(page(member))
    assert "500 credits of “Launch gift”" in said
    assert re.search(r"about 4\d\d credits will be lost at this pace", said)


def test_grants_stand_in_the_order_of_burning_and_ended_ones_apart(member, searching):
    first = give(searching, "5", priority=1, reason="First", effective_at=clock.now() - timedelta(hours=2))
    services.void(grant=give(searching, "7", reason="Mistake"), at=clock.now())
    [card] = shown(searching).cards
    assert [grant.name for grant in card.grants] == [first.reason, "From the plan"]
    assert [(grant.name, grant.lost) for grant in card.ended] == [("Mistake", 7)]
    assert "1 grant used up or ended" in text(page(member))


def test_the_chart_ends_at_what_is_available_and_days_add_up(searching):
    give(searching, "30", expires_at=clock.now() + timedelta(days=3))
    [card] = shown(searching).cards
    burn = card.burn_down
    assert burn.past[-1][1] == card.available == burn.days[-1].left == 32
    assert burn.past[0][1] == 10
    assert sum(day.used for day in burn.days) == 8
    assert [at for at, _ in burn.ahead] == sorted(at for at, _ in burn.ahead)
    assert burn.ahead[-1][0] <= burn.end


def test_the_chart_has_a_table_beside_it(member, searching):
    html = page(member)
    figure = json.loads(re.search(r'<script id="burn-figure-1" type="application/json">(.+?)</script>', html)[1])
    assert figure["data"][0]["y"][-1] == 2
    assert "Burn-down" in html
    assert "<caption" in html


def test_each_unit_has_its_own_card(member, searching):
    give(searching, "25", unit="USD")
    assert [card.unit for card in shown(searching).cards] == ["USD", "credits"]
    said = text(page(member))
    assert "Prepaid USD" in said
    assert "$25.00" in said


def test_a_customer_without_credits_is_told_what_comes_here(member, acme):
    said = text(page(member))
    assert "No credits yet" in said
    assert "Ledger" not in said


def test_parked_books_are_said_with_their_reason(member, searching):
    services.Settlement.objects.filter(customer=searching.customer).update(parked_reason="BooksDiffer: for a test")
    assert "a check of the books failed: BooksDiffer: for a test" in text(page(member))


# --- the ledger ---------------------------------------------------------------------------------------------------


def ledger(html):
    table = html.partition('class="table table--ledger"')[2].partition("</table>")[0]
    return [re.findall(r'<data class="num" value="([^"]+)"', row) for row in table.split("<tr id=")[1:]]


def test_the_ledger_ends_at_the_balance_and_begins_at_nothing(member, searching):
    for number in range(30):
        give(searching, str(number + 1))
    first = page(member)
    earlier = page(member, PAGE + re.search(r'href="(\?before=[^"#]+)', first)[1])
    found = [(D(amount), D(balance)) for amount, balance in ledger(first) + ledger(earlier)]
    assert found[0][1] == balances(searching.customer, clock.now())[0].balance
    assert [after - amount for amount, after in found] == [after for _, after in found[1:]] + [0]
    assert "Newest entries" in earlier


def test_a_kind_of_entries_can_be_chosen(member, searching):
    give(searching, "5", reason="Welcome")
    said = page(member, f"{PAGE}?code=grant")
    assert len(ledger(said)) == 2
    assert "Welcome" in said
    assert member.get(f"{PAGE}?code=nonsense").status_code == 404


def test_usage_that_is_invoiced_is_not_in_the_ledger_of_credits(member, searching):
    for number in range(30):
        searching.use(model="large-2", api_key="chat", input_tokens=1_000_000 + number)
        searching.count()
    said = page(member)
    assert len(ledger(said)) == 2
    assert "Earlier entries" not in said
    assert "$" not in text(said)


def test_usage_beyond_the_grants_is_said_where_it_happened(member, searching):
    for _ in range(5):
        searching.use(type="search", api_key="chat")
    searching.count()
    assert "3 credits beyond the grants" in text(page(member))
    assert "3 credits used beyond the grants this period" in text(page(member))


@pytest.mark.parametrize("place", ["", "1", "WzEsMl0:1:x"])
def test_a_place_in_the_ledger_that_nobody_named_is_not_found(member, searching, place):
    assert member.get(PAGE, {"before": place}).status_code == 404


def test_a_place_in_another_ledger_is_not_found(member, client, searching, charlie, globex):
    for number in range(30):
        give(searching, str(number + 1))
    place = re.search(r'href="(\?before=[^"#]+)', page(member))[1]
    client.force_login(charlie)
    assert client.get(f"/c/globex/credits{place}").status_code == 404


def test_a_posting_opens_down_to_its_lines(member, searching):
    posting = LedgerTransaction.objects.get(code="usage")
    assert f"/c/acme/credits/{posting.public_id}" in page(member)
    said = text(page(member, f"{PAGE}/{posting.public_id}"))
    assert "From the plan" in said
    assert "searches" in said
    assert "\N{MINUS SIGN}8 credits" in said


def test_a_posting_of_another_customer_is_not_found(client, searching, charlie, globex):
    posting = LedgerTransaction.objects.get(code="usage")
    client.force_login(charlie)
    assert client.get(f"/c/globex/credits/{posting.public_id}").status_code == 404
    assert client.get(f"{PAGE}/{posting.public_id}").status_code == 404


def test_a_line_that_the_posting_has_not_is_not_found(member, searching):
    posting = LedgerTransaction.objects.get(code="usage")
    assert member.get(f"{PAGE}/{posting.public_id}?line=0").status_code == 404
    assert member.get(f"{PAGE}/{posting.public_id}?after=x").status_code == 404


def test_the_file_holds_every_entry_and_sums_to_the_balance(member, searching):
    give(searching, "5", reason="=1+1")
    found = rows(member)
    assert sum(D(row["amount"]) for row in found if row["account"] == "grant") == 7
    assert {row["grant_name"] for row in found} == {"'=1+1", "From the plan"}
    assert {row["code"] for row in found} == {"grant", "usage"}


# --- live, and what it costs --------------------------------------------------------------------------------------


def test_an_open_page_is_told_only_what_is_new(member, searching):
    version = re.search(r'data-version="([^"]+)"', page(member))[1]
    current = member.get(f"{PAGE}/live", {"v": version})
    assert (current.status_code, current["X-Data-Delayed"]) == (204, "false")
    searching.use(type="search", api_key="chat")
    searching.count()
    fresh = member.get(f"{PAGE}/live", {"v": version})
    assert "Available 1 credit " in text(fresh.content.decode())
    assert "<html" not in fresh.content.decode()


def queries_of(client, path):
    client.get(path)
    with CaptureQueriesContext(connection) as queries:
        b"".join(client.get(path))
    return len(queries)


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}/live?v=old", "/c/acme/credits.csv"])
def test_the_number_of_queries_does_not_grow(member, searching, path):
    give(searching, "5")
    few = queries_of(member, path)
    for number in range(10):
        give(searching, "5", expires_at=clock.now() + timedelta(days=number + 1))
        searching.use(days_ago=number % 9, type="search", api_key=f"k-{number}")
        searching.count()
    assert queries_of(member, path) == few


@pytest.mark.parametrize("path", [PAGE, f"{PAGE}/live", "/c/acme/credits.csv"])
def test_it_is_read_only(member, searching, path):
    assert member.post(path).status_code == 405
