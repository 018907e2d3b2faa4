"""An operator starts a subscription in the admin."""

from decimal import Decimal

import pytest
from django.urls import reverse

from billing import clock
from billing.cycle import verify
from billing.metering.models import Watermark
from billing.pricing.spec import PriceSpec
from billing.subscriptions.models import Subscription
from tests.factories import event, fold, ingest, make_meter, make_plan, make_version


@pytest.fixture
def version(db):
    make_meter()
    price = PriceSpec("tokens", meter="tokens", unit="USD", unit_amount=Decimal(1))
    return make_version(make_plan(), prices=(price,))


def start(client, customer, version):
    form = {"customer": customer.pk, "version": version.pk, "starts_at_0": "2026-03-01", "starts_at_1": "10:07"}
    return client.post(reverse("admin:billing_subscription_add"), form, follow=True)


def test_it_starts_on_the_quarter_hour_with_the_present_period_open(client, olivia, globex, version):
    client.force_login(olivia)

    response = start(client, globex, version)

    subscription = Subscription.objects.get()
    assert response.status_code == 200
    assert (subscription.starts_at.minute, subscription.anchor_day) == (0, 1)
    assert subscription.periods.latest("starts_at").status == "open"


def test_usage_that_waited_for_a_price_is_settled_at_once(client, olivia, globex, version):
    client.force_login(olivia)
    at = clock.now()
    ingest(event("a", "globex", tokens=5), at=at)
    fold(globex, at=at)
    version_before = Watermark.objects.get(customer=globex).version

    form = {"customer": globex.pk, "version": version.pk, "starts_at_0": f"{at:%Y-%m-%d}", "starts_at_1": "00:00"}
    client.post(reverse("admin:billing_subscription_add"), form, follow=True)

    assert Subscription.objects.get().periods.get().cells.get().posted == 5
    assert list(verify.differences()) == []
    assert Watermark.objects.get(customer=globex).version > version_before


def test_a_meter_that_is_priced_already_is_refused_with_the_reason(client, olivia, globex, version):
    client.force_login(olivia)
    start(client, globex, version)

    response = start(client, globex, version)

    assert "prices tokens already" in response.content.decode()
    assert Subscription.objects.count() == 1


def test_a_started_subscription_is_not_edited(client, olivia, globex, version):
    client.force_login(olivia)
    start(client, globex, version)
    url = reverse("admin:billing_subscription_change", args=[Subscription.objects.get().pk])

    assert client.get(url).status_code == 200
    assert client.post(url, {"customer": globex.pk}).status_code == 403
