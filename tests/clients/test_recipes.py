"""The functions of docs/recipes.md against recorded responses, down to what their meters count."""

import asyncio
import json
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from accounts.models import Scope
from billing import clock
from billing.metering.models import Meter
from billing.metering.queries import totals
from config.demo import ROOT
from tests.factories import bearer, fold, ingest, make_api_key

RECIPES = (ROOT / "docs" / "recipes.md").read_text()
RESPONSES = Path(__file__).parent / "responses"
ENDED_AT = datetime(2026, 11, 23, 10, 0)  # noqa: DTZ001 -- LiteLLM tells the local time, without a zone


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", RECIPES, re.DOTALL)


def recorded(name: str) -> Any:
    """A response with attributes, as the SDKs make them."""
    return json.loads((RESPONSES / f"{name}.json").read_text(), object_hook=lambda fields: SimpleNamespace(**fields))


@pytest.fixture
def recipes(monkeypatch) -> SimpleNamespace:
    """What the page defines. LiteLLM is no dependency: its base class, which does nothing, is stood in for."""
    loggers = ModuleType("litellm.integrations.custom_logger")
    loggers.CustomLogger = type("CustomLogger", (), {})
    for name, module in {"litellm": ModuleType("litellm"), "litellm.integrations": ModuleType("integrations")}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, loggers.__name__, loggers)
    defined: dict[str, Any] = {}
    exec("\n".join(blocks("python")), defined)  # noqa: S102 -- our own page
    defined["client"].close()
    return SimpleNamespace(**defined)


# input, cached, cache writes, output; they add up to what the response calls its total
TOKENS = {
    "openai_chat_completion": (86, 1920, 0, 300),
    "openai_chat_completion_without_details": (19, 0, 0, 10),
    "openai_response": (200, 2000, 400, 87),
    "anthropic_message": (21, 2048, 188, 393),
    "anthropic_message_without_cache": (12, 0, 0, 6),
    "litellm_anthropic": (10, 66360, 32435, 5120),
    "litellm_openai": (86, 1920, 0, 300),
}


def event_of(recipes: SimpleNamespace, name: str, **options: Any) -> dict[str, Any]:
    response = recorded(name)
    if name.startswith("openai_chat"):
        return recipes.chat_completion_event(response, **options)
    if name.startswith("openai"):
        return recipes.response_event(response, **options)
    if name.startswith("anthropic"):
        return recipes.message_event(response, **options)
    return recipes.litellm_event(response, ENDED_AT, **options)


@pytest.mark.parametrize("name", TOKENS)
def test_each_token_is_in_one_property(recipes, name):
    event = event_of(recipes, name, customer="acme", api_key="ingest")

    properties, response = event["properties"], recorded(name)
    names = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    assert tuple(properties[name] for name in names) == TOKENS[name]
    if hasattr(response.usage, "total_tokens"):
        assert sum(TOKENS[name]) == response.usage.total_tokens
    assert (event["id"], properties["model"], properties["api_key"]) == (response.id, response.model, "ingest")
    assert event["customer"] == "acme"


def test_the_meters_of_the_page_count_them_once_however_often_they_are_recorded(recipes, acme, client, connect, server):
    secret = make_api_key(Scope.BILLING_WRITE)[1]
    for meter in json.loads(blocks("json")[0]):
        answer = client.post("/api/v1/meters", meter, content_type="application/json", **bearer(secret))
        assert answer.status_code == 201, answer.content
    sender = connect()
    for name in [*TOKENS, *TOKENS]:
        sender.record(**{**event_of(recipes, name, customer="acme"), "timestamp": "2026-11-23T10:00:00Z"})
    assert sender.flush(20)

    now = clock.now()
    answer = ingest(*({**event, "timestamp": now.isoformat()} for event in server.stored.values()), at=now)
    fold(acme, at=now)

    assert answer.accepted == len(TOKENS)
    keys = {meter.pk: meter.key for meter in Meter.objects.all()}
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    counted = dict.fromkeys(keys.values(), 0)
    for total in totals(acme, starts_at=day, ends_at=day + timedelta(days=1), meter_ids=keys):
        counted[keys[total.meter_id]] += total.quantity
    expected = [sum(column) for column in zip(*TOKENS.values(), strict=True)]
    assert [
        counted[key] for key in ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    ] == expected


def test_litellm_calls_are_recorded_for_the_customer_they_name(recipes, connect, server):
    callback = recipes.HeadroomCallback(sender := connect())
    paid = {"litellm_params": {"metadata": {"headroom_customer": "acme"}}}
    ours: dict[str, Any] = {"litellm_params": {"metadata": None}}

    callback.log_success_event(paid, recorded("litellm_openai"), ENDED_AT, ENDED_AT)
    asyncio.run(callback.async_log_success_event(paid, recorded("litellm_anthropic"), ENDED_AT, ENDED_AT))
    callback.log_success_event(ours, recorded("litellm_openai"), ENDED_AT, ENDED_AT)

    assert sender.flush(20)
    assert [event["customer"] for event in server.stored.values()] == ["acme", "acme"]
    stamps = {datetime.fromisoformat(event["timestamp"]) for event in server.stored.values()}
    assert stamps == {ENDED_AT.astimezone()}
