"""Operators define meters in the admin through the same service as the API."""

import pytest
from django.urls import reverse

from billing.metering.models import Meter, UnmatchedEvent
from tests.billing.metering.test_ingest import AT
from tests.factories import event, fold, ingest, make_meter

FORM = {
    "key": "calls",
    "name": "Calls",
    "unit": "call",
    "event_type": "llm.completion",
    "aggregation": "count",
    "value": "",
    "dimensions": "model,user",
    "filters": "[]",
}


@pytest.fixture
def operator(client, olivia):
    client.force_login(olivia)
    return client


def test_a_meter_made_in_the_admin_counts_what_waited(operator, acme):
    ingest(event("a"), at=AT)

    answer = operator.post(reverse("admin:billing_meter_add"), FORM)

    assert answer.status_code == 302
    assert Meter.objects.get().dimensions == ["model", "user"]
    assert not UnmatchedEvent.objects.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"filters": '[{"property": "a", "op": "like"}]'}, "Filter 1: op is one of"),
        ({"filters": "{}"}, "Filters are a list."),
        ({"dimensions": "a,a"}, "A dimension is named twice."),
        ({"dimensions": "model,limit"}, "&quot;limit&quot; cannot be a dimension"),
        ({"aggregation": "sum"}, "Name the property that is measured"),
    ],
)
def test_a_meter_that_makes_no_sense_is_shown_again(operator, change, sentence):
    answer = operator.post(reverse("admin:billing_meter_add"), FORM | change)

    assert sentence in answer.content.decode()
    assert not Meter.objects.exists()


def test_a_counted_meter_can_be_renamed_and_no_more(operator, acme):
    meter = make_meter()
    ingest(event("a", tokens=1), at=AT)
    fold(acme, at=AT)
    page = reverse("admin:billing_meter_change", args=[meter.pk])

    assert "frozen" in operator.get(page).content.decode()
    assert operator.post(page, FORM | {"name": "New"}).status_code == 302

    meter.refresh_from_db()
    assert (meter.name, meter.aggregation, meter.key) == ("New", "sum", "tokens")


def test_a_meter_that_has_counted_nothing_can_be_deleted(operator, acme):
    meter = make_meter()

    operator.post(reverse("admin:billing_meter_delete", args=[meter.pk]), {"post": "yes"})

    assert not Meter.objects.exists()


def test_a_meter_stays_while_its_first_events_wait_to_be_counted(operator, acme):
    meter = make_meter()
    ingest(event("a", tokens=1), at=AT)

    answer = operator.post(reverse("admin:billing_meter_delete", args=[meter.pk]), {"post": "yes"}, follow=True)

    assert "so it stays" in answer.content.decode()
    assert fold(acme, at=AT)
    assert Meter.objects.get() == meter


def test_meters_are_not_deleted_many_at_once(operator, acme):
    meter = make_meter()
    chosen = {"action": "delete_selected", "_selected_action": [meter.pk], "post": "yes"}

    operator.post(reverse("admin:billing_meter_changelist"), chosen)

    assert Meter.objects.exists()
