"""Amounts for one customer, coupons and unit costs are made in the admin, and never rewritten there."""

from decimal import Decimal

import pytest
from django.urls import reverse

from billing.pricing.models import Coupon, PriceOverride, UnitCost
from billing.pricing.spec import MatchSpec, PriceSpec
from tests.factories import make_meter, make_plan, make_version


@pytest.fixture
def price(db, client, olivia):
    client.force_login(olivia)
    make_meter(dimensions=["model"])
    rows = (MatchSpec({"model": "large"}, Decimal(5)),)
    return make_version(
        make_plan(), prices=(PriceSpec("tokens", "tokens", "USD", Decimal(2), match=rows),)
    ).prices.get()


def add(client, model, **typed):
    return client.post(reverse(f"admin:billing_{model}_add"), {"tiers-count": "0", **typed})


def test_a_customer_gets_other_amounts_for_a_row_and_they_are_ended(client, price, acme, olivia):
    typed = {"customer": acme.pk, "unit_amount": "1.5", "reason": "Pilot"}
    when = {"starts_at_0": "2099-01-01", "starts_at_1": "00:00:00"}

    response = add(client, "priceoverride", price_row=f"{price.pk}-{price.match.get().pk}", **typed, **when)

    made = PriceOverride.objects.get()
    assert response.status_code == 302
    assert (made.unit_amount, made.row, made.created_by) == (Decimal("1.5"), price.match.get(), olivia)
    url = reverse("admin:billing_priceoverride_change", args=[made.pk])
    assert "Pro v1, tokens, model = large" in client.get(url).content.decode()

    client.post(reverse("admin:billing_priceoverride_end", args=[made.pk]), {"_form_submitted": "on"})
    made.refresh_from_db()
    assert made.ends_at == made.starts_at


def test_what_cannot_be_agreed_is_told_at_its_field(client, price, acme):
    when = {"starts_at_0": "2020-01-01", "starts_at_1": "00:00:00"}
    response = add(client, "priceoverride", customer=acme.pk, price_row=f"{price.pk}", unit_amount="1", **when)

    assert "Begin now or later" in response.content.decode()
    assert not PriceOverride.objects.exists()


def test_a_coupon_is_made_and_what_makes_no_sense_is_told(client, price):
    typed = {"key": "spring", "name": "Spring", "percent": "20", "duration": "once"}

    assert "one of both" in add(client, "coupon", **typed, amount="5", currency="USD").content.decode()
    assert add(client, "coupon", **typed).status_code == 302
    assert Coupon.objects.get().percent == 20


def test_a_unit_cost_is_recorded(client, price):
    when = {"effective_at_0": "2026-01-01", "effective_at_1": "00:00:00"}
    typed = {"meter": price.meter.pk, "unit_amount": "0.5", "per": "1000", "currency": "USD", **when}

    assert add(client, "unitcost", where="model = large", **typed).status_code == 302
    assert add(client, "unitcost", where="", **typed).status_code == 302
    assert [cost.where for cost in UnitCost.objects.all()] == [{"model": "large"}, {}]
    assert "has no dimension" in add(client, "unitcost", where="colour = red", **typed).content.decode()


@pytest.mark.parametrize("page", ["priceoverride", "coupon", "unitcost"])
def test_every_list_opens(client, price, page):
    assert client.get(reverse(f"admin:billing_{page}_changelist")).status_code == 200
    assert client.get(reverse(f"admin:billing_{page}_add")).status_code == 200
