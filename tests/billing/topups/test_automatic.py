"""Automatic top-ups: each once, within what an owner allows, and never again with a card that refused."""

from datetime import timedelta
from decimal import Decimal

import pytest

from accounts.models import Customer
from billing.credits.models import CreditGrant
from billing.cycle.services import tick
from billing.errors import Conflict
from billing.notifications import mail
from billing.notifications.models import OutboxMessage
from billing.topups import automatic, services
from billing.topups.automatic import LEASE, top_up_automatically
from billing.topups.models import AutomaticTopUp, PaymentAccount, TopUp, TopUpPrice, TopUpStatus
from tests.billing.authorizations.conftest import give, use
from tests.billing.topups.conftest import available, now, tell

pytestmark = pytest.mark.django_db
D = Decimal
RULE = {
    "unit": "credits",
    "threshold": D(10),
    "target": D(100),
    "monthly_ceiling": D(150),
    "cooldown_minutes": 60,
    "is_active": True,
}


@pytest.fixture
def rule(house, card):
    return automatic.set_rule(customer=house, **RULE)


def amounts(fake):
    """Of what was charged without the customer, in cents."""
    made = fake.made("payment_intent")
    return [int(payment["amount"]) for payment in made if payment["status"] == "succeeded" and "amount" in payment]


def status():
    return TopUp.objects.get().status


def spend(house, amount):
    use(house, "search", amount, at=now())
    tick(at=now())


# --- when it buys -----------------------------------------------------------------------------------------------


def test_few_credits_are_topped_up_once_and_not_within_the_cooldown(house, fake, rule):
    give(house, 20, at=now())
    assert top_up_automatically(at=now()) == 0
    spend(house, 15)

    assert top_up_automatically(at=now()) == 1
    assert top_up_automatically(at=now()) == 0
    assert available(house) == 100
    assert amounts(fake) == [475]
    assert TopUp.objects.get().receipt_url

    spend(house, 95)
    assert top_up_automatically(at=now() + timedelta(minutes=59)) == 0
    assert top_up_automatically(at=now() + timedelta(minutes=61)) == 1


def test_a_rule_that_cannot_be_looked_at_stops_no_other(house, fake, card, caplog):
    globex = Customer.objects.create(key="globex", name="Globex")
    automatic.set_rule(customer=globex, **RULE)
    Customer.objects.filter(pk=globex.pk).update(timezone="Mars/Olympus")
    automatic.set_rule(customer=house, **RULE)

    assert top_up_automatically(at=now()) == 1
    assert available(house) == 100
    assert "could not be looked at" in caplog.text


def test_the_months_ceiling_holds(house, fake, rule):
    at = now()
    assert top_up_automatically(at=at) == 1
    spend(house, 100)
    TopUp.objects.update(created_at=at - timedelta(seconds=1))
    AutomaticTopUp.objects.update(cooldown_minutes=0)

    assert top_up_automatically(at=at) == 1
    assert amounts(fake) == [500, 250]
    TopUp.objects.update(created_at=at - timedelta(seconds=1))
    spend(house, 50)
    assert top_up_automatically(at=at) == 0
    assert automatic.spent(rule, at) == 150


def test_no_more_is_bought_than_is_sold_at_once(house, fake, rule):
    TopUpPrice.objects.update(most=D(60))
    assert top_up_automatically(at=now()) == 1
    assert amounts(fake) == [300]


def test_money_is_filled_up_with_what_can_be_paid(house, fake, card):
    give(house, "3.127", "USD", at=now())
    automatic.set_rule(customer=house, **RULE | {"unit": "USD"})
    assert top_up_automatically(at=now()) == 1
    assert TopUp.objects.get().amount == TopUp.objects.get().charge == D("96.87")
    assert amounts(fake) == [9687]


def test_without_a_saved_card_nothing_is_ordered(house, fake, rule):
    PaymentAccount.objects.all().delete()
    assert top_up_automatically(at=now()) == 0
    assert not TopUp.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"target": D(10)}, "target"),
        ({"monthly_ceiling": D(80)}, "monthly_ceiling"),
        ({"unit": "tokens"}, "unit"),
        ({"target": D(30)}, "target"),
    ],
)
def test_a_rule_that_could_not_work_is_refused(house, wrong, field):
    TopUpPrice.objects.update(least=D(50))
    with pytest.raises(Conflict) as refused:
        automatic.set_rule(customer=house, **RULE | wrong)
    assert refused.value.field == field


# --- never twice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("died_after", ["prepared", "confirmed"])
def test_a_charge_that_was_interrupted_is_not_made_again_after_a_day(house, fake, rule, monkeypatch, died_after):
    """Stripe has forgotten its idempotency keys by then; what is known is the payment's name, or that none was kept."""
    kept = services.settle

    def die(*args, **kwargs):
        raise SystemExit

    if died_after == "prepared":
        monkeypatch.setattr("billing.topups.stripe_payments.Stripe.charge", die)
    else:
        monkeypatch.setattr(services, "settle", die)
    with pytest.raises(SystemExit):
        top_up_automatically(at=now())
    monkeypatch.undo()
    assert services.settle is kept
    fake.forget_keys()

    later = now() + timedelta(hours=25)
    assert top_up_automatically(at=later) == 1
    assert top_up_automatically(at=later + LEASE) == 0
    assert amounts(fake) == [500]
    assert len(fake.made("payment_intent")) == 1
    assert CreditGrant.objects.get().amount == 100


def test_a_payment_whose_name_was_lost_was_only_prepared(house, fake, rule):
    top_up_automatically(at=now())
    TopUp.objects.update(payment="", status=TopUpStatus.PENDING, grant=None)  # as if it had died before keeping it
    fake.made("payment_intent")[0]["status"] = "requires_confirmation"
    fake.forget_keys()

    assert top_up_automatically(at=now() + timedelta(hours=25)) == 1
    assert amounts(fake) == [500]


def test_a_payment_that_takes_its_time_is_asked_about_and_not_made_again(house, fake, rule, monkeypatch):
    monkeypatch.setattr(fake, "_succeed", lambda intent: intent.update(status="processing") or intent)
    at = now()
    assert top_up_automatically(at=at) == 0
    assert top_up_automatically(at=at + LEASE) == 0
    assert len(fake.posts("/confirm")) == 1
    monkeypatch.undo()
    fake._succeed(fake.made("payment_intent")[0])
    assert top_up_automatically(at=at + 2 * LEASE) == 1
    assert len(fake.posts("/confirm")) == 1


def test_while_stripe_is_away_it_waits(house, fake, rule):
    fake.is_broken = True
    at = now()
    assert top_up_automatically(at=at) == 0
    fake.is_broken = False
    assert top_up_automatically(at=at) == 0  # somebody may still be at it
    assert top_up_automatically(at=at + LEASE) == 1
    assert amounts(fake) == [500]


# --- when the card does not want --------------------------------------------------------------------------------


def test_a_declined_card_grants_nothing_and_is_not_tried_again(house, fake, rule, alice, bob):
    fake.declines = "card_declined"
    assert top_up_automatically(at=now()) == 0
    assert top_up_automatically(at=now() + timedelta(days=2)) == 0

    top_up = TopUp.objects.get()
    assert (top_up.status, top_up.failure) == (TopUpStatus.FAILED, "Your card was declined.")
    assert available(house) == 0
    assert len(fake.posts("/confirm")) == 1
    [message] = OutboxMessage.objects.all()
    assert (message.recipient, message.cause) == (alice.email, top_up.public_id)
    assert "An automatic top-up failed: 100 credits for $5.00" in mail.subject(message)
    assert f"/c/acme/credits/top-ups/{top_up.public_id}" in mail.text(message)


@pytest.mark.parametrize("remedy", ["another card", "the rule saved again"])
def test_a_rule_goes_on_when_an_owner_has_looked_at_it(house, fake, rule, remedy):
    fake.declines = "card_declined"
    top_up_automatically(at=now())
    fake.declines = ""
    rule.refresh_from_db()
    assert rule.paused_because == "Your card was declined."
    if remedy == "another card":
        page = services.provider(house).card_page(house, None, "https://x.test/back")
        tell("checkout.session.completed", **fake.pay(page.rpartition("/")[2]))
    else:
        automatic.set_rule(customer=house, **RULE)
    assert top_up_automatically(at=now() + timedelta(minutes=61)) == 1


def test_a_bank_that_wants_the_customer_gets_them_and_nobody_tries_again(house, fake, rule, alice):
    fake.declines = "authentication_required"
    assert top_up_automatically(at=now()) == 0
    assert top_up_automatically(at=now() + timedelta(days=2)) == 0

    top_up = TopUp.objects.get()
    assert (top_up.status, available(house)) == (TopUpStatus.ACTION_REQUIRED, 0)
    assert len(fake.posts("/confirm")) == 1
    [message] = OutboxMessage.objects.all()
    assert message.recipient == alice.email
    assert "Please confirm a payment" in mail.subject(message)
    assert "Pay it now" in mail.html(message)

    begun = services.begin(top_up=top_up, at=now())
    assert fake.made("payment_intent")[0]["status"] == "canceled"
    tell("checkout.session.completed", **fake.pay(begun.reference))
    assert (status(), available(house)) == (TopUpStatus.PAID, 100)
    assert amounts(fake) == []  # the card was not charged beside it


def test_nobody_pays_what_the_card_is_being_charged_for(house, fake, rule):
    top_up = services.begin(top_up=automatic.order_if_due(rule=rule, at=now()), at=now())
    assert (top_up.url, fake.seen) == ("", [])


def test_nobody_pays_beside_a_charge_that_cannot_be_withdrawn(house, fake, rule):
    fake.declines = "authentication_required"
    top_up_automatically(at=now())
    fake.made("payment_intent")[0]["status"] = "processing"
    top_up = services.begin(top_up=TopUp.objects.get(), at=now())
    assert (top_up.url, fake.made("checkout.session")) == ("", [])
    assert top_up.payment


def test_what_the_bank_wanted_confirmed_may_be_cancelled(house, fake, rule):
    fake.declines = "authentication_required"
    top_up_automatically(at=now())
    services.cancel(top_up=TopUp.objects.get(), at=now())
    assert status() == TopUpStatus.FAILED
    assert fake.made("payment_intent")[0]["status"] == "canceled"
    assert top_up_automatically(at=now() + timedelta(days=2)) == 0


def test_that_a_charge_failed_may_be_told_by_stripe_first(house, fake, rule):
    top_up = automatic.order_if_due(rule=rule, at=now())
    payment = services.provider(house).prepare(top_up, PaymentAccount.objects.get())
    TopUp.objects.update(payment=payment)
    fake.declines = "card_declined"
    fake._confirm(fake.things[payment])
    tell("payment_intent.payment_failed", **fake.things[payment])
    assert status() == TopUpStatus.FAILED
    assert top_up_automatically(at=now()) == 0


def test_a_rule_is_read_again_before_it_buys(house, fake, rule):
    AutomaticTopUp.objects.update(is_active=False)
    assert automatic.order_if_due(rule=rule, at=now()) is None
    AutomaticTopUp.objects.update(is_active=True, paused_because="Your card was declined.")
    assert automatic.order_if_due(rule=rule, at=now()) is None
