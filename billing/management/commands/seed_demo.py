"""`manage.py seed_demo --json FILE`: a vendor, three customers and two weeks of usage to look at.

A second run changes nothing. The secrets it makes are written to FILE, readable by its owner alone, and nowhere else.
"""

import json
import os
import secrets
from argparse import ArgumentParser
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from itertools import batched
from pathlib import Path
from random import Random
from typing import Any

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
from billing.management.traffic import COMPLETION, PROFILES, SEARCH, history
from billing.metering import services as metering
from billing.money import mul_div
from billing.pricing import services as pricing
from billing.pricing.models import PlanVersion
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec, VersionSpec
from billing.subscriptions import queries as subscriptions_queries
from billing.subscriptions import services as subscriptions

DAYS = 13
CALLS_A_DAY = {"acme": 2400, "acme-labs": 120, "globex": 600}
# The budget is set so that 80 % is crossed a minute or two after the traffic starts.
USED = Decimal("0.794")
MILLION = Decimal(1_000_000)

CUSTOMERS: list[dict[str, Any]] = [
    {"key": "acme", "name": "Acme", "timezone": "Europe/Berlin", "email": "ap@acme.test"},
    {"key": "acme-labs", "name": "Acme Labs", "timezone": "America/New_York", "email": "ap@acme.test"},
    {"key": "globex", "name": "Globex", "timezone": "Asia/Kolkata", "email": "billing@globex.test"},
]
MEMBERS = [
    ("alice@acme.test", "Alice Adler", {"acme": Role.OWNER, "acme-labs": Role.BILLING}),
    ("bob@acme.test", "Bob Brandt", {"acme": Role.VIEWER}),
    ("charlie@globex.test", "Charlie Chatterjee", {"globex": Role.OWNER}),
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
        for fields in CUSTOMERS:
            if not Customer.objects.filter(key=fields["key"]).exists():
                accounts.create_customer(**fields, at=at)
        for email, name, roles in MEMBERS:
            user = _user(email, name, passwords[email])
            for key, role in roles.items():
                customer = Customer.objects.get(key=key)
                Membership.objects.get_or_create(user=user, customer=customer, defaults={"role": role})
        passwords["olivia@headroom.test"] = secrets.token_hex(6)
        _user("olivia@headroom.test", "Olivia Operator", passwords["olivia@headroom.test"], operator=True)
        _, secret = accounts.create_api_key(name="Demo", scopes=list(Scope), at=at)
        return {
            "operator_api_key": secret,
            "sign_ins": [{"role": role, "email": email, "password": passwords[email]} for role, email in SIGN_INS],
        }

    def _business(self, at: datetime) -> None:
        """Meters, a published plan, and a subscription for everybody since two weeks ago."""
        _meters(at)
        version = _plan(at)
        for customer in Customer.objects.all():
            subscriptions.start(customer=customer, version=version, starts_at=at - timedelta(days=DAYS), at=at)
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
            customer = Customer.objects.get(key=profile.customer)
            since = at - timedelta(days=DAYS)
            calls = CALLS_A_DAY[profile.customer]
            _ingest(history(profile, since=since, until=at, calls_a_day=calls, random=random), at)
            cycle.advance(customer_id=customer.pk, at=now())
            _budget(customer)


def _user(email: str, name: str, password: str, *, operator: bool = False) -> User:
    user, _ = User.objects.get_or_create(
        email=email, defaults={"name": name, "is_staff": operator, "is_superuser": operator}
    )
    user.set_password(password)
    user.save(update_fields=["password"])
    return user


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


def _plan(at: datetime) -> PlanVersion:
    plan = pricing.create_plan(key="pro", name="Pro", currency="USD", at=at)
    version = pricing.create_version(plan=plan, spec=PRO, at=at)
    return pricing.publish(version=version, at=at)


def _ingest(events: Iterable[dict[str, Any]], at: datetime) -> None:
    for batch in batched(events, 1000):
        body = json.dumps(batch).encode()
        metering.ingest(body=body, content_type="application/json", api_key=None, at=at)


def _budget(customer: Customer) -> None:
    """One budget with alerts at 50, 80 and 100 percent, in whole dollars: rounded up, so that 80 % lies ahead."""
    if customer.budgets.exists():
        return
    period = subscriptions_queries.default_range(customer, now())
    spent = credits_queries.spend(customer, unit="USD", interval=period)
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
