"""A posting on the page, down to its own events. Commits are real: see tests/billing/credits/test_causes.py."""

import re

import pytest

from billing.credits.models import LedgerTransaction
from billing.metering.correcting import void_event
from dashboard.views import credits
from tests.dashboard.test_credits import PAGE, page, text


@pytest.fixture
def db(committed):
    """Everything is committed."""


@pytest.fixture
def member(client, bob):
    client.force_login(bob)
    return client


def latest():
    posting = LedgerTransaction.objects.filter(code="usage").latest("pk")
    return f"{PAGE}/{posting.public_id}"


def events(said):
    return re.findall(r"/c/acme/event\?source=default&amp;id=(e\d+)", said)


def test_a_posting_has_its_own_events_only(member, house):
    for _ in range(2):
        house.use(type="search", api_key="chat")
        house.count()
    said = page(member, latest())
    assert events(said) == ["e2"]
    assert "Exactly what was counted after the posting of" in text(said)


def test_events_that_a_posting_took_back_are_struck_out(member, house):
    house.use(type="search", api_key="chat")
    house.count()
    void_event(source="default", event_id="e1", at=house.now)
    house.count()
    said = page(member, latest())
    assert events(said) == ["e1"]
    assert "<del>" in said
    assert "taken back" in said


def test_many_events_come_page_by_page(member, house, monkeypatch):
    monkeypatch.setattr(credits, "EVENTS", 3)
    for number in range(5):
        house.use(days_ago=number / 100, type="search", api_key="chat")
    house.count()
    first = page(member, latest())
    second = page(member, latest() + re.search(r'href="(\?line=\d+&amp;after=[^"#]+)', first)[1].replace("&amp;", "&"))
    assert events(first) + events(second) == ["e1", "e2", "e3", "e4", "e5"]
    assert "First page" in second
    assert "Next page" not in second


def test_a_receipt_leads_to_the_posting_of_its_event_alone(member, house):
    for _ in range(2):
        house.use(type="search", api_key="chat")
        house.count()
    receipt = member.get("/c/acme/event", {"id": "e2"}).content.decode()
    assert re.findall(r"/c/acme/credits/txn_\w+", receipt) == [latest()]
