"""A command that a newcomer can copy: it sends one event that moves the page."""

import json
import shlex
from typing import Any

from django.http import HttpRequest

from billing.metering.models import Aggregation, Meter
from dashboard.reading import Reading

VALUES = {"model": "large-2", "api_key": "my-first-key"}  # of dimensions; others get a word that says what they are


def first_event(request: HttpRequest, reading: Reading) -> str:
    """A curl line with an event that a meter of the customer counts; without one, of the usual shape."""
    meter = next(iter(reading.meters.values()), None) or Meter.objects.first()
    event = {
        "id": "first-1",
        "type": meter.event_type if meter else "llm.completion",
        "customer": reading.customer.key,
        "properties": _properties(meter) if meter else {"model": "large-2", "input_tokens": 1200},
    }
    return " \\\n  ".join(
        [
            f"curl {request.build_absolute_uri('/api/v1/events')}",
            '-H "Authorization: Bearer $HEADROOM_API_KEY"',
            '-H "Content-Type: application/json"',
            f"-d {shlex.quote(json.dumps(event))}",
        ]
    )


def _properties(meter: Meter) -> dict[str, Any]:
    """Properties that the meter counts: its value at its dotted path, its dimensions by name."""
    properties: dict[str, Any] = {name: VALUES.get(name, f"some-{name}") for name in meter.dimensions}
    if meter.aggregation == Aggregation.SUM:
        *path, last = meter.value.split(".")
        place = properties
        for name in path:
            place = place.setdefault(name, {})
        place[last] = 1200
    return properties
