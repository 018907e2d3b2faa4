"""Top-ups: what is paid is granted, once; what is not, never."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse

from accounts.models import Customer, TestClock
from billing.credits.models import CreditGrant, GrantKind
from billing.topups import queries, services, webhooks
from billing.topups.admin import number_to_do
from billing.topups.models import PaymentAccount, PaymentNotice, TopUp, TopUpPrice, TopUpStatus
from billing.topups.payments import Refused
from billing.topups.stripe_payments import minor_units
from tests.billing.authorizations.conftest import START, use
from tests.billing.topups.conftest import available, now, tell
from tests.stripe_server import EVENTS, signed

pytestmark = pytest.mark.django_db


@pytest.fixture
def bought(house, fake, buy):
    """A purchase that has begun; nobody has paid yet."""
    buy()
    return TopUp.objects.get()


def paid(fake, top_up, **changes):
    """The customer has paid, and Stripe tells."""
    return tell("checkout.session.completed", **fake.pay(top_up.reference) | changes)


def status():
    return TopUp.objects.get().status


# --- once -------------------------------------------------------------------------------------------------------


def test_a_customer_pays_at_stripe_and_is_granted_once(house, fake, buy):
    answer = buy().json()
    assert (answer["state"], answer["charge"], answer["grant"]) == ("pending", "5", None)
    assert answer["url"].startswith(f"{fake.url}/pay/cs_")
    assert fake.posts("/sessions")[0]["line_items[0][price_data][unit_amount]"] == "500"
    assert available(house) == 0

    session = fake.pay(TopUp.objects.get().reference)
    for _ in range(3):
        assert tell("checkout.session.completed", **session).status_code == 204

    [grant] = CreditGrant.objects.all()
    assert (grant.kind, grant.amount, grant.cost_basis) == (GrantKind.PAID, 100, Decimal("0.05"))
    assert available(house) == 100


def test_the_receipt_and_the_card_are_kept(bought, fake):
    paid(fake, bought)
    top_up, account = TopUp.objects.get(), PaymentAccount.objects.get()
    assert top_up.receipt_url == f"{fake.url}/receipt/{top_up.payment}"
    assert (account.reference, account.payment_method) == ("cus_1", "pm_1")
    assert account.card == "Visa ending in 4242, until 04/2030"


def test_a_payment_that_is_not_there_yet_grants_nothing(house, bought, fake):
    session = fake.things[bought.reference]
    tell("checkout.session.completed", **session)
    assert available(house) == 0

    tell("checkout.session.async_payment_failed", **session)
    assert status() == TopUpStatus.FAILED
    assert available(house) == 0


def test_an_attempt_on_the_payment_page_that_failed_ends_nothing(house, bought, fake):
    failed = {"object": "payment_intent", "id": "pi_failed", "metadata": {"top_up": bought.public_id}}
    tell("payment_intent.payment_failed", **failed)
    assert status() == TopUpStatus.PENDING
    paid(fake, bought)
    tell("payment_intent.payment_failed", **failed)

    assert status() == TopUpStatus.PAID
    assert available(house) == 100


def test_a_payment_page_that_expired_ends_it_unless_it_was_paid(house, bought, fake):
    session = fake.things[bought.reference]
    tell("checkout.session.expired", **session)
    assert status() == TopUpStatus.FAILED

    paid(fake, bought)  # told of in the wrong order
    tell("checkout.session.expired", **session)
    assert (status(), available(house)) == (TopUpStatus.PAID, 100)


# --- and back again ---------------------------------------------------------------------------------------------


def test_a_payment_that_fails_later_voids_the_unused_part_once(house, bought, fake):
    paid(fake, bought)
    use(house, "search", 30, at=now())

    for _ in range(2):
        tell("charge.refunded", object="charge", refunded=True, metadata={"top_up": bought.public_id})

    grant = CreditGrant.objects.get()
    assert status() == TopUpStatus.REVERSED
    assert grant.voided_at is not None
    assert paid(fake, bought).status_code == 204
    assert CreditGrant.objects.count() == 1
    assert available(house) == 0


@pytest.mark.parametrize("success", ["payment_intent.succeeded", "checkout.session.completed"])
def test_a_refund_that_is_told_of_before_the_payment_leaves_nothing(house, bought, fake, success):
    tell("charge.refunded", object="charge", refunded=True, metadata={"top_up": bought.public_id})
    session = fake.pay(bought.reference)
    payment = fake.things[session["payment_intent"]]
    tell(success, **payment if success == "payment_intent.succeeded" else session)

    assert status() == TopUpStatus.REVERSED
    assert available(house) == 0


def test_a_refund_of_a_part_takes_nothing_back(house, bought, fake):
    paid(fake, bought)
    tell("charge.refunded", object="charge", refunded=False, metadata={"top_up": bought.public_id})
    assert available(house) == 100


@pytest.mark.parametrize(
    "told",
    [
        ("charge.refunded", {"object": "charge", "refunded": False}, webhooks.PART_REFUNDED),
        ("charge.dispute.closed", {"object": "dispute", "status": "won"}, webhooks.DISPUTE_WITHOUT_LOSS),
        ("charge.dispute.closed", {"object": "dispute", "status": "warning_closed"}, webhooks.DISPUTE_WITHOUT_LOSS),
        ("charge.dispute.closed", {"object": "dispute", "status": "lost"}, ""),
    ],
)
def test_operators_see_what_to_do_about_a_payment_until_it_is_done(bought, fake, client, olivia, told):
    kind, subject, todo = told
    paid(fake, bought)
    tell(kind, **subject, payment_intent=TopUp.objects.get().payment, metadata={})
    client.force_login(olivia)
    listed = reverse("admin:billing_paymentnotice_changelist")
    waiting = client.get(listed, {"todo__isempty": "0"})

    assert [one.todo for one in waiting.context["cl"].result_list] == [todo] * bool(todo)
    assert number_to_do(waiting.wsgi_request) == ("1" if todo else "")
    for notice in PaymentNotice.objects.exclude(todo=""):
        assert notice.top_up == bought
        client.post(reverse("admin:billing_paymentnotice_done", args=[notice.pk]), {"_form_submitted": "1"})
    assert number_to_do(waiting.wsgi_request) == ""


def test_a_part_that_another_shop_paid_back_is_nobodys_to_do(fake):
    tell("charge.refunded", object="charge", refunded=False, payment_intent="pi_of_another_shop", metadata={})
    assert not PaymentNotice.objects.exists()


@pytest.mark.parametrize("names", [{"payment_intent", "charge"}, {"charge"}, {"payment_intent"}])
def test_a_dispute_is_traced_by_its_payment_or_its_charge(house, bought, fake, names):
    paid(fake, bought)
    [charge] = fake.made("charge")
    known = {"payment_intent": charge["payment_intent"], "charge": charge["id"]}
    dispute = {name: known[name] if name in names else None for name in known}

    assert tell("charge.dispute.created", object="dispute", id="dp_1", **dispute).status_code == 204

    assert (status(), available(house)) == (TopUpStatus.REVERSED, 0)
    assert PaymentNotice.objects.get(subject="dp_1").top_up == bought


def test_a_dispute_before_the_payment_is_traced_by_what_stripe_knows(house, bought, fake):
    session = fake.pay(bought.reference)
    tell("charge.dispute.created", object="dispute", id="dp_1", charge=None, payment_intent=session["payment_intent"])
    assert (status(), available(house)) == (TopUpStatus.REVERSED, 0)


@pytest.mark.parametrize(
    "dispute",
    [{}, {"charge": None, "payment_intent": None}, {"charge": "ch_gone"}, {"payment_intent": "pi_of_another_shop"}],
)
def test_a_dispute_of_something_else_is_noted_for_an_operator(bought, fake, dispute, client, olivia):
    paid(fake, bought)
    assert tell("charge.dispute.created", object="dispute", id="dp_1", **dispute).status_code == 204
    assert status() == TopUpStatus.PAID
    assert PaymentNotice.objects.get(subject="dp_1").top_up is None
    client.force_login(olivia)
    assert "dp_1" in client.get(reverse("admin:billing_paymentnotice_changelist"), {"top_up__isempty": "1"}).text


# --- whom it believes -------------------------------------------------------------------------------------------


def test_only_stripe_is_heeded(house, bought, fake, settings):
    session = fake.pay(bought.reference)
    assert tell("checkout.session.completed", secret="whsec_wrong", **session).status_code == 400
    an_hour_ago = now().timestamp() - 3600  # signed, and overheard
    assert tell("checkout.session.completed", at=an_hour_ago, **session).status_code == 400
    content, headers = signed("checkout.session.completed", **session)
    changed = content.replace(b'"paid"', b'"PAID"')
    assert Client().post(EVENTS, changed, content_type="application/json", headers=headers).status_code == 400
    assert Client().post(EVENTS, "{}", content_type="application/json").status_code == 400
    settings.STRIPE_WEBHOOK_SECRET = ""
    assert tell("checkout.session.completed", secret="", **session).status_code == 400
    assert available(house) == 0


def test_a_message_is_heeded_once(house, bought, fake):
    session = fake.pay(bought.reference)
    for _ in range(2):
        assert tell("checkout.session.completed", event_id="evt_same", **session).status_code == 204
    assert PaymentNotice.objects.filter(reference="evt_same").count() == 1
    assert CreditGrant.objects.count() == 1


def test_a_message_that_cannot_be_understood_now_is_wanted_again(house, bought, fake, monkeypatch):
    session = fake.pay(bought.reference)
    with monkeypatch.context() as patch:
        patch.setattr(fake, "get", lambda path: (500, {"error": {"type": "api_error", "message": "away"}}))
        assert tell("checkout.session.completed", event_id="evt_same", **session).status_code == 503
    assert available(house) == 0
    assert tell("checkout.session.completed", event_id="evt_same", **session).status_code == 204
    assert available(house) == 100


def test_what_nothing_follows_from_is_passed_over_without_asking_stripe(bought, fake, monkeypatch):
    monkeypatch.setattr(fake, "get", lambda path: (500, {"error": {"type": "api_error", "message": "away"}}))
    dispute = {"object": "dispute", "id": "dp_1", "charge": None, "payment_intent": "pi_of_another_shop"}
    assert tell("charge.dispute.closed", **dispute).status_code == 204
    assert tell("charge.dispute.created", **dispute).status_code == 503


def test_what_happens_in_the_shop_beside_it_is_passed_over(house, bought, fake):
    assert tell("invoice.paid", object="invoice", id="in_1").status_code == 204
    assert tell("checkout.session.completed", **fake.things[bought.reference] | {"metadata": {}}).status_code == 204
    assert available(house) == 0


# --- without Stripe ---------------------------------------------------------------------------------------------


def test_without_stripe_an_operator_says_that_it_was_paid(house, buy, client, olivia):
    answer = buy("20").json()
    assert (answer["url"], answer["state"]) == (None, "pending")
    client.force_login(olivia)
    top_up = TopUp.objects.get()

    client.post(reverse("admin:billing_topup_mark_paid", args=[top_up.pk]), {"_form_submitted": "1"})
    assert available(house) == 20

    services.succeed(public_id=top_up.public_id, at=now())
    assert available(house) == 20


def test_an_operator_hears_that_what_was_paid_back_stays_so(house, buy, client, olivia):
    buy("20")
    top_up = TopUp.objects.get()
    services.pay_back(public_id=top_up.public_id, failure="It was paid back.", at=now())
    client.force_login(olivia)
    client.post(reverse("admin:billing_topup_mark_paid", args=[top_up.pk]), {"_form_submitted": "1"})

    page = client.get(reverse("admin:billing_topup_change", args=[top_up.pk]))
    assert [str(said) for said in page.context["messages"]] == [
        "It was paid back, and stays so. Let the customer buy again."
    ]
    assert available(house) == 0


def test_what_an_operator_is_to_be_paid_for_waits_as_long_as_it_takes(house, buy):
    buy("20")
    services.finish(at=now() + timedelta(days=90))
    assert status() == TopUpStatus.PENDING


def test_a_customer_of_a_sandbox_pays_nobody_and_is_granted_by_its_clock(house, fake, buy, client, olivia):
    clock = TestClock.objects.create(now=START + timedelta(days=3))
    Customer.objects.filter(pk=house.pk).update(test_clock=clock)

    assert (buy().json()["url"], fake.seen) == (None, [])
    top_up = TopUp.objects.get()
    client.force_login(olivia)
    client.post(reverse("admin:billing_topup_mark_paid", args=[top_up.pk]), {"_form_submitted": "1"})

    assert CreditGrant.objects.get().effective_at == clock.now
    client.post(reverse("admin:billing_topup_mark_reversed", args=[top_up.pk]), {"_form_submitted": "1"})
    assert TopUp.objects.get().ended_at == clock.now


# --- between two rows -------------------------------------------------------------------------------------------


def test_when_stripe_is_away_the_client_may_come_again_for_the_same_purchase(house, fake, buy):
    fake.is_broken = True
    answer = buy(key="buy-1")
    assert (answer.status_code, answer.json()["code"]) == (503, "payment_unavailable")
    assert answer.headers["Retry-After"] == "10"

    fake.is_broken = False
    again = buy(key="buy-1")
    assert again.status_code == 201
    assert again.json()["url"] == buy(key="buy-1").json()["url"] != None  # noqa: E711 -- one chain
    assert TopUp.objects.count() == len(fake.made("checkout.session")) == 1


def test_a_purchase_that_a_crash_left_behind_is_ended(house, fake):
    services.order(customer=house, unit="credits", amount=Decimal(100), at=now())
    services.finish(at=now() + timedelta(minutes=59))
    assert status() == TopUpStatus.PENDING
    services.finish(at=now() + timedelta(minutes=61))
    assert status() == TopUpStatus.FAILED
    assert fake.seen == []


def test_a_payment_of_which_no_webhook_came_is_found(house, bought, fake):
    fake.pay(bought.reference)
    services.finish(at=now() + timedelta(minutes=5))
    assert available(house) == 0
    services.finish(at=now() + timedelta(minutes=11))
    assert (status(), CreditGrant.objects.count()) == (TopUpStatus.PAID, 1)


def test_a_payment_page_that_was_left_is_ended_when_it_expires(house, bought, fake):
    later = now() + timedelta(minutes=11)
    services.finish(at=later)
    assert status() == TopUpStatus.PENDING
    fake.things[bought.reference]["status"] = "expired"
    services.finish(at=later + timedelta(minutes=9))
    assert status() == TopUpStatus.PENDING  # it was looked at a moment ago
    services.finish(at=later + timedelta(minutes=11))
    assert status() == TopUpStatus.FAILED


def test_a_payment_page_that_is_not_known_is_given_up_when_nobody_can_pay_there(house, bought, fake):
    known = fake.things.pop(bought.reference)
    services.finish(at=now() + timedelta(hours=23))
    assert status() == TopUpStatus.PENDING
    services.finish(at=now() + timedelta(hours=25))
    assert status() == TopUpStatus.FAILED
    assert "not known any more" in TopUp.objects.get().failure
    fake.things[bought.reference] = known
    tell("checkout.session.completed", **fake.pay(bought.reference))
    assert available(house) == 100


def test_what_is_cancelled_cannot_be_paid_any_more(house, bought, fake):
    services.cancel(top_up=bought, at=now())
    assert (bought.status, fake.things[bought.reference]["status"]) == (TopUpStatus.FAILED, "expired")


def test_what_was_paid_a_moment_before_it_was_cancelled_is_granted(house, bought, fake):
    fake.pay(bought.reference)
    services.cancel(top_up=bought, at=now())
    assert (bought.status, available(house)) == (TopUpStatus.PAID, 100)


def test_what_stripe_does_not_know_any_more_can_be_cancelled(house, bought, fake):
    """Its page was made under another account, for instance."""
    fake.things.clear()
    services.cancel(top_up=bought, at=now())
    assert bought.status == TopUpStatus.FAILED


# --- what is for sale -------------------------------------------------------------------------------------------


def test_what_stripe_refuses_to_sell_is_refused(house, fake, buy):
    fake.refuses = "Amount must be no more than $999,999.99"
    answer = buy("1000000000")

    assert (answer.status_code, answer.json()["code"]) == (409, "not_for_sale")
    assert "999,999.99" in answer.json()["detail"]
    assert status() == TopUpStatus.FAILED


def test_what_has_no_price_cannot_be_bought(house, buy):
    assert buy(unit="tokens").json()["code"] == "not_for_sale"
    assert buy("0.0001").json()["code"] == "not_for_sale"
    assert buy("-1").status_code == 400


def test_an_operator_bounds_what_is_bought_at_once(house, buy):
    TopUpPrice.objects.update(least=Decimal(50), most=Decimal(500))
    assert "at least 50 credits" in buy("49.9").json()["detail"]
    assert "at most 500 credits" in buy("501").json()["detail"]
    assert [buy("50").status_code, buy("500").status_code] == [201, 201]


def test_money_costs_itself_and_may_have_bounds(house, buy):
    assert queries.offer(house, "USD").most is None
    TopUpPrice.objects.create(unit="USD", currency="USD", unit_amount=1, most=Decimal(100))
    assert "at most $100.00" in buy("101", unit="USD").json()["detail"]
    assert buy("100", unit="USD").json()["charge"] == "100"


@pytest.mark.parametrize(("currency", "amount", "remedy"), [("KWD", "5.124", "KWD 5.130"), ("USD", "0.504", "$0.51")])
def test_nobody_is_given_more_money_than_they_pay(house, buy, currency, amount, remedy):
    Customer.objects.filter(pk=house.pk).update(currency=currency)
    answer = buy(amount, unit=currency)
    assert answer.status_code == 409
    assert f"in whole coins: {remedy}" in answer.json()["detail"]
    with pytest.raises(DatabaseError, match="top_up_money_costs_itself"):
        TopUpPrice.objects.create(unit="EUR", currency="EUR", unit_amount=2)


@pytest.mark.parametrize(
    ("currency", "counted"), [("USD", 500), ("JPY", 5), ("ISK", 500), ("UGX", 500), ("MGA", 5), ("KWD", 5000)]
)
def test_stripe_is_asked_for_what_is_shown_in_the_coins_that_it_counts(currency, counted):
    assert minor_units(Decimal("5.00"), currency) == counted


@pytest.mark.parametrize(("currency", "amount"), [("MGA", "5.50"), ("KWD", "5.125"), ("ISK", "5.5"), ("USD", "5.005")])
def test_a_part_of_the_smallest_coin_is_refused(currency, amount):
    with pytest.raises(Refused, match="cannot be paid by card"):
        minor_units(Decimal(amount), currency)


@pytest.mark.parametrize(
    ("price", "paid"),
    [
        ("KWD 0.0512", ("5.12", "5120")),
        ("KWD 0.05125", ("5.13", "5130")),
        ("MGA 0.045", ("5", "5")),
        ("ISK 0.045", ("5", "500")),
        ("UGX 1.5", ("150", "15000")),
        ("JPY 0.045", ("5", "5")),
        ("HUF 0.0451", ("4.51", "451")),
    ],
)
def test_what_credits_cost_can_be_paid_in_every_currency(house, buy, fake, price, paid):
    currency, unit_amount = price.split()
    Customer.objects.filter(pk=house.pk).update(currency=currency)
    TopUpPrice.objects.create(unit="credits", currency=currency, unit_amount=Decimal(unit_amount))

    answer = buy("100").json()

    [page] = fake.posts("/sessions")
    assert (answer["charge"], page["line_items[0][price_data][unit_amount]"]) == paid
    assert answer["currency"] == currency
    assert page["line_items[0][price_data][currency]"] == currency.lower()
