"""Rows for tests: small, dull, and no more than what is asked for."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from accounts.auth import digest
from accounts.models import ApiKey, Customer, Scope
from billing.metering import ingesting
from billing.metering import services as metering
from billing.metering.models import Meter
from billing.pricing.models import Plan, PlanVersion
from billing.pricing.services import create_version, publish
from billing.pricing.spec import VersionSpec
from billing.subscriptions.models import Subscription
from billing.subscriptions.services import start

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def make_meter(key: str = "tokens", **fields: Any) -> Meter:
    """A meter; it sums (or takes) the property of its own name unless told otherwise."""
    aggregation = fields.setdefault("aggregation", "sum")
    fields.setdefault("value", "" if aggregation == "count" else key)
    return Meter.objects.create(**{"key": key, "name": key, "unit": "token", "event_type": "llm.completion", **fields})


def make_plan(key: str = "pro", **fields: Any) -> Plan:
    return Plan.objects.create(**{"key": key, "name": key.capitalize(), "currency": "USD", **fields})


def make_api_key(*scopes: Scope, customer: Customer | None = None, **fields: Any) -> tuple[ApiKey, str]:
    """The key and its secret. Without scopes and customer: an operator key that may do everything."""
    secret = f"hr_{secrets.token_urlsafe(24)}"
    granted = [] if customer else list(scopes or Scope)
    values = {"name": "test", "prefix": secret[:10], "digest": digest(secret), **fields}
    return ApiKey.objects.create(customer=customer, scopes=granted, **values), secret


def bearer(secret: str) -> dict[str, Any]:
    """Keyword arguments for Django's test client: `client.get(url, **bearer(secret))`."""
    return {"headers": {"Authorization": f"Bearer {secret}"}}


def event(event_id: str, customer: str = "acme", **fields: Any) -> dict[str, Any]:
    """An event as a sender writes it; what is no field of its own becomes a property."""
    known = {"source", "type", "timestamp", "authorization", "properties"}
    sent = {"id": event_id, "customer": customer, "type": "llm.completion"}
    sent |= {name: value for name, value in fields.items() if name in known}
    properties = {name: value for name, value in fields.items() if name not in known}
    return sent | ({"properties": properties} if properties else {})


def ingest(*events: dict[str, Any], at: datetime, backfill: bool = False) -> ingesting.IngestAnswer:
    """Take events as the API does."""
    body = json.dumps(events, default=str).encode()
    return ingesting.ingest(body=body, content_type="application/json", api_key=None, at=at, backfill=backfill)


def fold(customer: Customer, *, at: datetime) -> datetime | None:
    """Count what was taken, as the tick does."""
    with transaction.atomic():
        metering.claim(customer_id=customer.pk)
        return metering.fold(customer_id=customer.pk, at=at)


def make_version(plan: Plan, *, published_at: datetime = LONG_AGO, **spec: Any) -> PlanVersion:
    """A published version; `prices` are PriceSpecs."""
    draft = create_version(plan=plan, spec=VersionSpec(**spec), at=published_at)
    return publish(version=draft, at=published_at)


def make_subscription(customer: Customer, version: PlanVersion, starts_at: datetime, **fields: Any) -> Subscription:
    """Started as if at its very start, so that only the first period exists."""
    return start(customer=customer, version=version, starts_at=starts_at, **{"at": starts_at, **fields})
