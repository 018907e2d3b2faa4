"""The operator's page about what comes in."""

from datetime import timedelta

import pytest
from django.urls import reverse

from billing.clock import now
from billing.metering import ingesting, intake, services
from billing.metering.correcting import amend_event, void_event
from billing.metering.intake_admin import span
from billing.metering.models import EventIdentity
from tests.factories import event, fold, ingest, make_api_key, make_meter


@pytest.fixture
def page(client, olivia):
    client.force_login(olivia)

    def read():
        answer = client.get(reverse("admin:billing_intake"))
        assert answer.status_code == 200
        return " ".join(answer.content.decode().split())

    return read


def test_an_empty_house_says_so(page):
    found = page()

    assert "nothing came" in found
    assert "nothing was counted yet" in found
    assert "Every event has its customer and a meter." in found
    assert "Nothing was refused." in found
    assert "No event was voided or amended." in found


def test_unmatched_events_show_what_mends_them(page, acme):
    make_meter("tokens")
    at = now()
    ingest(event("a", "initech", tokens=1), event("b", "initech", tokens=2), at=at)
    ingest(event("c", type="image.made", size="<b>"), at=at)

    found = page()

    assert f'href="{reverse("admin:accounts_customer_add")}?key=initech&amp;name=initech"' in found
    assert f'href="{reverse("admin:billing_meter_add")}?event_type=image.made"' in found
    assert "default / b" in found
    assert "&lt;b&gt;" in found
    unknown, no_meter = intake.unmatched_groups()
    assert (unknown.events, no_meter.events) == (2, 1)


def test_the_forms_that_mend_are_filled_in(client, olivia):
    client.force_login(olivia)

    assert 'value="initech"' in client.get(reverse("admin:accounts_customer_add") + "?key=initech").content.decode()
    meter = client.get(reverse("admin:billing_meter_add") + "?event_type=image.made").content.decode()
    assert 'value="image.made"' in meter


def test_refused_items_are_counted_by_code_key_and_source(page, acme):
    key, _ = make_api_key(name="Gateway")
    for _ in range(2):
        ingesting.ingest(
            body=b'[{"id": "x", "source": "gw", "customer": "acme"}]',
            content_type="application/json",
            api_key=key,
            at=now(),
        )

    found = page()

    assert "missing_field" in found
    assert "Gateway" in found
    [group] = intake.refused_groups()
    assert (group.total, group.source) == (2, "gw")
    assert intake.refused_since(now() - timedelta(days=1)) == 2


def test_lag_is_told_from_the_sender_to_us_and_from_us_to_the_counters(acme):
    make_meter("tokens")
    at = now()
    ingest(event("a", tokens=1, timestamp=at - timedelta(seconds=30)), at=at)

    waiting = intake.pulse(at)
    fold(acme, at=at)
    counted = intake.pulse(at)

    assert (waiting.events, round(waiting.late_median_s), waiting.waiting_customers) == (1, 30, 1)
    assert counted.waiting_customers == 0
    assert counted.counted_at is not None
    assert [span(value) for value in (0.44, 119, 150, 7200, 200_000)] == ["0.4 s", "119.0 s", "2 min", "2 h", "2 d"]


def test_corrections_and_recounts_show_their_progress(page, acme):
    tokens = make_meter("tokens")
    ingest(*(event(name, tokens=1) for name in ("a", "b", "c")), event("w", "nobody", tokens=1), at=now())
    fold(acme, at=now())
    void_event(source="default", event_id="a", reason="sent by a test", at=now())
    amend_event(source="default", event_id="b", properties={"tokens": 2}, at=now())
    void_event(source="default", event_id="w", at=now())
    void_event(source="default", event_id="c", at=now())
    EventIdentity.objects.filter(pk=intake.EventCorrection.objects.latest("pk").identity).delete()
    services.update_meter(meter=tokens, dimensions=["model"], at=now())

    found = page()

    assert "sent by a test" in found
    assert "default / b" in found
    assert [one.event_id for one in intake.corrected_events()] == [None, "w", "b", "a"]
    assert '<progress max="100" value="0"' in found
    while services.backfill(at=now()):
        pass
    assert '<progress max="100" value="100"' in page()


def test_crowded_dimensions_are_shown_before_they_are_too_many(page, acme, settings):
    settings.DIMENSION_VALUES = 5
    make_meter("tokens", dimensions=["user", "model"])
    ingest(*(event(f"e{n}", tokens=1, user=f"u{n}", model=f"m{n % 2}") for n in range(4)), at=now())
    fold(acme, at=now())
    assert "count by themselves so far" in page()

    ingest(*(event(f"f{n}", tokens=1, user=f"v{n}") for n in range(4)), at=now())
    fold(acme, at=now())
    assert "count under (other) since" in page()


def test_the_page_is_for_operators_who_may_see_events(client, alice, olivia):
    address = reverse("admin:billing_intake")
    client.force_login(alice)
    assert client.get(address).status_code in (302, 403)
    alice.is_staff = True
    alice.save()
    assert client.get(address).status_code == 403


@pytest.mark.parametrize("groups", [1, 3])
def test_the_page_asks_as_often_whatever_there_is(client, olivia, acme, groups, django_assert_num_queries):
    make_meter("tokens")
    for n in range(groups):
        ingest(
            event(f"u{n}", f"nobody{n}", tokens=1),
            event(f"a{n}", tokens=1),
            {"id": f"r{n}", "source": f"s{n}"},
            at=now(),
        )
        void_event(source="default", event_id=f"a{n}", at=now())
    client.force_login(olivia)

    with django_assert_num_queries(11):
        client.get(reverse("admin:billing_intake"))
