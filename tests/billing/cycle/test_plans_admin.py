"""A product manager sees what a version would have cost, while typing and before publishing."""

from dataclasses import replace
from decimal import Decimal

import pytest
from django.urls import reverse

from billing.pricing.queries import spec_of
from billing.pricing.services import create_version
from tests.billing.cycle.test_preview import NOW, START, use, version  # noqa: F401 -- a fixture
from tests.billing.pricing.test_admin import price_form
from tests.factories import make_subscription

D = Decimal


@pytest.fixture
def draft(client, olivia, globex, version, monkeypatch):  # noqa: F811
    monkeypatch.setattr("billing.cycle.plans_admin.now", lambda *_: NOW)
    make_subscription(globex, version, START, anchor_day=1)
    use(globex, tokens=10, large=4, calls=14)
    client.force_login(olivia)
    return create_version(plan=version.plan, spec=replace(spec_of(version), base_fee=D(25)), at=NOW)


def page(client, draft, name="preview", *more, **question):
    return client.get(reverse(f"admin:billing_planversion_{name}", args=[draft.pk, *more]), question).content.decode()


def test_everyone_on_the_version_before_is_previewed_first(client, draft):
    shown = page(client, draft)

    assert "everyone on Pro v1 (1 customer)" in shown
    assert "$67.00" in shown
    assert "$62.00" in shown
    assert "+$5.00" in shown
    assert "+8.1 %" in shown


def test_one_customer_is_previewed_part_by_part_and_line_by_line(client, draft):
    shown = page(client, draft, customer="globex")

    for words in ("Base fee", "$25.00", "10 x 2", "tokens, model = large"):
        assert words in shown


def test_an_unknown_customer_is_told(client, draft):
    assert "There is no customer &quot;nobody&quot;" in page(client, draft, customer="nobody")


def test_what_is_typed_is_previewed_without_being_saved(client, draft):
    typed = price_form(unit_amount="1", per="1", rows=[("model = large", "5")]) | {"_preview": "1"}

    url = reverse("admin:billing_planversion_price", args=[draft.pk, "tokens"])
    shown = client.post(url, typed).content.decode()

    assert "$57.00" in shown
    assert "\N{MINUS SIGN}$5.00" in shown
    assert draft.prices.get(key="tokens").unit_amount == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [({"unit_amount": "x"}, "Fill in what is missing or wrong"), ({"unit_amount": "-1"}, "Send zero or more")],
)
def test_what_makes_no_sense_has_no_preview(client, draft, typed, words):
    url = reverse("admin:billing_planversion_price", args=[draft.pk, "tokens"])

    assert words in client.post(url, price_form(**typed) | {"_preview": "1"}).content.decode()


def test_a_reader_previews_and_a_stranger_does_not(client, draft, alice):
    client.force_login(alice)
    assert client.get(reverse("admin:billing_planversion_preview", args=[draft.pk])).status_code == 302
