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


def version_form(plan: Plan, meter: Meter, *, rows=(), **changes) -> dict[str, str]:
    """What the browser posts for a version with one price."""
    form = {
        "plan": plan.pk,
        "interval": "month",
        "interval_count": "1",
        "base_fee": "20",
        "base_fee_timing": "advance",
        "postpaid": "on",
        "prices-TOTAL_FORMS": "1",
        "prices-INITIAL_FORMS": "0",
        "prices-0-key": "tokens",
        "prices-0-meter": meter.pk,
        "prices-0-unit": "USD",
        "prices-0-unit_amount": "0.15",
        "prices-0-per": "1000000",
        "prices-0-included": "0",
        "prices-0-match-TOTAL_FORMS": str(len(rows)),
        "prices-0-match-INITIAL_FORMS": "0",
        "credits-TOTAL_FORMS": "1",
        "credits-INITIAL_FORMS": "0",
        "credits-0-unit": "credits",
        "credits-0-amount": "1000",
        "credits-0-priority": "10",
        "overage-TOTAL_FORMS": "0",
        "overage-INITIAL_FORMS": "0",
    }
    for index, (condition, amount) in enumerate(rows):
        form |= {f"prices-0-match-{index}-where": condition, f"prices-0-match-{index}-unit_amount": amount}
    return form | changes


def messages(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def test_an_operator_writes_a_draft_with_match_rows(admin, pro, tokens):
    form = version_form(pro, tokens, rows=[("model = large-2", "2.50"), ("model = mini | nano", "0.05")])

    response = admin.post(reverse("admin:billing_planversion_add"), form, follow=True)

    version = PlanVersion.objects.get()
    assert response.status_code == 200
    assert (version.number, version.status, version.credits.get().amount) == (1, "draft", Decimal(1000))
    assert [(row.where, row.unit_amount) for row in version.prices.get().match.all()] == [
        ({"model": "large-2"}, Decimal("2.50")),
        ({"model": ["mini", "nano"]}, Decimal("0.05")),
    ]


def test_a_condition_that_makes_no_sense_is_told_at_its_field(admin, pro, tokens):
    form = version_form(pro, tokens, rows=[("large-2", "2.50")])

    response = admin.post(reverse("admin:billing_planversion_add"), form)

    assert response.status_code == 200
    assert "as dimension = value, for instance model = large-2" in response.content.decode()
    assert not PlanVersion.objects.exists()


def test_what_keeps_a_draft_from_being_published_is_said_on_saving(admin, pro, tokens):
    form = version_form(pro, tokens, rows=[("colour = red", "2.50")])

    response = admin.post(reverse("admin:billing_planversion_add"), form, follow=True)

    assert any("prices.0.match.0.where" in message and "colour" in message for message in messages(response))


@pytest.fixture
def draft(admin, pro, tokens) -> PlanVersion:
    admin.post(reverse("admin:billing_planversion_add"), version_form(pro, tokens, rows=[("model = large-2", "2.5")]))
    return PlanVersion.objects.get()


def publish(admin, version: PlanVersion):
    url = reverse("admin:billing_planversion_publish", args=[version.pk])
    return admin.post(url, {"_form_submitted": "on"})


def test_an_operator_publishes_a_draft_and_it_is_frozen(admin, draft):
    response = publish(admin, draft)

    draft.refresh_from_db()
    assert response.headers["HX-Redirect"] == reverse("admin:billing_planversion_change", args=[draft.pk])
    assert draft.status == "published"
    page = admin.get(response.headers["HX-Redirect"])
    assert any("frozen" in message for message in messages(page))
    assert 'name="base_fee"' not in page.content.decode()


def test_publishing_asks_first(admin, draft):
    response = admin.get(reverse("admin:billing_planversion_publish", args=[draft.pk]))

    draft.refresh_from_db()
    assert "Publish this version?" in response.content.decode()
    assert draft.status == "draft"


def test_a_published_version_cannot_be_saved_or_deleted(admin, draft, pro, tokens):
    publish(admin, draft)

    saved = admin.post(reverse("admin:billing_planversion_change", args=[draft.pk]), version_form(pro, tokens))
    deleted = admin.post(reverse("admin:billing_planversion_delete", args=[draft.pk]), {"post": "yes"})

    assert (saved.status_code, deleted.status_code) == (403, 403)


def test_a_new_draft_starts_as_a_copy(admin, draft):
    publish(admin, draft)

    admin.post(reverse("admin:billing_planversion_start_new_draft", args=[draft.pk]), {"_form_submitted": "on"})

    copy = PlanVersion.objects.get(number=2)
    assert copy.status == "draft"
    assert [row.where for row in copy.prices.get().match.all()] == [{"model": "large-2"}]


def test_a_draft_that_is_not_ready_is_refused_with_the_reason(admin, pro, tokens):
    admin.post(reverse("admin:billing_planversion_add"), version_form(pro, tokens, rows=[("colour = red", "2.50")]))
    version = PlanVersion.objects.get()

    publish(admin, version)

    version.refresh_from_db()
    assert version.status == "draft"


def test_a_member_of_a_customer_is_no_operator(client, alice, draft):
    client.force_login(alice)
    assert client.get(reverse("admin:billing_planversion_change", args=[draft.pk])).status_code == 302
    assert publish(client, draft).status_code == 302
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
    publish(admin, draft)

    page = admin.get(reverse("admin:billing_planversion_change", args=[draft.pk])).content.decode()

    assert "0.15 USD per 1,000,000" in page
    assert "<strong>model = large-2</strong>: 2.5 USD per 1,000,000" in page
    assert "1000 credits" in page
    assert ".000000" not in page


def test_an_operator_without_the_right_cannot_publish(client, admin, draft, django_user_model):
    reader = django_user_model.objects.create_user("reader@vendor.test", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_planversion"))
    client.force_login(reader)

    assert publish(client, draft).status_code == 403
    draft.refresh_from_db()
    assert draft.status == "draft"
