"""A closed period is frozen: what changes of its lines later is billed in the period that is open by then."""

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.urls import reverse

from accounts.models import User
from billing.credits import services as credits
from billing.credits.models import BilledLine, GrantKind
from billing.credits.statements import Late, Overage, closing_statement, explanation, period_statement
from billing.cycle import services as cycle
from billing.cycle.bridge import bridges
from billing.cycle.verify import differences
from billing.metering.correcting import amend_event, void_event
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from tests.factories import bearer, event, ingest, make_api_key, make_meter, make_plan, make_version

D = Decimal
START = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LATE = APRIL + 5 * DAY


@pytest.fixture
def version(db):
    make_meter("images", aggregation="sum", value="images", event_type="image", unit="image")
    make_meter("searches", aggregation="count", event_type="search")
    return make_version(
        make_plan(),
        base_fee=D(10),
        prices=(
            PriceSpec("images", "images", "USD", D("0.333")),
            PriceSpec("searches", "searches", "credits", D(1)),
        ),
        credits=(CreditSpec("credits", D(10)),),
        overage=(OverageSpec("credits", D("0.05")),),
    )


@pytest.fixture
def subscription(globex, version):
    """With 10 images and 8 searches in March, which is closed."""
    started = cycle.subscribe(customer=globex, version=version, starts_at=START, at=START)
    send(globex, "march", START + 10 * DAY, images=10, searches=8)
    cycle.advance(customer_id=globex.pk, at=APRIL)
    cycle.advance(customer_id=globex.pk, at=APRIL + 2 * DAY)
    return started


def send(customer, name, when, *, at=None, images=0, searches=0):
    sent = [event(f"{name}-{n}", customer.key, type="search", timestamp=when.isoformat()) for n in range(searches)]
    if images:
        sent.append(event(f"{name}-i", customer.key, type="image", timestamp=when.isoformat(), images=images))
    assert ingest(*sent, at=at or when).accepted == len(sent)
    cycle.advance(customer_id=customer.pk, at=at or when)


def march(subscription):
    return period_statement(subscription.periods.get(starts_at=START), at=LATE)


def april(subscription):
    return period_statement(subscription.periods.get(starts_at=APRIL), at=LATE)


def late_rows(found):
    return [
        (row.source.billed.price.key, row.source.is_overage, row.amount, row.credits)
        for one in found.units
        for row in one.late_rows
    ]


def check(subscription):
    """Nothing is unexplained, in any period, and the books agree."""
    for period in subscription.periods.all():
        for bridge in bridges(period_statement(period, at=LATE)):
            assert bridge.unexplained == 0, (period, bridge)
    assert list(differences()) == []


def test_the_lines_of_a_closed_period_are_frozen(subscription):
    assert subscription.periods.get(starts_at=START).billed_at is not None
    assert [(line.price.key, line.quantity, line.amount, line.covered) for line in BilledLine.objects.all()] == [
        ("images", 10, D("3.33"), 0),
        ("searches", 8, 8, 8),
    ]
    check(subscription)


def test_usage_that_comes_later_is_billed_in_the_open_period(subscription, globex):
    before = march(subscription)

    send(globex, "late", START + 20 * DAY, at=LATE, images=7, searches=5)

    after = march(subscription)
    assert (after.main.amount_due, after.main.usage) == (before.main.amount_due, before.main.usage)
    # Two of the late searches are covered by March's credits, three are beyond them, at 0.05 each.
    assert late_rows(april(subscription)) == [
        ("images", False, D("2.331"), 0),
        ("searches", True, D("0.15"), 0),
        ("searches", False, 5, 2),
    ]
    assert april(subscription).main.amount_due == D("12.48")
    row = april(subscription).main.late_rows[0]
    assert explanation(row) == "7 more than was billed when its period closed"
    assert (row.source.billed.segment.starts_at, row.source.billed.segment.ends_at) == (START, APRIL)
    check(subscription)


def test_a_void_gives_back_what_was_billed(subscription, globex):
    void_event(source="default", event_id="march-i", at=LATE)
    cycle.advance(customer_id=globex.pk, at=LATE)

    assert march(subscription).main.usage == D("3.33")
    assert late_rows(april(subscription)) == [("images", False, D("-3.33"), 0)]
    check(subscription)


def test_corrections_back_and_forth_leave_rows_that_cancel(subscription, globex):
    amend_event(source="default", event_id="march-i", properties={"images": 4}, at=LATE)
    cycle.advance(customer_id=globex.pk, at=LATE)
    amend_event(source="default", event_id="march-i", properties={"images": 10}, at=LATE + DAY)
    cycle.advance(customer_id=globex.pk, at=LATE + DAY)

    assert late_rows(april(subscription)) == [
        ("images", False, D("-1.998"), 0),
        ("images", False, D("1.998"), 0),
    ]
    check(subscription)


def test_a_grant_that_reaches_back_is_a_late_adjustment_too(subscription, globex):
    send(globex, "more", START + 20 * DAY, at=LATE, searches=5)
    credits.grant(
        customer=globex, unit="credits", amount=D(100), kind=GrantKind.PAID, effective_at=START, at=LATE + DAY
    )

    overage = [row.amount for row in april(subscription).main.late_rows if isinstance(row.source, Late)]
    assert overage == [D("0.15"), D("-0.15")]
    check(subscription)


def test_what_is_counted_again_without_a_difference_adds_nothing(subscription, globex):
    rows = BilledLine.objects.count()

    credits.settle(customer_id=globex.pk, at=LATE, since=START)

    assert BilledLine.objects.count() == rows


@pytest.fixture
def unbilled_late(subscription, globex):
    """Seven images and five searches of March that came when the subscription had ended."""
    cycle.cancel(subscription=subscription, when="now", at=APRIL + 3 * DAY)
    send(globex, "late", START + 20 * DAY, at=LATE, images=7, searches=5)
    subscription.refresh_from_db()
    return subscription


def closing(subscription):
    return [
        (one.unit, [(row.amount, row.credits) for row in one.late_rows], one.amount_due)
        for one in closing_statement(subscription)
    ]


def test_differences_after_the_end_of_the_subscription_stand_on_its_closing_statement(unbilled_late):
    assert {line.period for line in BilledLine.objects.filter(recorded_at=LATE)} == {None}
    assert march(unbilled_late).main.usage == D("3.33")
    # Two of the searches are covered by March's credits, three are beyond them, at 0.05 each.
    assert closing(unbilled_late) == [
        ("USD", [(D("2.331"), 0), (D("0.15"), 0)], D("2.48")),
        ("credits", [(5, 2)], 3),
    ]
    check(unbilled_late)


def test_what_is_taken_back_leaves_the_closing_statement(unbilled_late, globex):
    void_event(source="default", event_id="late-i", at=LATE + DAY)
    for number in range(5):
        void_event(source="default", event_id=f"late-{number}", at=LATE + DAY)
    cycle.advance(customer_id=globex.pk, at=LATE + DAY)

    assert closing(unbilled_late) == []
    check(unbilled_late)


def test_the_next_subscription_in_the_currency_bills_it_once(unbilled_late, globex, version):
    again = cycle.subscribe(customer=globex, version=version, starts_at=LATE + DAY, at=LATE + DAY)
    cycle.advance(customer_id=globex.pk, at=LATE + 2 * DAY)
    send(globex, "more", LATE + 2 * DAY, images=1)

    found = period_statement(again.periods.get(), at=LATE + 2 * DAY)
    assert sorted(late_rows(found)) == [
        ("images", False, D("2.331"), 0),
        ("searches", False, 5, 2),
        ("searches", True, D("0.15"), 0),
    ]
    assert closing(unbilled_late) == []
    check(unbilled_late)
    check(again)


def test_a_subscription_in_another_currency_does_not(unbilled_late, globex):
    make_meter("pages", event_type="page")
    euros = make_version(make_plan("euros", currency="EUR"), prices=(PriceSpec("pages", "pages", "EUR", D(1)),))

    cycle.subscribe(customer=globex, version=euros, starts_at=LATE + DAY, at=LATE + DAY)

    assert [unit for unit, *_ in closing(unbilled_late)] == ["USD", "credits"]


def test_operators_see_what_nobody_is_billed_for(client, olivia, unbilled_late):
    client.force_login(olivia)
    page = client.get(reverse("admin:billing_billedline_to_nobody")).content.decode()
    assert "Globex: $2.48" in page
    assert "7 images" in page
    assert client.get(reverse("admin:billing_billedline_changelist")).status_code == 200


def test_operators_download_what_nobody_is_billed_for(client, olivia, unbilled_late):
    client.force_login(olivia)
    page = reverse("admin:billing_billedline_to_nobody")
    answer = client.get(reverse("admin:billing_billedline_to_nobody_csv"))
    rows = list(csv.DictReader(answer.content.decode().splitlines()))

    assert reverse("admin:billing_billedline_to_nobody_csv") in client.get(page).content.decode()
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert {(row["customer"], row["subscription"]) for row in rows} == {("globex", unbilled_late.public_id)}
    assert [
        (row["price"], row["quantity"], row["amount"], row["unit"]) for row in rows if row["price"] == "images"
    ] == [("images", "7", "2.331", "USD")]
    assert [row["overage"] for row in rows if row["unit"] == "credits"] == ["0.15"]


@pytest.mark.parametrize("page", ["to_nobody", "to_nobody_csv"])
@pytest.mark.parametrize(("may", "status"), [("view_billedline", 200), ("view_settlement", 403)])
def test_what_nobody_is_billed_for_is_for_operators_who_may_see_billed_lines(client, db, page, may, status):
    clerk = User.objects.create_user("clerk@vendor.test", "x", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename=may))
    client.force_login(clerk)

    assert client.get(reverse(f"admin:billing_billedline_{page}")).status_code == status


def test_the_check_of_the_books_tells_what_nobody_is_billed_for(unbilled_late, capsys):
    call_command("verify_ledger", customer="globex")
    said = capsys.readouterr().out
    assert "nobody is billed for what came after the end of globex: 2.331 USD of images from 2026-03-01" in said
    assert "agree" in said


def test_the_statement_of_an_ended_subscription_tells_what_came_late(client, unbilled_late):
    query = {"subscription": unbilled_late.public_id}
    found = client.get("/api/v1/customers/globex/upcoming-invoice", query, **bearer(make_api_key()[1])).json()
    assert (found["amount_due"], found["closing"]["amount_due"]) == ("1", "2.48")
    assert [(line["price"], line["amount"]) for line in found["closing"]["lines"]] == [
        ("images", "2.331"),
        ("searches", "0.15"),
        ("searches", "5"),
    ]


def test_the_customer_sees_it_on_the_page_of_the_last_period(client, charlie, unbilled_late):
    client.force_login(charlie)
    present = client.get("/c/globex/plan").content.decode()
    assert "Your subscription has ended" in present
    last = client.get("/c/globex/plan?period=2026-04-01").content.decode()
    assert "?period=2026-04-01" in present
    assert "Closing statement" in last
    assert "$2.48" in last


def test_what_is_beyond_the_grants_stays_as_it_was_billed(globex, version):
    subscription = cycle.subscribe(customer=globex, version=version, starts_at=START, at=START)
    send(globex, "march", START + 10 * DAY, searches=30)
    cycle.advance(customer_id=globex.pk, at=APRIL)
    cycle.advance(customer_id=globex.pk, at=APRIL + 2 * DAY)
    send(globex, "late", START + 20 * DAY, at=LATE, searches=1)

    [row] = [row for row in march(subscription).main.usage_rows if isinstance(row.source, Overage)]
    assert (row.source.credits, row.amount) == (20, 1)
    check(subscription)


def test_billed_lines_are_never_changed(subscription):
    with pytest.raises(DatabaseError), transaction.atomic():
        BilledLine.objects.update(amount=0)
