"""What pages cost with the demo's data, beside a page that asks nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from tempfile import TemporaryDirectory
from typing import Any

from django.core.cache import caches
from django.core.management import call_command
from django.db import connection, connections
from django.http import HttpResponseBase
from django.test import Client

from accounts.models import Customer, User
from billing.metering.queries import freshness as current_freshness
from dashboard.building import version_of
from tests.benchmarks import stage

TIMES = 30
PAGE = "/c/acme/"


def run() -> None:
    """milliseconds of the whole stack of one process (sessions, sign-in, queries, template), processor time of it,
    and queries, for Acme of the demo: 13 days, 31,200 calls. The forecast is kept for a minute, so it is not in the
    times but in the row that says so. Baseline: /healthz."""
    with TemporaryDirectory() as folder:
        call_command("seed_demo", json=f"{folder}/seed.json")
    connection.settings_dict["CONN_MAX_AGE"] = None  # as with the pool
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.get(email="alice@acme.test"))
    version = version_of(current_freshness(Customer.objects.get(key="acme")))

    def get(address: str) -> Callable[[], HttpResponseBase]:
        return lambda: client.get(address)

    def forgetful() -> HttpResponseBase:
        caches["process"].clear()
        return client.get(PAGE)

    asked = {
        "/healthz": get("/healthz"),
        "live, nothing new": get(f"{PAGE}live?v={version}"),
        "live, changed": get(f"{PAGE}live?v=0"),
        "overview": get(PAGE),
        "overview with a new forecast": forgetful,
        "CSV": get(f"{PAGE}spend.csv"),
        "credits": get(f"{PAGE}credits"),
        "credits live, changed": get(f"{PAGE}credits/live?v=0"),
        "plan and pricing": get(f"{PAGE}plan"),
        "plan and pricing live, changed": get(f"{PAGE}plan/live?v=0"),
        "budget": get(f"{PAGE}budget"),
    }
    print(f"{'':<31} {'p50 ms':>7} {'p95 ms':>7} {'CPU ms':>7} {'queries':>8} {'p50 / healthz':>14}")
    base = 0.0
    for name, ask in asked.items():
        cost = _measured(ask)
        base = base or cost.median
        print(f"{name:<31} {cost.median:>7.1f} {cost.late:>7.1f} {cost.processor:>7.1f} {cost.queries:>8}", end="")
        print(f" {cost.median / base:>14.1f}", flush=True)
    connections.close_all()


@dataclass(frozen=True, slots=True)
class Cost:
    median: float
    late: float
    processor: float
    queries: int


def _measured(ask: Callable[[], HttpResponseBase]) -> Cost:
    _read(ask)  # warm
    queries = 0

    def count(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*arguments)

    with connection.execute_wrapper(count):
        _read(ask)
    seconds: list[float] = []
    spent = time.process_time()
    for _ in range(TIMES):
        begun = time.perf_counter()
        _read(ask)
        seconds.append(1000 * (time.perf_counter() - begun))
    at = stage.centiles(seconds)
    return Cost(at[50], at[95], 1000 * (time.process_time() - spent) / TIMES, queries)


def _read(ask: Callable[[], HttpResponseBase]) -> None:
    """To its last byte."""
    response = ask()
    assert response.status_code in (HTTPStatus.OK, HTTPStatus.NO_CONTENT), response.status_code
    for _ in response if response.streaming else ():
        pass
    response.close()
