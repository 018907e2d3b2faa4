"""Too much at once is refused as a whole, visibly, with the time after which to send it again."""

from contextlib import ExitStack

import pytest

from accounts.models import Scope
from billing.metering import limits
from billing.metering.models import EventIdentity
from tests.factories import bearer, event, make_api_key, make_meter

pytestmark = pytest.mark.django_db


@pytest.fixture
def post(client, acme):
    make_meter()
    key, secret = make_api_key(Scope.EVENTS_WRITE)
    yield lambda events: client.post("/api/v1/events", events, content_type="application/json", **bearer(secret))
    limits._valkey().delete(f"headroom:rate:{key.pk}")


def batch(name, size):
    return [event(f"{name}-{number}", tokens=1) for number in range(size)]


def test_a_key_that_sends_faster_than_it_may_is_told_when_to_come_again(post, settings):
    settings.INGEST_EVENTS_PER_SECOND = 10

    assert post(batch("a", 100)).json()["accepted"] == 100
    refused = post(batch("b", 1))

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert refused["Content-Type"] == "application/problem+json"
    assert 1 <= int(refused["Retry-After"]) <= 9
    assert EventIdentity.objects.count() == 100


def test_other_keys_are_not_limited_by_it(post, settings, client):
    settings.INGEST_EVENTS_PER_SECOND = 10
    post(batch("a", 100))
    other, secret = make_api_key(Scope.EVENTS_WRITE)

    answer = client.post("/api/v1/events", batch("b", 1), content_type="application/json", **bearer(secret))

    assert answer.json()["accepted"] == 1
    limits._valkey().delete(f"headroom:rate:{other.pk}")


def test_the_rate_is_open_unless_it_is_set(post):
    assert [post(batch(f"a{n}", 50)).json()["accepted"] for n in range(3)] == [50, 50, 50]


def test_nobody_is_limited_while_valkey_is_away(post, settings, monkeypatch, caplog):
    settings.INGEST_EVENTS_PER_SECOND = 1
    away = limits.redis.Redis(host="127.0.0.1", port=1)
    monkeypatch.setattr(limits, "_valkey", lambda: away)

    assert [post(batch(name, 20)).json()["accepted"] for name in "abc"] == [20, 20, 20]
    assert "Nobody's rate is limited" in caplog.text
    monkeypatch.undo()


def test_more_bodies_at_once_than_there_are_places_are_sent_away(post, settings):
    with ExitStack() as taken:
        for _ in range(settings.INGEST_AT_ONCE):
            taken.enter_context(limits.place())
        refused = post(batch("a", 1))

    assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (503, "unavailable", "1")
    assert not EventIdentity.objects.exists()
    assert post(batch("a", 1)).json()["accepted"] == 1
