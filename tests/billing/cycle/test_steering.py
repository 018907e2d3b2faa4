"""An operator changes, cancels and resumes subscriptions in the admin, and moves many after a look at what it means."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from accounts.models import Customer
from billing.clock import now
from billing.cycle import services as cycle
from billing.pricing.models import Coupon
from billing.pricing.spec import PriceSpec
from billing.subscriptions.coupons import redeem
from billing.subscriptions.models import Subscription
from tests.factories import event, ingest, make_meter, make_plan, make_version

D = Decimal


@pytest.fixture
def operator(client, olivia):
    client.force_login(olivia)
    return client


@pytest.fixture
def versions(db):
    make_meter("searches", aggregation="count", event_type="search")
    plan = make_plan()
    return [
        make_version(plan, base_fee=D(10 * n), prices=(PriceSpec("searches", "searches", "USD", D(n)),)) for n in (1, 3)
    ]


@pytest.fixture
def two(versions):
    """Subscriptions of two customers to the older version; the second one has used 5."""
    start = datetime(now().year, now().month, 1, tzinfo=UTC)
    found = []
    for key in ("one", "two"):
        customer = Customer.objects.create(key=key, name=key.capitalize())
        found.append(cycle.subscribe(customer=customer, version=versions[0], starts_at=start, at=now()))
    ingest(*[event(f"e{n}", "two", type="search") for n in range(5)], at=now())
    cycle.tick(at=now())
    return found


def move_url(*subscriptions, **more):
    query = "&".join([f"{name}={value}" for name, value in more.items()])
    ids = ",".join(str(one.pk) for one in subscriptions)
    return f"{reverse('admin:billing_subscription_move')}?ids={ids}&{query}"


def test_the_list_leads_to_the_page_of_the_move(operator, two):
    form = {"action": "move_selected", "_selected_action": [one.pk for one in two]}

    response = operator.post(reverse("admin:billing_subscription_changelist"), form)

    assert response.status_code == 302
    assert "2 subscriptions: " in operator.get(response["Location"]).content.decode()


def test_who_is_affected_is_said_before_anything_is_moved(operator, two, versions):
    page = operator.get(move_url(*two, version=versions[1].pk, when="now")).content.decode()

    # 10 + 5 x 1 becomes 30 + 5 x 3; the larger difference comes first.
    assert page.index("$45.00") < page.index("$20.00")
    assert "$30.00" in page
    assert "Move 2 subscriptions" in page
    assert set(Subscription.objects.values_list("version", flat=True)) == {versions[0].pk}


def test_everybody_on_a_version_may_be_chosen_at_once(operator, two, versions):
    page = operator.get(f"{reverse('admin:billing_subscription_move')}?from={versions[0].pk}").content.decode()

    assert "2 subscriptions: " in page


def test_the_move_is_made_and_logged(operator, two, versions):
    response = operator.post(move_url(*two), {"version": versions[1].pk, "when": "period_end"}, follow=True)

    assert "is moved to" in response.content.decode()
    assert set(Subscription.objects.values_list("next_version", flat=True)) == {versions[1].pk}
    assert LogEntry.objects.filter(change_message__contains="Moved to").count() == 2


def test_one_that_is_refused_does_not_keep_the_others(operator, two, versions):
    make_meter("images", aggregation="count", event_type="image")
    images = make_version(make_plan("images"), prices=(PriceSpec("images", "images", "USD", D(1)),))
    cycle.subscribe(customer=two[0].customer, version=images, starts_at=now(), at=now())

    response = operator.post(move_url(*two), {"version": images.pk, "when": "now"}, follow=True)

    assert "prices images already" in response.content.decode()
    two[0].refresh_from_db()
    two[1].refresh_from_db()
    assert (two[0].version, two[1].version) == (versions[0], images)


def test_nothing_chosen_is_said(operator, versions):
    assert "No active subscription is chosen" in operator.get(move_url()).content.decode()


def test_a_subscription_is_cancelled_and_resumed(operator, two):
    end, go_on = (reverse(f"admin:billing_subscription_{name}", args=[two[0].pk]) for name in ("end", "go_on"))
    assert operator.get(end).status_code == 200

    page = operator.post(end, {"when": "period_end"}, follow=True).content.decode()
    assert "Cancelled: it ends" in page
    two[0].refresh_from_db()
    assert two[0].ends_at is not None

    assert "it goes on" in operator.post(go_on, follow=True).content.decode()
    assert "not cancelled" in operator.post(go_on, follow=True).content.decode()


def test_a_coupon_is_redeemed_once(operator, two):
    coupon = Coupon.objects.create(key="half", name="Half off", percent=D(50))
    url = reverse("admin:billing_subscription_coupon", args=[two[0].pk])
    assert operator.get(url).status_code == 200

    assert "Redeemed Half off" in operator.post(url, {"coupon": coupon.pk}, follow=True).content.decode()
    assert "redeemed this coupon already" in operator.post(url, {"coupon": coupon.pk}).content.decode()


def test_a_coupon_is_taken_off_once(operator, two):
    coupon = Coupon.objects.create(key="half", name="Half off", percent=D(50), duration="forever")
    redemption = redeem(subscription=two[0], coupon=coupon, at=now())
    url = reverse("admin:billing_subscription_coupon_off", args=[two[0].pk])
    assert "half on one on" in operator.get(url).content.decode()

    page = operator.post(url, {"redemption": redemption.pk}, follow=True).content.decode()
    assert "Took Half off (half) off" in page
    redemption.refresh_from_db()
    assert redemption.ends_at is not None
    assert "not one of the available choices" in operator.post(url, {"redemption": redemption.pk}).content.decode()


def test_a_coupon_of_another_subscription_is_not_taken_off(operator, two):
    redemption = redeem(
        subscription=two[1], coupon=Coupon.objects.create(key="half", name="Half off", percent=D(50)), at=now()
    )

    operator.post(reverse("admin:billing_subscription_coupon_off", args=[two[0].pk]), {"redemption": redemption.pk})

    redemption.refresh_from_db()
    assert redemption.ends_at is None


@pytest.mark.parametrize("page", ["change", "end", "go_on", "coupon", "coupon_off"])
def test_the_pages_say_what_they_do(operator, two, page):
    assert operator.get(reverse(f"admin:billing_subscription_{page}", args=[two[0].pk])).status_code == 200


@pytest.mark.parametrize("page", ["end", "go_on", "coupon", "coupon_off"])
def test_an_unknown_subscription_is_not_found(operator, versions, page):
    assert operator.get(reverse(f"admin:billing_subscription_{page}", args=[987654])).status_code == 404


def test_a_viewing_operator_moves_nothing(client, two, django_user_model):
    viewer = django_user_model.objects.create_user("eve@vendor.test", "x", is_staff=True)
    client.force_login(viewer)

    assert client.get(move_url(*two)).status_code == 403
    assert client.post(reverse("admin:billing_subscription_end", args=[two[0].pk]), {"when": "now"}).status_code == 403
