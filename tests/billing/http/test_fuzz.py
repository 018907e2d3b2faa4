"""What the schema allows, and what it does not, is sent to every operation: each answer must be one it documents.

Schemathesis writes the requests; Django answers them in this process, each in a savepoint that is rolled back.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection, transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as of_openapi

from billing.pricing.models import Plan
from billing.pricing.services import create_version
from billing.pricing.spec import PriceSpec, VersionSpec
from config.wsgi import application
from tests.access import world
from tests.factories import make_api_key

CHECKS: Final = [
    checks.not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_schema_conformance,
    of_openapi.ignored_auth,
]
BOUNDED: Final = settings(  # the same requests in every run
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def operations():
    schema = schemathesis.openapi.from_dict(
        Client(headers={"Accept": "application/json"}).get("/api/v1/schema/").json()
    )
    schema.app = application
    return [found.ok() for found in schema.get_all_operations()]


@pytest.fixture
def one_connection() -> Iterator[None]:
    """Requests keep the test's connection and transaction, as with Django's own client."""
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    yield
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)


@pytest.fixture
def known(acme, globex, alice) -> dict[str, Any]:
    """Values that lead to something, by the name of their parameter or field."""
    names = world.build(acme)
    at = datetime.now(UTC)
    price = PriceSpec(key="tokens", meter=names["meter"], unit="USD", unit_amount=Decimal("0.01"))
    draft = create_version(plan=Plan.objects.get(key=names["plan"]), spec=VersionSpec(prices=(price,)), at=at)
    return {
        "customer": acme.key,
        "plan": names["plan"],
        "meter": names["meter"],
        "budget_id": names["budget"],
        "subscription_id": names["subscription"],
        "clock_id": names["clock"],
        "test_clock": names["clock"],
        "now": "2026-11-24T09:00:00Z",
        "to": "2026-11-25T09:00:00Z",
        "public_id": names["grant"],
        "authorization": names["hold"],
        "number": draft.number,
        "unit": "USD",
        "amount": "12.5",
        "id": names["event"],
    }


# More requests of each operation find more, and take longer.
@pytest.mark.usefixtures("one_connection")
@pytest.mark.parametrize(("whose", "requests"), [("operator", 12), ("customer", 4), ("nobody", 2)])
def test_every_answer_is_documented(whose, requests, operations, known, acme):
    secret = {"operator": make_api_key()[1], "customer": make_api_key(customer=acme)[1], "nobody": None}[whose]
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    succeeded: set[str] = set()
    wrong = [message for operation in operations if (message := _tried(operation, headers, known, requests, succeeded))]
    assert not wrong, "\n\n".join(wrong)
    if whose == "operator":  # a schema that allows what is refused would test refusals only
        assert len(succeeded) > 0.8 * len(operations), {one.label for one in operations} - succeeded


def _tried(operation, headers: Mapping[str, str], known: Mapping[str, Any], requests: int, succeeded: set[str]) -> str:
    """The first answer of the operation that breaks its word; empty when none does. Notes whether any was a success."""

    @settings(BOUNDED, max_examples=requests)
    @given(_requests(operation, known))
    def every_answer_conforms(case):
        with transaction.atomic():
            answer = case.call_and_validate(headers=dict(headers), checks=CHECKS)
            if answer.status_code < 300:
                succeeded.add(operation.label)
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # as its commit would
            transaction.set_rollback(True)

    try:
        every_answer_conforms()
    except BaseExceptionGroup as failures:
        return f"{operation.label}\n{failures}"
    return ""


def _requests(operation, known: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    right, wrong = operation.as_strategy(), operation.as_strategy(GenerationMode.NEGATIVE)
    return st.one_of(right.map(lambda case: _aimed(case, known)), right, wrong)


def _aimed(case, known: Mapping[str, Any]):
    """The request, about what exists."""
    one = case.path.split("/")[3].removesuffix("s")  # of the collection: a customer, an authorization
    ids = {"key": known.get(one), "public_id": known.get(one, known["public_id"])}
    case.path_parameters = _filled(case.path_parameters, {**known, **ids})
    case.query = _filled(case.query, known)
    case.body = _filled(case.body, known)
    return case


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: known[name] if name in known else _filled(item, known) for name, item in value.items()}
