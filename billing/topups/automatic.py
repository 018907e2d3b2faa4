"""Automatic top-ups: rules of the customer's owners, and what they order. At most once for each time that it is due."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Sum

from accounts.models import Customer
from billing.authorizations.queries import balances
from billing.errors import Conflict
from billing.money import ZERO, display, exact
from billing.periods import calendar_period
from billing.topups import queries, services
from billing.topups.models import AutomaticTopUp, TopUp, TopUpStatus
from billing.topups.payments import Outcome, Progress, Refused, Unavailable
from billing.topups.providers import provider

logger = logging.getLogger(__name__)

LEASE: Final = timedelta(minutes=2)  # longer than asking the provider may take


@transaction.atomic
@exact()
def set_rule(
    *,
    customer: Customer,
    unit: str,
    threshold: Decimal,
    target: Decimal,
    monthly_ceiling: Decimal,
    cooldown_minutes: int,
    is_active: bool,
) -> AutomaticTopUp:
    """Buy up to `target` when less than `threshold` is available. Saving it ends a pause. Conflict `not_for_sale`,
    `wrong_rule`."""
    offer = queries.offer(customer, unit)
    if offer is None:
        raise Conflict(f"{unit} cannot be bought in {customer.currency}.", code="not_for_sale", field="unit")
    _check(offer, target - threshold, monthly_ceiling)
    said = {
        "threshold": threshold,
        "target": target,
        "monthly_ceiling": monthly_ceiling,
        "cooldown_minutes": cooldown_minutes,
        "is_active": is_active,
        "paused_because": "",
    }
    rule, _ = AutomaticTopUp.objects.update_or_create(customer=customer, unit=unit, defaults=said)
    return rule


def _check(offer: queries.Offer, bought: Decimal, monthly_ceiling: Decimal) -> None:
    """`bought`: what a top-up buys at least."""
    if bought <= 0:
        raise Conflict("Fill up to more than the level at which it buys.", code="wrong_rule", field="target")
    if offer.least is not None and bought < offer.least:
        sentence = f"{offer.refusal(bought)} Fill up to at least that much above the level at which it buys."
        raise Conflict(sentence, code="wrong_rule", field="target")
    if monthly_ceiling < bought:
        least = f"Allow at least what one top-up buys, {display(bought, offer.unit)}."
        raise Conflict(least, code="wrong_rule", field="monthly_ceiling")


def top_up_automatically(*, at: datetime) -> int:
    """Order what is due, then charge what is ordered; how many were paid. A lost run loses nothing, and two at once
    order and charge once."""
    rules = AutomaticTopUp.objects.filter(is_active=True, paused_because="", customer__test_clock=None)
    _each(rules.select_related("customer").order_by("pk"), lambda rule: order_if_due(rule=rule, at=at))
    waiting = TopUp.objects.filter(status=TopUpStatus.PENDING, is_automatic=True, reference="")
    return _each(waiting.select_related("customer").order_by("pk"), lambda top_up: _charge(top_up, at))


def _each[One: (AutomaticTopUp, TopUp)](ones: Iterable[One], act: Callable[[One], object]) -> int:
    """For how many something was done. What is wrong with one customer must not stop the others."""
    done = 0
    for one in ones:
        try:
            done += bool(act(one))
        except Exception:
            logger.exception("%s could not be looked at", one)
    return done


@transaction.atomic
@exact()
def order_if_due(*, rule: AutomaticTopUp, at: datetime) -> TopUp | None:
    """The top-up that the rule asks for now; None for nothing. One at a time: another sees what this one ordered, and
    what the owners have changed since the rule was read."""
    rule = AutomaticTopUp.objects.select_for_update(of=["self"]).select_related("customer").get(pk=rule.pk)
    if not rule.is_active or rule.paused_because:
        return None
    mine = TopUp.objects.filter(customer=rule.customer, unit=rule.unit, is_automatic=True)
    if mine.filter(status__in=services.OPEN).exists():  # looked at first: it may end while we ask for the balance
        return None
    missing = _sold_at_once(rule, _missing(rule, at))
    if missing <= 0 or queries.payment_account(rule.customer, provider(rule.customer).name) is None:
        return None
    try:
        with transaction.atomic():
            top_up = services.new(rule.customer, rule.unit, missing, at)
            top_up.is_automatic = True
            top_up.save()
    except (IntegrityError, Conflict):
        return None
    return top_up


def _missing(rule: AutomaticTopUp, at: datetime) -> Decimal:
    """How much to buy: up to the target and within the month's ceiling; none above the threshold or too soon."""
    mine = TopUp.objects.filter(customer=rule.customer, unit=rule.unit, is_automatic=True)
    if mine.filter(created_at__gt=at - timedelta(minutes=rule.cooldown_minutes)).exists():
        return ZERO
    available = next((one.available for one in balances(rule.customer, at) if one.unit == rule.unit), ZERO)
    if available >= rule.threshold:
        return ZERO
    wanted: Decimal = min(rule.target - available, rule.monthly_ceiling - spent(rule, at))
    return wanted


def _sold_at_once(rule: AutomaticTopUp, wanted: Decimal) -> Decimal:
    offer = queries.offer(rule.customer, rule.unit)
    if offer is None:
        return ZERO
    return offer.in_coins(wanted if offer.most is None else min(wanted, offer.most))


def spent(rule: AutomaticTopUp, at: datetime) -> Decimal:
    """How much of the ceiling is gone in this calendar month of the customer: bought, or about to be."""
    month = calendar_period("month", at, rule.customer.timezone)
    mine = TopUp.objects.filter(customer=rule.customer, unit=rule.unit, is_automatic=True, created_at__gte=month.start)
    bought: Decimal | None = mine.exclude(status=TopUpStatus.FAILED).aggregate(sum=Sum("amount"))["sum"]
    return bought or ZERO


def _charge(top_up: TopUp, at: datetime) -> bool:
    """Charge the saved card. Until it is known what came of it, the top-up waits, and is asked about by its name."""
    if not services.claim(top_up=top_up, every=LEASE, at=at):
        return False
    try:
        outcome = _charged(top_up)
    except Refused as refused:
        outcome = Outcome(Progress.FAILED, failure=str(refused))
    except Unavailable as away:
        logger.warning("Top-up %s could not be charged now, and is asked about again: %s", top_up.public_id, away)
        return False
    settled = services.settle(public_id=top_up.public_id, outcome=outcome, at=at)
    return settled is not None and settled.status == TopUpStatus.PAID


def _charged(top_up: TopUp) -> Outcome:
    if not top_up.payment:
        account = queries.payment_account(top_up.customer, top_up.provider)
        if account is None:
            raise Refused("There is no saved card.")
        top_up.payment = provider(top_up.customer).prepare(top_up, account)
        TopUp.objects.filter(pk=top_up.pk).update(payment=top_up.payment)
    return provider(top_up.customer).charge(top_up)
