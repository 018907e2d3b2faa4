"""`manage.py seed_demo --json FILE`: a vendor, its customers, one of them for each model of pricing, and two weeks of
usage to look at.

A second run changes nothing. The secrets it makes are written to FILE, readable by its owner alone, and nowhere else.
"""

import json
import os
import secrets
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import partial
from itertools import batched
from pathlib import Path
from random import Random
from typing import Any

from django.contrib.auth.hashers import make_password
from django.core.management.base import BaseCommand
from django.db import transaction

from accounts import services as accounts
from accounts.models import Customer, Membership, Role, Scope, User
from billing.budgets import services as budgets
from billing.budgets.validation import ThresholdSpec
from billing.clock import now
from billing.credits import queries as credits_queries
from billing.credits import services as credits
from billing.credits.models import GrantKind
from billing.cycle import services as cycle
from billing.management.showcase import CAPPED, COSTS, CREDITS, OUTCOMES, REASON, SHOWCASES, Call, is_reopened
from billing.management.traffic import COMPLETION, PROFILES, SEARCH, events, history
from billing.metering import ingesting
from billing.metering import services as metering
from billing.metering.correcting import void_event
from billing.metering.models import Meter, UsageDelta
from billing.money import mul_div
from billing.pricing import services as pricing
from billing.pricing.agreements import create_coupon
from billing.pricing.costs import record_cost
from billing.pricing.models import CouponDuration, PlanVersion
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec, VersionSpec
from billing.subscriptions import queries as subscriptions_queries
from billing.subscriptions import services as subscriptions
from billing.subscriptions.coupons import redeem
from billing.subscriptions.models import Subscription
from billing.topups.models import TopUpPrice

DAYS = 13
CALLS_A_DAY = {"acme": 2400, "acme-labs": 120}
# The budget is set so that 80 % is crossed a minute or two after the traffic starts.
USED = Decimal("0.794")
MILLION = Decimal(1_000_000)

FOR_SALE: dict[str, Any] = {
    "unit": "credits",
    "currency": "USD",
    "unit_amount": Decimal("0.01"),
    "least": Decimal(500),
    "most": Decimal(100_000),
    "choices": [Decimal(1000), Decimal(5000), Decimal(25_000)],
}

CUSTOMERS: list[dict[str, Any]] = [
    {"key": "acme", "name": "Acme", "timezone": "Europe/Berlin", "email": "ap@acme.test"},
    {"key": "acme-labs", "name": "Acme Labs", "timezone": "America/New_York", "email": "ap@acme.test"},
]
MEMBERS = [
    ("alice@acme.test", "Alice Adler", {"acme": Role.OWNER, "acme-labs": Role.BILLING}),
    ("bob@acme.test", "Bob Brandt", {"acme": Role.VIEWER}),
]
SIGN_INS = [("owner", "alice@acme.test"), ("viewer", "bob@acme.test"), ("operator", "olivia@headroom.test")]


def _price(key: str, default: str, large: str, nano: str) -> PriceSpec:
    rows = (
        MatchSpec({"model": "large-2"}, Decimal(large)),
        MatchSpec({"model": "nano-1"}, Decimal(nano)),
    )
    return PriceSpec(key=key, meter=key, unit="USD", unit_amount=Decimal(default), per=MILLION, match=rows)


PRO = VersionSpec(
    base_fee=Decimal(20),
    credits=(CreditSpec("credits", Decimal(4000)),),
    prices=(
        _price("input_tokens", default="0.60", large="5.00", nano="0.10"),
        _price("output_tokens", default="2.40", large="20.00", nano="0.40"),
        PriceSpec(key="searches", meter="searches", unit="credits", unit_amount=Decimal(1)),
    ),
    overage=(OverageSpec("credits", Decimal("0.012")),),
)


class Command(BaseCommand):
    help = "Fill an empty database with the demo."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", type=Path, required=True, help="where the sign-ins and the key are kept")

    def handle(self, *args: Any, **options: Any) -> None:
        kept: Path = options["json"]
        if Customer.objects.filter(key="acme").exists() and kept.exists():
            return
        at = now()
        with transaction.atomic():
            secrets_made = self._people(at)
            if not Customer.objects.filter(subscriptions__isnull=False).exists():
                self._business(at)
        self._money(at)
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(secrets_made, file, indent=2)

    def _people(self, at: datetime) -> dict[str, Any]:
        """Users with new passwords, their customers, and a new operator key."""
        passwords = {email: secrets.token_hex(6) for email, _, _ in MEMBERS}
        for fields in [*CUSTOMERS, *(one.customer for one in SHOWCASES)]:
            if not Customer.objects.filter(key=fields["key"]).exists():
                accounts.create_customer(**fields, at=at)
        for email, name, roles in MEMBERS:
            _member(_user(email, name, make_password(passwords[email])), roles)
        # One password for the five: each hash takes as long as it takes to guess at one.
        shared = secrets.token_hex(6)
        hashed = make_password(shared)
        for one in SHOWCASES:
            email, name = one.owner
            passwords[email] = shared
            _member(_user(email, name, hashed), {one.key: Role.OWNER})
        passwords["olivia@headroom.test"] = secrets.token_hex(6)
        hashed = make_password(passwords["olivia@headroom.test"])
        _user("olivia@headroom.test", "Olivia Operator", hashed, operator=True)
        _, secret = accounts.create_api_key(name="Demo", scopes=list(Scope), at=at)
        return {
            "operator_api_key": secret,
            "sign_ins": [{"role": role, "email": email, "password": passwords[email]} for role, email in SIGN_INS],
            "models": [
                {"model": one.model, "customer": one.key, "email": one.owner[0], "password": passwords[one.owner[0]]}
                for one in SHOWCASES
            ],
        }

    def _business(self, at: datetime) -> None:
        """Meters, published plans, and a subscription for everybody since two weeks ago."""
        _meters(at)
        pro = _plan("pro", "Pro", PRO, at)
        for fields in CUSTOMERS:
            _subscribe(fields["key"], pro, at)
        for one in SHOWCASES:
            for meter in one.meters:
                metering.create_meter(**meter, at=at)
            _subscribe(one.key, _plan(*one.plan, one.spec, at), at)
        TopUpPrice.objects.create(**FOR_SALE)
        _costs(at)
        credits.grant(
            customer=Customer.objects.get(key=CREDITS.key),
            unit="credits",
            amount=Decimal(2000),
            kind=GrantKind.PAID,
            cost_basis=Decimal("0.02"),
            effective_at=at - timedelta(days=DAYS),
            reason="Pack of 2,000",
            at=at,
        )
        coupon = create_coupon(
            key="launch", name="Launch offer", percent=Decimal(20), duration=CouponDuration.PERIODS, periods=3, at=at
        )
        redeem(subscription=Subscription.objects.get(customer__key=CAPPED.key), coupon=coupon, at=at)
        acme = Customer.objects.get(key="acme")
        credits.grant(
            customer=acme,
            unit="credits",
            amount=Decimal(1500),
            kind=GrantKind.PROMOTIONAL,
            effective_at=at - timedelta(days=DAYS),
            expires_at=at + timedelta(days=9),
            reason="Welcome",
            priority=5,
            at=at,
        )

    def _money(self, at: datetime) -> None:
        """Usage until now, counted and settled, and a budget that it nearly fills."""
        random = Random(2026)
        for profile in PROFILES:
            if profile.customer in CALLS_A_DAY:
                _use(profile.customer, partial(events, profile), CALLS_A_DAY[profile.customer], at, random)
        for one in SHOWCASES:
            used = _use(one.key, one.call, one.calls_a_day, at, random)
            if one is OUTCOMES:
                _reopen(used, at, random)
            cycle.advance(customer_id=Customer.objects.get(key=one.key).pk, at=now())


def _use(key: str, call: Call, calls_a_day: int, at: datetime, random: Random) -> list[dict[str, Any]]:
    """Two weeks of usage of a customer, and its budget."""
    customer = Customer.objects.get(key=key)
    used = list(history(call, since=at - timedelta(days=DAYS), until=at, calls_a_day=calls_a_day, random=random))
    _ingest(used, at)
    while UsageDelta.objects.filter(customer=customer).exists():  # a turn counts so many, and the budget wants all
        cycle.advance(customer_id=customer.pk, at=now())
    _budget(customer)
    return used


def _reopen(used: Iterable[dict[str, Any]], at: datetime, random: Random) -> None:
    """Some tickets came back in time, and are not charged."""
    for event in used:
        if is_reopened(event, random):
            void_event(source=event["source"], event_id=event["id"], reason=REASON, at=at)


def _subscribe(key: str, version: PlanVersion, at: datetime) -> None:
    customer = Customer.objects.get(key=key)
    subscriptions.start(customer=customer, version=version, starts_at=at - timedelta(days=DAYS), at=at)


def _user(email: str, name: str, hashed: str, *, operator: bool = False) -> User:
    user, _ = User.objects.get_or_create(
        email=email, defaults={"name": name, "is_staff": operator, "is_superuser": operator}
    )
    user.password = hashed
    user.save(update_fields=["password"])
    return user


def _member(user: User, roles: Mapping[str, Role]) -> None:
    for key, role in roles.items():
        customer = Customer.objects.get(key=key)
        Membership.objects.get_or_create(user=user, customer=customer, defaults={"role": role})


def _meters(at: datetime) -> None:
    for key in ("input_tokens", "output_tokens"):
        metering.create_meter(
            key=key,
            name=key.replace("_", " ").capitalize(),
            unit="token",
            event_type=COMPLETION,
            aggregation="sum",
            value=key,
            dimensions=["model", "api_key"],
            at=at,
        )
    metering.create_meter(
        key="searches",
        name="Searches",
        unit="search",
        event_type=SEARCH,
        aggregation="count",
        dimensions=["api_key"],
        at=at,
    )


def _costs(at: datetime) -> None:
    for cost in COSTS:
        record_cost(
            meter=Meter.objects.get(key=cost.meter),
            where=cost.where,
            unit_amount=Decimal(cost.amount),
            per=cost.per,
            effective_at=at - timedelta(days=cost.days_ago),
            source="Contract",
            at=at,
        )


def _plan(key: str, name: str, spec: VersionSpec, at: datetime) -> PlanVersion:
    plan = pricing.create_plan(key=key, name=name, currency="USD", is_listed=True, at=at)
    version = pricing.create_version(plan=plan, spec=spec, at=at)
    return pricing.publish(version=version, at=at)


def _ingest(events: Iterable[dict[str, Any]], at: datetime) -> None:
    for batch in batched(events, 1000):
        body = json.dumps(batch).encode()
        ingesting.ingest(body=body, content_type="application/json", api_key=None, at=at)


def _budget(customer: Customer) -> None:
    """One budget with alerts at 50, 80 and 100 percent, in whole dollars: rounded up, so that 80 % lies ahead. None for
    who pays in credits alone."""
    period = subscriptions_queries.default_range(customer, now())
    spent = credits_queries.spend(customer, unit="USD", interval=period)
    if customer.budgets.exists() or not spent:
        return
    amount = max(Decimal(5), mul_div(spent, Decimal(1), USED).to_integral_value(ROUND_CEILING))
    budgets.create_budget(
        customer=customer,
        name="Production",
        unit="USD",
        amount=amount,
        thresholds=[ThresholdSpec(percent=Decimal(percent)) for percent in (50, 80, 100)],
        recipients=["owners"],
        at=now(),
    )
