"""Top-ups: what is paid is granted, once; what is not, never. Stripe is a small server that speaks its HTTP."""

import hashlib
import hmac
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Customer, TestClock
from billing.authorizations.queries import balances
from billing.credits.models import CreditGrant, GrantKind
from billing.cycle.services import tick
from billing.topups import providers, services
from billing.topups.models import AutomaticTopUp, PaymentAccount, TopUp, TopUpPrice, TopUpStatus
from tests.billing.authorizations.conftest import START, give, make_house, use
from tests.factories import bearer, make_api_key

pytestmark = pytest.mark.django_db
SECRET = "whsec_test"
EVENTS = "/api/v1/webhooks/stripe"


class Fake:
    """Stripe: sessions and payments by idempotency key, and cards that are declined on request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, dict[str, object]] = {}
        self.declines = self.is_broken = False
        self.refuses = ""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
                fields = {name: values[0] for name, values in parse_qs(sent).items()}
                fake.seen.append((self.path, fields))
                self.say(*fake.answer(self.path, fields, self.headers["Idempotency-Key"]))

            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                self.say(200, {"id": name, "object": "payment_intent", "payment_method": "pm_1", "metadata": {}})

            def say(self, status: int, body: dict[str, object]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, fields: dict[str, str], key: str) -> tuple[int, dict[str, object]]:
        if self.is_broken:
            return 500, {"error": {"type": "api_error", "message": "Something went wrong."}}
        if self.refuses:
            return 400, {"error": {"type": "invalid_request_error", "message": self.refuses}}
        if path.endswith("/payment_intents"):
            if self.declines:
                error = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}
                return 402, {"error": error}
            made = {"id": f"pi_{len(self.answers)}", "object": "payment_intent", "status": "succeeded"}
        else:
            name = f"cs_{len(self.answers)}"
            made = {"id": name, "object": "checkout.session", "url": f"https://checkout.stripe.test/{name}"}
        return 200, self.answers.setdefault(key, made)


@pytest.fixture
def fake(settings):
    fake = Fake()
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE, settings.STRIPE_WEBHOOK_SECRET = "sk_test", fake.url, SECRET
    providers.stripe_provider.cache_clear()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    providers.stripe_provider.cache_clear()


@pytest.fixture
def house(acme):
    TopUpPrice.objects.create(unit="credits", currency="USD", unit_amount=Decimal("0.05"))
    return make_house(acme)


@pytest.fixture
def buy(client):
    secret = make_api_key()[1]

    def buy(amount: object = "100", unit: str = "credits"):
        body = {"unit": unit, "amount": amount}
        return client.post("/api/v1/customers/acme/top-ups", body, content_type="application/json", **bearer(secret))

    return buy


def tell(kind: str, secret: str = SECRET, **subject: object):
    """As Stripe tells: signed."""
    event = {"id": "evt_1", "object": "event", "type": kind, "data": {"object": subject}}
    content, at = json.dumps(event), int(time.time())
    signature = hmac.new(secret.encode(), f"{at}.{content}".encode(), hashlib.sha256).hexdigest()
    signed = {"Stripe-Signature": f"t={at},v1={signature}"}
    return Client().post(EVENTS, content, content_type="application/json", headers=signed)


def paid(top_up: str, **changes: object):
    session = {
        "object": "checkout.session",
        "payment_status": "paid",
        "customer": "cus_1",
        "payment_intent": "pi_9",
        "metadata": {"top_up": top_up},
    }
    return tell("checkout.session.completed", **session | changes)


def available(customer) -> Decimal:
    return sum((one.available for one in balances(customer, now()) if one.unit == "credits"), Decimal(0))


def now() -> datetime:
    return datetime.now(UTC)


# --- once -------------------------------------------------------------------------------------------------------


def test_a_customer_pays_at_stripe_and_is_granted_once(house, fake, buy):
    bought = buy().json()
    assert (bought["state"], bought["charge"], bought["grant"]) == ("pending", "5", None)
    assert bought["url"].startswith("https://checkout.stripe.test/cs_")
    assert fake.seen[0][1]["line_items[0][price_data][unit_amount]"] == "500"
    assert available(house) == 0

    for _ in range(3):
        assert paid(bought["id"]).status_code == 204

    [grant] = CreditGrant.objects.all()
    assert (grant.kind, grant.amount, grant.cost_basis) == (GrantKind.PAID, 100, Decimal("0.05"))
    assert available(house) == 100
    assert PaymentAccount.objects.get().payment_method == "pm_1"


def test_a_payment_that_is_not_there_yet_grants_nothing(house, fake, buy):
    bought = buy().json()["id"]
    paid(bought, payment_status="unpaid")
    assert available(house) == 0

    tell("checkout.session.async_payment_failed", object="checkout.session", metadata={"top_up": bought})
    assert TopUp.objects.get().status == TopUpStatus.FAILED
    assert available(house) == 0


def test_an_attempt_that_failed_may_be_told_of_before_or_after_the_one_that_succeeded(house, fake, buy):
    bought = buy().json()["id"]
    failed = {"object": "payment_intent", "metadata": {"top_up": bought}}
    tell("payment_intent.payment_failed", **failed)
    paid(bought)
    tell("payment_intent.payment_failed", **failed)

    assert TopUp.objects.get().status == TopUpStatus.PAID
    assert available(house) == 100


def test_a_payment_that_fails_later_voids_the_unused_part_once(house, fake, buy):
    bought = buy().json()["id"]
    paid(bought)
    at = now()
    use(house, "search", 30, at=at)

    for _ in range(2):
        tell("charge.refunded", object="charge", refunded=True, metadata={"top_up": bought})

    grant = CreditGrant.objects.get()
    assert TopUp.objects.get().status == TopUpStatus.REVERSED
    assert grant.voided_at is not None
    assert paid(bought).status_code == 204
    assert CreditGrant.objects.count() == 1
    assert available(house) == 0


@pytest.mark.parametrize("success", ["payment_intent.succeeded", "checkout.session.completed"])
def test_a_refund_that_is_told_of_before_the_payment_leaves_nothing(house, fake, buy, success):
    bought = buy().json()["id"]
    tell("charge.refunded", object="charge", refunded=True, metadata={"top_up": bought})
    if success == "payment_intent.succeeded":
        tell(success, object="payment_intent", metadata={"top_up": bought})
    else:
        paid(bought)

    assert TopUp.objects.get().status == TopUpStatus.REVERSED
    assert available(house) == 0


def test_a_refund_of_a_part_takes_nothing_back(house, fake, buy):
    bought = buy().json()["id"]
    paid(bought)
    tell("charge.refunded", object="charge", refunded=False, metadata={"top_up": bought})
    assert available(house) == 100


def test_only_stripe_is_heeded(house, fake, buy, settings):
    bought = buy().json()["id"]
    assert tell("checkout.session.completed", "whsec_wrong", metadata={"top_up": bought}).status_code == 400
    assert Client().post(EVENTS, "{}", content_type="application/json").status_code == 400
    settings.STRIPE_WEBHOOK_SECRET = ""
    assert tell("checkout.session.completed", "", metadata={"top_up": bought}).status_code == 400
    assert available(house) == 0


def test_without_stripe_an_operator_says_that_it_was_paid(house, buy, client, olivia):
    bought = buy("20").json()
    assert (bought["url"], bought["state"]) == (None, "pending")
    client.force_login(olivia)
    top_up = TopUp.objects.get()

    client.post(reverse("admin:billing_topup_mark_paid", args=[top_up.pk]), {"_form_submitted": "1"})
    assert available(house) == 20

    services.succeed(public_id=top_up.public_id, at=now())
    assert available(house) == 20


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


def test_when_stripe_is_away_nothing_is_begun_and_the_client_may_come_again(house, fake, buy):
    fake.is_broken = True
    answer = buy()

    assert (answer.status_code, answer.json()["code"]) == (503, "payment_unavailable")
    assert answer.headers["Retry-After"] == "10"
    assert not TopUp.objects.exists()


def test_what_stripe_refuses_to_sell_is_refused(house, fake, buy):
    fake.refuses = "Amount must be no more than $999,999.99"
    answer = buy("1000000000")

    assert (answer.status_code, answer.json()["code"]) == (409, "not_for_sale")
    assert "999,999.99" in answer.json()["detail"]


def test_what_has_no_price_cannot_be_bought(house, buy):
    assert buy(unit="tokens").json()["code"] == "not_for_sale"
    assert buy("0.0001").json()["code"] == "not_for_sale"
    assert buy("-1").status_code == 400


# --- automatic --------------------------------------------------------------------------------------------------


@pytest.fixture
def rule(house):
    PaymentAccount.objects.create(customer=house, provider="stripe", reference="cus_1", payment_method="pm_1")
    return AutomaticTopUp.objects.create(
        customer=house, threshold=Decimal(10), target=Decimal(100), monthly_ceiling=Decimal(150), cooldown_minutes=60
    )


def charges(fake) -> list[str]:
    return [fields["amount"] for path, fields in fake.seen if path.endswith("/payment_intents")]


def test_few_credits_are_topped_up_once_and_not_within_the_cooldown(house, fake, rule):
    at = now()
    give(house, 20, at=at)
    assert services.top_up_automatically(at=at) == 0
    use(house, "search", 15, at=at)
    tick(at=at)

    assert services.top_up_automatically(at=at) == 1
    assert services.top_up_automatically(at=at) == 0
    assert available(house) == 100
    assert charges(fake) == ["475"]


def test_the_months_ceiling_holds(house, fake, rule):
    at = now()
    assert services.top_up_automatically(at=at) == 1
    use(house, "search", 100, at=at)
    tick(at=at)
    TopUp.objects.update(created_at=at - timedelta(seconds=1))
    rule.cooldown_minutes = 0
    rule.save()

    assert services.top_up_automatically(at=at) == 1
    assert charges(fake) == ["500", "250"]
    TopUp.objects.update(created_at=at - timedelta(seconds=1))
    use(house, "search", 50, at=at)
    tick(at=at)
    assert services.top_up_automatically(at=at) == 0


def test_a_declined_card_grants_nothing_and_waits_for_the_cooldown(house, fake, rule):
    fake.declines = True
    assert services.top_up_automatically(at=now()) == 0
    assert services.top_up_automatically(at=now()) == 0

    top_up = TopUp.objects.get()
    assert (top_up.status, top_up.failure) == (TopUpStatus.FAILED, "Your card was declined.")
    assert available(house) == 0
    assert len(charges(fake)) == 1


def test_an_interrupted_charge_is_repeated_as_the_same(house, fake, rule):
    top_up = services.order_if_due(rule=rule, at=now())
    providers.provider(rule.customer).charge(top_up, PaymentAccount.objects.get())  # and then the process died

    assert services.top_up_automatically(at=now()) == 1

    assert len(fake.answers) == 1
    assert CreditGrant.objects.count() == 1


def test_without_a_saved_card_nothing_is_ordered(house, fake, rule):
    PaymentAccount.objects.all().delete()
    assert services.top_up_automatically(at=now()) == 0
    assert not TopUp.objects.exists()
