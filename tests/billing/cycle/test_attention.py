"""The operator's first page says what needs somebody, and leads there."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import Permission

from accounts.models import User
from billing import clock
from billing.credits.models import Settlement
from billing.cycle.models import BooksCheck
from billing.notifications.models import OutboxMessage, OutboxStatus
from tests.factories import event, ingest

pytestmark = pytest.mark.django_db


def needs(client, user):
    """(count, text, address) of each line."""
    client.force_login(user)
    html = client.get("/admin/").content.decode()
    panel = html.split('id="needs"')[1].split("</section>")[0]
    found = re.findall(r'<a href="([^"]+)"><strong>([^<]+)</strong> <span>([^<]+)</span></a>', panel)
    return [(count, unescape(text), address) for address, count, text in found], panel


def test_where_nothing_waits_it_says_so(client, olivia):
    found, panel = needs(client, olivia)
    assert found == []
    assert "Nothing: all that came in is counted" in panel


def test_what_waits_is_counted_and_leads_to_where_it_is_found(client, olivia, acme):
    at = clock.now()
    ingest(event("a", "nobody", tokens=1), event("b", "nobody", tokens=1), at=at)
    ingest({"id": "r", "source": "gateway", "customer": "acme"}, at=at)
    Settlement.objects.update_or_create(customer=acme, defaults={"parked_reason": "A balance is off."})
    BooksCheck.objects.create(started_at=at, customers=3, parked=1, differences=2)
    OutboxMessage.objects.create(
        kind="invitation", recipient="a@b.test", dedup_key="k", next_attempt_at=at, status=OutboxStatus.FAILED
    )
    found, _ = needs(client, olivia)
    assert [(count, text) for count, text, _ in found] == [
        ("1", "customer is parked: its grants pay nothing now"),
        ("2", "numbers did not agree in the last check of the books"),
        ("2", "events are counted by nothing, and billed to nobody"),
        ("1", "item was refused in the last day"),
        ("1", "mail could not be delivered"),
    ]
    for _, _, address in found:
        assert client.get(unescape(address)).status_code == 200


def test_what_was_refused_long_ago_is_not_news(client, olivia, acme):
    ingest({"id": "r", "source": "gateway", "customer": "acme"}, at=clock.now() - timedelta(days=2))
    assert needs(client, olivia)[0] == []


def test_an_operator_sees_only_what_they_may_look_at(client, acme):
    ingest(event("a", "nobody", tokens=1), {"id": "r", "source": "gateway", "customer": "acme"}, at=clock.now())
    clerk = User.objects.create_user("clerk@vendor.test", "x", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_refuseditems"))
    assert [text for _, text, _ in needs(client, clerk)[0]] == ["item was refused in the last day"]
