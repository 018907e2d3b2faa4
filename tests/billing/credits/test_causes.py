"""Each posting opens down to exactly the events that it took into account. Commits are real here, because which events
those are is decided by what the fold saw of the database."""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction

from billing.credits import journal
from billing.credits.models import LedgerEntry, LedgerTransaction
from billing.credits.services import grant
from billing.cycle.services import advance
from billing.metering import correcting
from billing.pricing.spec import CreditSpec, MatchSpec, PriceSpec
from tests.billing.credits.conftest import START
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version

D = Decimal
HOUR = timedelta(hours=1)


@pytest.fixture
def db(committed):
    """Everything is committed."""


def use(number, hours=1, **fields):
    at = START + hours * HOUR
    sent = {"type": "search", "api_key": "chat", "timestamp": at.isoformat(), **fields}
    ingest(event(f"e{number}", "globex", **sent), at=at)


def count(customer, hours=1):
    advance(customer_id=customer.pk, at=START + hours * HOUR)


def postings(customer):
    return list(LedgerTransaction.objects.filter(customer=customer, code="usage").order_by("pk"))


def causes(posting, most=100):
    """By event: what it counted for before and after, over all pages."""
    entry = LedgerEntry.objects.filter(transaction=posting, cell__isnull=False).order_by("pk").first()
    found, after = {}, None
    while True:
        page = journal.events_of(entry, after=after, most=most)
        found |= {cause.event.id: (cause.before, cause.after) for cause in page.causes}
        if (after := page.next) is None:
            return found


def test_each_posting_has_the_events_that_were_counted_since_the_one_before(subscribed):
    for numbers in ((1, 2), (3,), (4, 5, 6)):
        for number in numbers:
            use(number)
        count(subscribed)
    assert [sorted(causes(one)) for one in postings(subscribed)] == [["e1", "e2"], ["e3"], ["e4", "e5", "e6"]]


def test_they_come_page_by_page(subscribed):
    for number in range(7):
        use(number)
    count(subscribed)
    [posting] = postings(subscribed)
    assert causes(posting, most=3) == causes(posting) == {f"e{number}": (None, 1) for number in range(7)}


def test_late_usage_is_behind_the_posting_that_counted_it(subscribed):
    use(1, hours=30)
    count(subscribed, hours=30)
    ingest(event("late", "globex", type="search", timestamp=(START + HOUR).isoformat()), at=START + 30 * HOUR)
    count(subscribed, hours=30)
    assert [list(causes(one)) for one in postings(subscribed)] == [["e1"], ["late"]]


def test_what_was_recorded_before_and_committed_after_a_fold_is_behind_the_next_posting(subscribed):
    written, go_on = threading.Event(), threading.Event()

    def slowly():
        with transaction.atomic():
            use("slow")
            written.set()
            go_on.wait(10)
        connection.close()

    sender = threading.Thread(target=slowly)
    sender.start()
    assert written.wait(10)
    use("quick", hours=2)
    count(subscribed, hours=2)
    go_on.set()
    sender.join()
    count(subscribed, hours=2)
    assert [list(causes(one)) for one in postings(subscribed)] == [["equick"], ["eslow"]]


def test_usage_that_costs_nothing_yet_is_behind_the_next_posting(globex, db):
    make_meter("searches", aggregation="count", event_type="search", unit="search")
    price = PriceSpec("searches", meter="searches", unit="credits", unit_amount=D(1), included=D(2))
    version = make_version(make_plan(), credits=(CreditSpec("credits", D(100)),), prices=(price,))
    make_subscription(globex, version, START)
    for number in (1, 2, 3, 4):
        use(number)
        count(globex)
    assert [sorted(causes(one)) for one in postings(globex)] == [["e1", "e2", "e3"], ["e4"]]


def test_a_void_is_behind_the_posting_that_gives_back(subscribed):
    use(1)
    use(2)
    count(subscribed)
    correcting.void_event(source="default", event_id="e1", at=START + HOUR)
    count(subscribed)
    first, second = postings(subscribed)
    assert causes(first) == {"e1": (None, 1), "e2": (None, 1)}  # as it was then
    assert causes(second) == {"e1": (1, None)}


def test_an_amendment_leaves_one_line_and_reaches_another(globex, db):
    make_meter("searches", event_type="search", value="n", dimensions=["kind"], unit="search")
    rows = (MatchSpec({"kind": "deep"}, unit_amount=D(5)),)
    price = PriceSpec("searches", meter="searches", unit="credits", unit_amount=D(1), match=rows)
    version = make_version(make_plan(), credits=(CreditSpec("credits", D(100)),), prices=(price,))
    make_subscription(globex, version, START)
    use(1, n=3)
    use(2, n=4)
    count(globex)
    correcting.amend_event(source="default", event_id="e1", properties={"n": 2, "kind": "deep"}, at=START + HOUR)
    count(globex)
    entries = LedgerEntry.objects.filter(transaction=postings(globex)[1], cell__isnull=False, account__kind="grant")
    found = {one.cell.row: journal.events_of(one, most=10).causes for one in entries}
    assert {row: [(one.event.id, one.before, one.after) for one in said] for row, said in found.items()} == {
        0: [("e1", 3, None)],
        1: [("e1", None, 2)],
    }


def test_a_grant_that_cuts_a_stretch_changes_no_posting_of_before(subscribed):
    use(1, hours=1)
    use(2, hours=2)
    count(subscribed, hours=2)
    grant(customer=subscribed, unit="credits", amount=D(1), kind="paid", priority=1, at=START + 2 * HOUR)
    count(subscribed, hours=2)
    first, second = postings(subscribed)
    assert sorted(causes(first)) == ["e1", "e2"]
    moved = {
        entry.cell.segment_starts_at: [cause.event.id for cause in journal.events_of(entry, most=10).causes]
        for entry in LedgerEntry.objects.filter(transaction=second, cell__isnull=False, account__kind="grant")
    }
    assert moved == {START: [], START + 2 * HOUR: ["e2"]}
