"""A product manager's work in the admin: edit a draft, publish it, start the next one."""

from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from billing.metering.models import Meter
from billing.pricing import where
from billing.pricing.models import Plan, PlanVersion


@pytest.fixture
def tokens(db) -> Meter:
    return Meter.objects.create(
        key="tokens",
        name="Tokens",
        unit="token",
        event_type="llm.completion",
        aggregation="sum",
        value="tokens",
        dimensions=["model", "region"],
    )


@pytest.fixture
def pro(db) -> Plan:
    return Plan.objects.create(key="pro", name="Pro", currency="USD")


@pytest.fixture
def admin(client, olivia):
    client.force_login(olivia)
    return client


def version_form(plan: Plan, **changes) -> dict[str, str]:
    """What the browser posts for a version's own terms."""
    form = {
        "plan": plan.pk,
        "interval": "month",
        "interval_count": "1",
        "base_fee": "20",
        "base_fee_timing": "advance",
        "trial_days": "0",
        "postpaid": "on",
        "credits-TOTAL_FORMS": "1",
        "credits-INITIAL_FORMS": "0",
        "credits-0-unit": "credits",
        "credits-0-amount": "1000",
        "credits-0-every": "period",
        "credits-0-rollover_max": "0",
        "credits-0-priority": "10",
        "overage-TOTAL_FORMS": "0",
        "overage-INITIAL_FORMS": "0",
        "prices-TOTAL_FORMS": "0",
        "prices-INITIAL_FORMS": "0",
    }
    return form | changes


def price_form(*, rows=(), **changes) -> dict[str, str]:
    """What the browser posts for a price: every field is there, however many are empty."""
    form = {
        "key": "tokens",
        "meter": "tokens",
        "unit": "USD",
        "scheme": "per_unit",
        "unit_amount": "0.15",
        "per": "1000000",
        "match-TOTAL_FORMS": str(len(rows) + 3),
        "match-INITIAL_FORMS": "0",
        "tiers-count": "3",
    }
    for index, (condition, amount) in enumerate(rows):
        form |= {f"match-{index}-where": condition, f"match-{index}-unit_amount": amount}
        form[f"match-{index}-tiers-count"] = "3"
    return form | changes


def tiers(prefix: str, *lines: tuple[str, str, str]) -> dict[str, str]:
    names = ("up_to", "unit_amount", "flat_amount")
    typed = {
        f"{prefix}-{n}-{name}": text for n, line in enumerate(lines) for name, text in zip(names, line, strict=True)
    }
    return {f"{prefix}-count": str(len(lines)), **typed}


def messages(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def url(page: str, version: PlanVersion, *more: str) -> str:
    return reverse(f"admin:billing_planversion_{page}", args=[version.pk, *more])


@pytest.fixture
def empty(admin, pro, tokens) -> PlanVersion:
    """A draft with terms, and no price yet."""
    admin.post(reverse("admin:billing_planversion_add"), version_form(pro))
    return PlanVersion.objects.get()


@pytest.fixture
def draft(admin, empty) -> PlanVersion:
    response = admin.post(url("add_price", empty), price_form(rows=[("model = large-2", "2.5")]))
    assert response.status_code == 302
    return empty


def publish(client, version: PlanVersion, **typed: str):
    return client.post(url("publish", version), typed, follow=True)


# --- the draft ------------------------------------------------------------------------------------------------


def test_an_operator_writes_a_draft_and_its_prices_with_match_rows(admin, empty):
    rows = [("model = large-2", "2.50"), ("model = mini | nano", "0.05")]

    response = admin.post(url("add_price", empty), price_form(rows=rows), follow=True)

    version = PlanVersion.objects.get()
    assert response.status_code == 200
    assert (version.number, version.status, version.credits.get().amount) == (1, "draft", Decimal(1000))
    assert [(row.where, row.unit_amount) for row in version.prices.get().match.all()] == [
        ({"model": "large-2"}, Decimal("2.50")),
        ({"model": ["mini", "nano"]}, Decimal("0.05")),
    ]


@pytest.mark.parametrize(
    ("scheme", "typed", "kept"),
    [
        (
            "per_unit",
            {"unit_amount": "2", "included": "5", "minimum_amount": "1"},
            {"included": 5, "minimum_amount": 1},
        ),
        ("package", {"package_size": "100", "package_amount": "3"}, {"package_size": 100, "package_amount": 3}),
        ("percentage", {"rate": "2.9", "fixed_amount": "0.3"}, {"rate": Decimal("2.9"), "maximum_amount": None}),
        (
            "graduated",
            tiers("tiers", ("10", "1.5", "7"), ("", "1", "")),
            {
                "tiers": [
                    {"up_to": "10", "unit_amount": "1.5", "flat_amount": "7"},
                    {"up_to": None, "unit_amount": "1", "flat_amount": "0"},
                ]
            },
        ),
        ("volume", tiers("tiers", ("", "1", "")), {"tiers": [{"up_to": None, "unit_amount": "1", "flat_amount": "0"}]}),
    ],
)
def test_each_scheme_is_typed_into_its_own_fields(admin, empty, scheme, typed, kept):
    admin.post(url("add_price", empty), price_form(scheme=scheme, **typed))

    price = empty.prices.get()
    assert price.scheme == scheme
    assert {name: getattr(price, name) for name in kept} == kept
    assert price.unit_amount == (Decimal(2) if scheme == "per_unit" else 0)  # what another scheme reads is left out


def test_a_price_shows_what_it_says_and_is_changed_in_place(admin, draft):
    page = admin.get(url("price", draft, "tokens")).content.decode()
    assert 'value="0.15"' in page
    assert 'value="model = large-2"' in page

    admin.post(url("price", draft, "tokens"), price_form(rows=[("model = large-2", "2")]))

    assert [row.unit_amount for row in draft.prices.get().match.all()] == [2]


def test_match_rows_have_tiers_of_their_own(admin, empty):
    row = {"match-0-where": "model = large-2", **tiers("match-0-tiers", ("5", "9", ""), ("", "8", ""))}

    admin.post(url("add_price", empty), price_form(scheme="graduated", **tiers("tiers", ("", "1", "")), **row))

    assert [tier["unit_amount"] for tier in empty.prices.get().match.get().tiers] == ["9", "8"]


def test_a_row_is_removed_and_empty_ones_are_left_out(admin, draft):
    typed = price_form(rows=[("model = large-2", "2"), ("model = mini", "1")])

    admin.post(url("price", draft, "tokens"), typed | {"match-0-DELETE": "on"})

    assert [row.where for row in draft.prices.get().match.all()] == [{"model": "mini"}]


@pytest.mark.parametrize("count", ["many", "-5", ""])
def test_a_count_of_rows_that_is_none_does_not_break_the_page(admin, draft, count):
    typed = price_form() | {"_more": "1", "match-TOTAL_FORMS": count}

    assert admin.post(url("price", draft, "tokens"), typed).status_code == 200


def test_more_rows_come_without_javascript_and_lose_nothing(admin, draft):
    typed = price_form(rows=[("model = large-2", "7")]) | {"_more": "1"}

    page = admin.post(url("price", draft, "tokens"), typed).content.decode()

    assert 'name="match-6-where"' in page
    assert 'value="7"' in page
    assert draft.prices.get().match.get().unit_amount == Decimal("2.5")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (price_form(rows=[("large-2", "2.50")]), "as dimension = value, for instance model = large-2"),
        (price_form(rows=[("colour = red", "1")]), "has no dimension &quot;colour&quot;"),
        (price_form(unit_amount="0,15"), "a point before decimals"),
        (price_form(unit_amount="lots"), "Write a number such as 12.5"),
        (price_form(unit_amount="-1"), "Send zero or more"),
        (price_form(key="a b"), "Use 1 to 128"),
        (price_form(unit="EUR"), "Use USD"),
        (price_form(scheme="graduated", **tiers("tiers", ("10", "1", ""))), "Tier 1: The last tier has up_to null"),
        (price_form(scheme="volume", **tiers("tiers", ("x", "1", ""))), "Tier 1: Write a number"),
        (price_form(minimum_amount="3", maximum_amount="2"), "Send at least the minimum amount"),
    ],
)
def test_what_makes_no_sense_is_told_where_it_was_typed(admin, empty, typed, sentence):
    response = admin.post(url("add_price", empty), typed)

    assert response.status_code == 200
    assert sentence in response.content.decode()
    assert not empty.prices.exists()


def test_a_price_is_removed(admin, draft):
    admin.post(url("price", draft, "tokens"), {"_remove": "1"})

    assert not draft.prices.exists()


def test_what_keeps_a_draft_from_being_published_is_said_on_saving(admin, pro, empty):
    form = version_form(pro, interval="week", **{"credits-0-every": "month"})

    response = admin.post(url("change", empty), form, follow=True)

    assert any("credits.1.every" in message and "no months" in message for message in messages(response))


# --- publishing -----------------------------------------------------------------------------------------------


def test_an_operator_publishes_a_draft_and_it_is_frozen(admin, draft):
    page = publish(admin, draft)

    draft.refresh_from_db()
    assert draft.status == "published"
    assert any("frozen" in message for message in messages(page))
    assert 'name="base_fee"' not in page.content.decode()


def test_it_is_published_at_a_date_but_not_in_the_past(admin, draft):
    refused = publish(admin, draft, at="2020-01-01T00:00")
    assert "cannot be published in the past" in refused.content.decode()

    page = publish(admin, draft, at="2099-01-01T00:00")

    draft.refresh_from_db()
    assert (draft.status, draft.published_at.year) == ("published", 2099)
    assert "Scheduled: new subscriptions take it from 1 January 2099" in page.content.decode()


def test_looking_at_the_review_publishes_nothing(admin, draft):
    response = admin.get(url("publish", draft))

    draft.refresh_from_db()
    assert "The first version of this plan" in response.content.decode()
    assert draft.status == "draft"


def test_the_review_says_what_changes(admin, draft):
    publish(admin, draft)
    admin.post(url("draft", draft))
    copy = PlanVersion.objects.get(number=2)
    admin.post(url("price", copy, "tokens"), price_form(rows=[("model = large-2", "2")]))

    for page in (admin.get(url("publish", copy)), admin.get(url("change", copy))):
        assert "tokens, model = large-2: $2.50 per 1,000,000 → $2.00 per 1,000,000" in page.content.decode()


def test_a_draft_that_is_not_ready_is_refused_with_the_reason(admin, pro, empty):
    admin.post(url("change", empty), version_form(pro, interval="week", **{"credits-0-every": "month"}))

    assert "no months" in admin.get(url("publish", empty)).content.decode()
    publish(admin, empty)

    empty.refresh_from_db()
    assert empty.status == "draft"


def test_a_published_version_cannot_be_saved_changed_or_deleted(admin, draft, pro):
    publish(admin, draft)

    saved = admin.post(url("change", draft), version_form(pro))
    deleted = admin.post(url("delete", draft), {"post": "yes"})
    admin.post(url("price", draft, "tokens"), price_form(unit_amount="9"))
    admin.post(url("price", draft, "tokens"), {"_remove": "1"})

    assert (saved.status_code, deleted.status_code) == (403, 403)
    assert draft.prices.get().unit_amount == Decimal("0.15")


def test_a_new_draft_starts_as_a_copy(admin, draft):
    publish(admin, draft)

    admin.post(url("draft", draft))

    copy = PlanVersion.objects.get(number=2)
    assert copy.status == "draft"
    assert [row.where for row in copy.prices.get().match.all()] == [{"model": "large-2"}]
    assert admin.get(url("draft", draft)).status_code == 405


def test_a_version_is_retired_after_saying_what_follows(admin, draft):
    publish(admin, draft)
    assert "Nobody can subscribe to this plan then" in admin.get(url("retire", draft)).content.decode()

    page = admin.post(url("retire", draft), follow=True)

    draft.refresh_from_db()
    assert draft.status == "retired"
    assert "no subscription begins with it" in page.content.decode()


def test_the_history_says_who_changed_what(admin, pro, draft):
    admin.post(url("change", draft), version_form(pro, base_fee="25"))
    admin.post(url("price", draft, "tokens"), price_form(rows=[("model = large-2", "2")]))
    publish(admin, draft)

    page = admin.get(url("history", draft)).content.decode()

    assert "olivia@vendor.test" in page
    assert "Base fee: $20.00, in advance → $25.00, in advance" in page
    assert "tokens, model = large-2: $2.50 per 1,000,000 → $2.00 per 1,000,000" in page
    assert "Published." in page


# --- who may --------------------------------------------------------------------------------------------------


def test_a_member_of_a_customer_is_no_operator(client, alice, draft):
    client.force_login(alice)
    for page in ("change", "publish", "retire", "add_price"):
        assert client.get(url(page, draft)).status_code == 302
    assert client.post(url("publish", draft)).status_code == 302
    draft.refresh_from_db()
    assert draft.status == "draft"


def test_an_operator_without_the_right_changes_nothing(client, admin, draft, django_user_model):
    reader = django_user_model.objects.create_user("reader@vendor.test", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_planversion"))
    client.force_login(reader)

    assert client.get(url("change", draft)).status_code == 200
    for page in ("publish", "retire", "draft", "add_price"):
        assert client.post(url(page, draft)).status_code == 403
    draft.refresh_from_db()
    assert draft.status == "draft"


@pytest.mark.parametrize("page", ["plan", "planversion", "meter", "subscription", "outboxmessage", "unmatchedevent"])
def test_every_list_opens(admin, draft, page):
    assert admin.get(reverse(f"admin:billing_{page}_changelist")).status_code == 200


@pytest.mark.parametrize(
    "text",
    ["model = large-2", "model = mini | nano; region = none", "model = none | small-1"],
)
def test_a_condition_reads_back_as_it_was_typed(text):
    assert where.format_where(where.parse(text)) == text


@pytest.mark.parametrize("text", ["model", "= x", "model =", "model = a; model = b"])
def test_a_condition_that_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"Write|twice"):
        where.parse(text)


def test_a_frozen_version_reads_as_a_price_book(admin, draft):
    page = publish(admin, draft).content.decode()

    assert "$0.15 per 1,000,000" in page
    assert "<strong>model = large-2</strong>: $2.50 per 1,000,000" in page
    assert "1,000 credits each billing period" in page
    assert ".000000" not in page
