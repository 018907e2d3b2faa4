"""The operator's page about margin, and its file."""

import csv

import pytest
from django.urls import reverse

from billing.revenue import margin_admin
from tests.billing.revenue.conftest import cost, day, use

MARCH = {"start": "2026-03-01", "end": "2026-03-31"}


@pytest.fixture
def admin(client, olivia):
    client.force_login(olivia)
    return client


def page(admin, **asked):
    answer = admin.get(reverse("admin:billing_margin"), {**MARCH, **asked})
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def file(admin, **asked):
    answer = admin.get(reverse("admin:billing_margin_csv"), {**MARCH, **asked})
    assert answer.headers["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(answer.content.decode().splitlines()))


def test_an_empty_house_says_so(admin):
    found = page(admin)

    assert "Nothing was used or charged in this time." in found
    assert "Everything that was used has a unit cost." in found


def test_it_shows_what_is_left_and_leads_from_a_customer_to_its_meters(admin, subscribed, costs):
    use(subscribed, at=day(1), tokens=10, model="small")

    found = page(admin)

    assert "USD 51.00" in found  # 20 of usage, 31 of fees
    assert "USD 41.00" in found
    assert "80.4 %" in found
    assert "by=meter&amp;customer=globex" in found
    assert "tokens" in page(admin, by="meter", customer="globex")


def test_what_lacks_a_unit_cost_leads_to_the_form_that_adds_it(admin, subscribed, tokens):
    cost(tokens, {"model": "large"}, 4)
    use(subscribed, at=day(1), tokens=10, model="small")

    found = page(admin, by="dimension:model")

    assert "≤ " in found
    address = f"{reverse('admin:billing_unitcost_add')}?meter={tokens.pk}&amp;where=model+%3D+small"
    assert address in found
    form = admin.get(address.replace("&amp;", "&")).content.decode()
    assert 'value="model = small"' in form
    assert f'value="{tokens.pk}" selected' in form


def test_the_file_has_every_row_with_exact_amounts(admin, subscribed, costs, monkeypatch):
    monkeypatch.setattr(margin_admin, "ROWS", 2)
    for model in ("a", "b", "=c"):
        use(subscribed, at=day(1), tokens="0.123456789012", model=model)

    rows = {row["group"]: row for row in file(admin, by="dimension:model")}

    assert rows.keys() == {"a", "b", "'=c", ""}
    assert (rows["a"]["usage_revenue"], rows["a"]["cost"], rows["a"]["margin_percent"]) == (
        "0.246913578024",
        "0.123456789012",
        "50",
    )
    assert rows[""]["name"] == "Base fees"


def test_many_rows_come_in_pages_with_the_lowest_margin_first(admin, subscribed, costs, monkeypatch):
    monkeypatch.setattr(margin_admin, "ROWS", 2)
    for number in range(5):
        use(subscribed, at=day(1), tokens=1, model=f"m{number}")
    use(subscribed, at=day(11), tokens=1, model="large")

    first, second, last = (page(admin, by="dimension:model", page=number) for number in (1, 2, 4))

    assert first.index("large") < first.index("m0")
    assert "Rows 1 to 2 of 7" in first
    assert "page=2" in first
    assert "m1" in second
    assert "m2" in second
    assert "Base fees" in last
    assert "Higher margins" not in last


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"end": "2026-02-01"}, "not before the first"),
        ({"end": "2029-03-01"}, "at most 366 days"),
        ({"start": "2099-01-01", "end": "2099-01-02"}, "has begun"),
        ({"start": "soon"}, "Enter a valid date."),
        ({"by": "colour"}, "Select a valid choice."),
        ({"customer": "nobody"}, "There is no customer with this key."),
    ],
)
def test_what_cannot_be_asked_is_told_at_its_field(admin, db, asked, sentence):
    for name in ("admin:billing_margin", "admin:billing_margin_csv"):
        answer = admin.get(reverse(name), {**MARCH, **asked})
        assert answer.status_code == 400
        assert sentence in answer.content.decode()


def test_days_to_come_earn_nothing_yet(admin, subscribed):
    with_days_to_come = file(admin, start="2026-03-01", end="2027-02-28")

    assert [row["base_fees"] for row in with_days_to_come] == ["31"]


def test_margin_is_for_operators_who_may_see_unit_costs(client, alice):
    addresses = [reverse("admin:billing_margin"), reverse("admin:billing_margin_csv")]
    client.force_login(alice)
    assert {client.get(address).status_code for address in addresses} <= {302, 403}
    alice.is_staff = True
    alice.save()
    assert [client.get(address).status_code for address in addresses] == [403, 403]


def test_other_methods_are_refused(admin):
    assert admin.post(reverse("admin:billing_margin")).status_code == 405
    assert admin.post(reverse("admin:billing_margin_csv")).status_code == 405
