"""The schema is valid, complete, and says of every endpoint what all have in common."""

import pytest
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema


@pytest.fixture(scope="module")
def schema():
    GENERATOR_STATS.reset()
    made = SchemaGenerator().get_schema(request=None, public=True)
    assert not GENERATOR_STATS, "drf-spectacular guessed: see its warnings"
    return made


@pytest.fixture(scope="module")
def operations(schema):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }


def parameters(operation):
    return {parameter["name"] for parameter in operation.get("parameters", [])}


def test_it_is_valid(schema):
    validate_schema(schema)
    assert schema["openapi"] == "3.1.1"


def test_every_post_but_of_events_takes_an_idempotency_key(operations):
    posts = {name for name in operations if name.startswith("POST")}
    without = {name for name in posts if "Idempotency-Key" not in parameters(operations[name])}
    assert without == {"POST /api/v1/events"}


def test_every_list_says_how_it_is_paged(operations):
    lists = {name: parameters(one) for name, one in operations.items() if one["operationId"].endswith("_list")}
    assert lists
    assert [name for name, sent in lists.items() if not {"cursor", "limit"} <= sent] == []


def test_what_only_has_its_neutral_value_so_far_says_which(schema):
    fields = schema["components"]["schemas"]
    assert fields["BudgetBodyRequest"]["properties"]["scope"]["anyOf"] == [{"const": {}}, {"const": {"where": {}}}]


def test_every_operation_says_which_errors_it_may_answer_with(operations):
    def errors(name):
        return [status for status in operations[name]["responses"] if status >= "400"]

    assert errors("GET /api/v1/plans") == ["400", "401", "403", "406", "503"]
    assert errors("PATCH /api/v1/meters/{key}") == ["400", "401", "403", "404", "406", "409", "413", "415", "503"]
    assert errors("POST /api/v1/events") == ["400", "401", "403", "404", "406", "411", "413", "415", "429", "503"]
    assert {"404", "422"} <= set(errors("GET /api/v1/customers/{key}/usage"))


def test_every_operation_describes_itself_its_keys_and_its_errors(operations):
    assert [name for name, one in operations.items() if "Needs the scope" not in one["description"]] == []
    assert [name for name, one in operations.items() if one["description"].startswith("Needs")] == []
    assert [name for name, one in operations.items() if not {"400", "401", "403", "503"} <= set(one["responses"])] == []
    assert [name for name, one in operations.items() if one["security"] != [{"apiKey": []}]] == []


def test_bodies_allow_no_other_fields_and_answers_may_get_more(schema):
    fields = schema["components"]["schemas"]
    bodies = [name for name in fields if name.endswith("Request") and name != "IngestBodyRequest"]
    assert bodies
    assert [name for name in bodies if fields[name].get("additionalProperties") is not False] == []
    assert "additionalProperties" not in fields["MeterRow"]
    assert len(fields["IngestBodyRequest"]["oneOf"]) == 3


def test_it_is_json_for_whoever_asks_for_json(client):
    assert client.get("/api/v1/schema/?format=json").json()["openapi"] == "3.1.1"
    assert client.get("/api/v1/schema/", headers={"Accept": "application/json"}).json()["openapi"] == "3.1.1"
    assert client.get("/api/v1/schema/").content.startswith(b"openapi: 3.1.1")
    assert client.get("/api/v1/schema/?format=xml").status_code == 404
