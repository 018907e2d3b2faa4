"""Buying credits: owners buy, once or by a rule; every member sees what was bought."""

import re
from datetime import timedelta
from decimal import Decimal
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Role
from billing import clock
from billing.topups import automatic, services
from billing.topups.models import AutomaticTopUp, PaymentAccount, TopUp, TopUpPrice, TopUpStatus
from billing.topups.payments import Outcome, Progress
from tests import stripe_server
from tests.conftest import member

pytestmark = pytest.mark.django_db
D = Decimal
PAGE = "/c/acme/credits/top-ups"
RULE = {
    "unit": "credits",
    "threshold": "10",
    "target": "100",
    "monthly_ceiling": "500",
    "cooldown_minutes": "60",
    "is_active": "on",
}


@pytest.fixture
def stripe(settings):
    with stripe_server.running(settings) as fake:
        yield fake


@pytest.fixture
def price(db):
    bounds = {"least": D(20), "most": D(1000), "choices": [D(100), D(500)]}
    return TopUpPrice.objects.create(unit="credits", currency="USD", unit_amount=D("0.05"), **bounds)


@pytest.fixture
def owner(client, alice, price):
    client.force_login(alice)
    return client


def buy(client, amount="100", unit="credits", **kwargs):
    return client.post(PAGE, {"unit": unit, "amount": amount}, **kwargs)


def text(response):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", response.text))).replace("\xa0", " ")


def order(customer, amount="100"):
    return services.order(customer=customer, unit="credits", amount=D(amount), at=clock.now())


def of(top_up, what=""):
    return f"{PAGE}/{top_up.public_id}{what}"


# --- buying -----------------------------------------------------------------------------------------------------


def test_an_owner_sees_what_is_sold_and_for_how_much(owner, stripe):
    said = text(owner.get(PAGE))
    assert "100 credits $5.00" in said
    assert "500 credits $25.00" in said
    assert "From 20 credits to 1,000 credits." in said
    assert "Nothing was bought yet" in said


@pytest.mark.parametrize("amount", ["100", "33.5"])
def test_buying_leads_to_the_payment_page_and_that_back_to_the_purchase(owner, stripe, alice, amount):
    response = buy(owner, amount)
    top_up = TopUp.objects.get()
    assert (top_up.amount, top_up.created_by) == (D(amount), alice)
    assert f'http-equiv="refresh" content="0; url={top_up.url}"' in response.text
    session = stripe.things[top_up.reference]
    assert session["success_url"].endswith(of(top_up, "?from=payment"))
    assert "being confirmed" in text(owner.get(of(top_up, "?from=payment")))
    assert "You left the payment page" in text(owner.get(of(top_up, "?from=cancelled")))


@pytest.mark.parametrize(
    ("amount", "sentence"),
    [
        ("19", "Buy at least 20 credits."),
        ("1001", "Buy at most 1,000 credits at once."),
        ("0", "Buy more than nothing."),
        ("1,5", "is no number here"),
        ("", "required"),
    ],
)
def test_a_wrong_amount_is_refused_in_the_form(owner, stripe, amount, sentence):
    response = buy(owner, amount)
    assert response.status_code == 422
    assert sentence in text(response)
    assert stripe.seen == []
    assert not TopUp.objects.exists()


def test_what_is_not_sold_is_refused(owner, stripe):
    response = buy(owner, unit="gold")
    assert response.status_code == 422
    assert "This is not for sale any more. Nothing was charged." in text(response)


def test_while_stripe_is_away_the_purchase_waits_and_can_be_gone_on_with(owner, stripe):
    stripe.is_broken = True
    response = buy(owner, follow=True)
    assert "Nothing was charged. Please try again in a minute." in text(response)
    top_up = TopUp.objects.get()
    assert "Continue to payment" in text(response)
    stripe.is_broken = False
    assert "Opening the payment page" in text(owner.post(of(top_up, "/pay")))


def test_a_double_click_buys_once(owner, stripe):
    [once, *_] = re.findall(r'name="once" value="([^"]+)"', owner.get(PAGE).text)
    sent = {"unit": "credits", "amount": "100", "once": once}
    first, second = owner.post(PAGE, sent), owner.post(PAGE, sent | {"amount": "100.00"})
    top_up = TopUp.objects.get()
    assert top_up.url in first.text
    assert top_up.url in second.text

    owner.post(PAGE, sent | {"amount": "500"})
    buy(owner), buy(owner)
    assert TopUp.objects.count() == 4


def test_a_form_is_new_each_time(owner, stripe):
    stripe.refuses = "Not today."
    sent = {"unit": "credits", "amount": "100", "once": "1"}
    refused = owner.post(PAGE, sent)
    assert "Not today." in text(owner.post(PAGE, sent))
    stripe.refuses = ""
    sent["once"] = re.findall(r'name="once" value="([^"]+)"', refused.text)[-1]
    assert "Opening the payment page" in text(owner.post(PAGE, sent))


def test_what_another_customer_sent_is_no_repeat(owner, charlie, globex, stripe):
    sent = {"unit": "credits", "amount": "100", "once": "1"}
    owner.post(PAGE, sent)
    owner.force_login(charlie)
    owner.post("/c/globex/credits/top-ups", sent)
    assert set(TopUp.objects.values_list("customer__key", flat=True)) == {"acme", "globex"}


def test_without_stripe_a_purchase_is_a_request(owner):
    said = text(owner.get(PAGE))
    assert "Request it" in said
    assert "Automatic top-up" not in said
    assert "as soon as $5.00 has been received" in text(buy(owner, follow=True))


def test_members_who_are_no_owners_see_what_was_bought_and_cannot_buy(client, acme, bob, price):
    top_up = order(acme)
    for user in (bob, member(acme, "erin", Role.BILLING)):
        client.force_login(user)
        said = text(client.get(PAGE))
        assert re.search(r"100 credits \$5.00 on [^$]+ \$5.00 [^$]+ Waits for the payment", said)
        assert "<form" not in client.get(PAGE).text.partition('id="main"')[2].partition("</main>")[0]
        assert "Cancel it" not in text(client.get(of(top_up)))
        for post in (PAGE, of(top_up, "/pay"), of(top_up, "/cancel"), f"{PAGE}/card", f"{PAGE}/automatic"):
            assert client.post(post).status_code == 403
        assert ">Top up<" not in client.get("/c/acme/credits").text


def test_the_credits_page_leads_owners_to_buying(owner):
    assert re.search(rf'href="{PAGE}">Top up<', owner.get("/c/acme/credits").text)


def test_strangers_find_nothing(client, acme, charlie, price):
    top_up = order(acme)
    client.force_login(charlie)
    assert client.get(PAGE).status_code == 404
    assert buy(client).status_code == 404
    assert client.get(of(top_up)).status_code == 404
    assert client.get(f"/c/globex/credits/top-ups/{top_up.public_id}").status_code == 404
    assert client.post(f"/c/globex/credits/top-ups/{top_up.public_id}/cancel").status_code == 404


def test_whoever_is_not_signed_in_is_asked_to(client, acme, price):
    assert client.get(of(order(acme))).status_code == 302
    assert buy(client).status_code == 302


# --- what has become of it --------------------------------------------------------------------------------------


def test_the_page_moves_until_it_has_ended(owner, acme, stripe):
    top_up = order(acme)
    services.begin(top_up=top_up, at=clock.now())
    fragment = owner.get(of(top_up), headers={"HX-Request": "true"})
    assert fragment.text.strip().startswith('<section class="card" id="state"')
    assert 'hx-trigger="every 2s"' in fragment.text

    stripe.pay(top_up.reference)
    services.finish(at=clock.now() + services.LOOK_EVERY)
    ended = owner.get(of(top_up), headers={"HX-Request": "true"})
    assert "every 2s" not in ended.text
    assert "100 credits were added" in text(ended)
    assert TopUp.objects.get().receipt_url in ended.text


def test_the_list_says_the_state_and_has_the_receipt(owner, acme, stripe):
    top_up = order(acme)
    paid = Outcome(Progress.PAID, "pi_1", "https://pay.stripe.com/receipts/1")
    services.settle(public_id=top_up.public_id, outcome=paid, at=clock.now())
    page = owner.get(PAGE)
    assert 'href="https://pay.stripe.com/receipts/1"' in page.text
    assert re.search(r"100 credits .+ Paid Receipt", text(page))

    services.reverse(public_id=top_up.public_id, failure="The payment is disputed.", at=clock.now())
    assert "Paid back The payment is disputed." in text(owner.get(PAGE))
    assert "What was left of these credits is void" in text(owner.get(of(top_up)))


def test_an_owner_cancels_what_is_not_paid(owner, acme):
    top_up = order(acme)
    assert "It was cancelled. Nothing was added." in text(owner.post(of(top_up, "/cancel"), follow=True))
    assert "It was cancelled." in text(owner.post(of(top_up, "/pay"), follow=True))
    top_up.refresh_from_db()
    assert top_up.status == TopUpStatus.FAILED


def test_a_payment_that_the_bank_wants_confirmed_is_shown_first(owner, acme, stripe):
    top_up = order(acme)
    TopUp.objects.update(is_automatic=True, status=TopUpStatus.ACTION_REQUIRED)
    for page in (PAGE, "/c/acme/credits"):
        assert "Your bank wants you to confirm a payment." in text(owner.get(page))
    assert "Pay it now" in text(owner.get(of(top_up)))
    assert "Opening the payment page" in text(owner.post(of(top_up, "/pay")))


def test_the_page_asks_as_often_for_many_as_for_one(owner, acme, stripe):
    order(acme)
    owner.get(PAGE)
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            owner.get(PAGE)
        counts.append(len(queries))
        order(acme), order(acme)
    assert counts[0] == counts[1]


# --- automatic --------------------------------------------------------------------------------------------------


def test_an_owner_sets_a_rule_and_sees_it(owner, stripe, acme):
    assert "Credits are bought automatically now." in text(owner.post(f"{PAGE}/automatic", RULE, follow=True))
    rule = AutomaticTopUp.objects.get()
    assert (rule.customer, rule.threshold, rule.target, rule.monthly_ceiling) == (acme, 10, 100, 500)
    assert "0 credits of 500 credits this month" in text(owner.get(PAGE))

    owner.post(f"{PAGE}/automatic", RULE | {"is_active": ""})
    rule.refresh_from_db()
    assert not rule.is_active


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"target": "10"}, "Fill up to more than the level at which it buys."),
        ({"monthly_ceiling": "50"}, "Allow at least what one top-up buys, 90 credits."),
        ({"threshold": "-1"}, "not below zero"),
        ({"cooldown_minutes": "soon"}, "whole number"),
        ({"unit": "gold"}, "This is not for sale any more."),
    ],
)
def test_a_rule_that_could_not_work_is_refused_in_the_form(owner, stripe, wrong, sentence):
    response = owner.post(f"{PAGE}/automatic", RULE | wrong)
    assert response.status_code == 422
    assert sentence in text(response)
    assert not AutomaticTopUp.objects.exists()


def test_a_card_is_set_up_and_its_last_digits_are_shown(owner, stripe, acme):
    assert "No card is saved yet." in text(owner.get(PAGE))
    response = owner.post(f"{PAGE}/card")
    [session] = stripe.made("checkout.session")
    assert session["url"] in response.text
    assert session["mode"] == "setup"
    content, headers = stripe_server.signed("checkout.session.completed", **stripe.pay(session["id"]))
    owner.post(stripe_server.EVENTS, content, content_type="application/json", headers=headers)
    assert PaymentAccount.objects.get().customer == acme
    assert "Visa ending in 4242, until 04/2030" in text(owner.get(PAGE))


def test_a_card_that_cannot_be_set_up_now_is_said(owner, stripe):
    stripe.is_broken = True
    assert "cannot be set up at the moment" in text(owner.post(f"{PAGE}/card", follow=True))


def test_why_automatic_top_ups_pause_is_said(owner, acme, stripe):
    stored = {name: D(value) for name, value in RULE.items() if value.isdigit()}
    automatic.set_rule(customer=acme, **stored | {"unit": "credits", "cooldown_minutes": 60, "is_active": True})
    AutomaticTopUp.objects.update(paused_because="Your card was declined.")
    assert "are paused. Your card was declined." in text(owner.get(PAGE))
    owner.post(f"{PAGE}/automatic", RULE)
    assert "are paused" not in text(owner.get(PAGE))
    assert not automatic.order_if_due(rule=AutomaticTopUp.objects.get(), at=clock.now() + timedelta(days=1))
