"""What the OpenAPI schema says of every endpoint alike: paging, Idempotency-Key, scopes and errors."""

from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS
from rest_framework.serializers import Serializer

from billing.http.errors import PROBLEM
from billing.http.fields import StrictSerializer
from billing.http.idempotency import MAX_LENGTH
from billing.http.paging import DEFAULT_LIMIT, MAX_LIMIT

PAGING = [
    OpenApiParameter("cursor", str, description="`next_cursor` of the page before; the first page when absent."),
    OpenApiParameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}, description="Rows."
    ),
]
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description="Repeats of a request that succeeded get its answer again for 24 h and change nothing.",
)

ERRORS = {
    400: "Something that was sent is wrong: `errors` names the fields.",
    401: "The key is missing, unknown, expired or revoked.",
    403: "The key may not do this.",
    404: "There is no such thing, or it belongs to somebody else.",
    406: "It cannot be written as the `Accept` header asks.",
    409: "It contradicts what is there, or the Idempotency-Key was used before.",
    410: "It was here and is archived now.",
    411: "The body has no Content-Length.",
    413: "The body is too large.",
    415: "The body has a type or an encoding that is not taken here.",
    422: "The answer would have too many rows.",
    429: "This key has sent too much: send the same request again after `Retry-After` seconds.",
    503: "The database is busy or away: send the same request again.",
}


class FieldErrorBody(Serializer[Any]):
    field = serializers.CharField(help_text="Dotted path; empty for the whole body.")
    code = serializers.CharField()
    detail = serializers.CharField()


class Problem(Serializer[Any]):
    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable, for programs.")
    detail = serializers.CharField(help_text="For people.")
    errors = FieldErrorBody(many=True)  # type: ignore[assignment]  # a field hides an attribute of serializers


class Schema(AutoSchema):
    """drf-spectacular's, with the manners of ApiView."""

    view: Any
    method: str
    path: str

    def get_override_parameters(self) -> list[OpenApiParameter | Serializer[Any] | type[Serializer[Any]]]:
        if self.method == "POST" and getattr(self.view, "idempotent", False):
            return [IDEMPOTENCY_KEY]
        return [*PAGING] if self.method == "GET" and self.get_operation_id().endswith("_list") else []

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular has it
        """The docstring, and which keys may."""
        description = str(super().get_description())
        verb = "read" if self.method in SAFE_METHODS else "write"
        scope = getattr(self.view, f"{verb}_scope", None)
        if scope is None:
            return description
        keys = f"Needs the scope `{scope}`."
        if getattr(self.view, f"customer_key_may_{verb}"):
            keys = f"{keys} Also for a customer's own key."
        return f"{description}\n\n{keys}".strip()

    def _map_basic_serializer(self, serializer: Any, direction: Literal["request", "response"]) -> dict[str, Any]:
        """What would be refused as unknown is not allowed."""
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        is_strict = direction == "request" and isinstance(serializer, StrictSerializer)
        return schema | ({"additionalProperties": False} if is_strict else {})

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        if hasattr(self.view, "read_scope"):
            problem = self.resolve_serializer(Problem, direction).ref
            for status in self._errors():
                bodies[str(status)] = {"description": ERRORS[status], "content": {PROBLEM: {"schema": problem}}}
        return bodies

    def _errors(self) -> list[int]:
        """Every status of an error that this operation may answer with."""
        found = {400, 401, 403, 406, 503, *self.view.own_errors}
        if "{" in self.path:
            found.add(404)
        if self.method in {"POST", "PATCH"}:
            found |= {409, 413, 415} if self.method == "PATCH" or self.view.idempotent else {411, 413, 415}
        return sorted(found)
