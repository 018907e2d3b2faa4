"""Rows for tests: small, dull, and no more than what is asked for."""

from typing import Any

from billing.metering.models import Meter
from billing.pricing.models import Plan


def make_meter(key: str = "tokens", **fields: Any) -> Meter:
    """A meter; it sums the property of its own name unless told otherwise."""
    aggregation = fields.setdefault("aggregation", "sum")
    fields.setdefault("value", key if aggregation == "sum" else "")
    return Meter.objects.create(**{"key": key, "name": key, "unit": "token", "event_type": "llm.completion", **fields})


def make_plan(key: str = "pro", **fields: Any) -> Plan:
    return Plan.objects.create(**{"key": key, "name": key.capitalize(), "currency": "USD", **fields})
