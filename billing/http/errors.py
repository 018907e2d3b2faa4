"""Every error of the API is application/problem+json (RFC 9457) with a stable `code`."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypedDict

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.fields import get_error_detail
from rest_framework.response import Response

from billing.errors import Conflict

logger = logging.getLogger(__name__)
PROBLEM = "application/problem+json"
BUSY = "The database is busy or away. Send the same request again."

CODES: dict[type[Exception], str] = {
    exceptions.ParseError: "malformed",
    exceptions.NotAuthenticated: "unauthenticated",
    exceptions.AuthenticationFailed: "unauthenticated",
    exceptions.PermissionDenied: "forbidden",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.NotAcceptable: "not_acceptable",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.Throttled: "too_many_requests",
}


class FieldError(TypedDict):
    field: str  # dotted path; "" for the whole body
    code: str
    detail: str


class ApiError(Exception):
    """An answer that is no success: its status, a stable code for programs and a sentence for people.

    `extra` adds members to the body, for instance the id of what exists already.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int = 400,
        *,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.status = code, detail, status
        self.errors, self.headers, self.extra = list(errors), dict(headers or {}), dict(extra or {})

    def body(self) -> dict[str, object]:
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "errors": self.errors,
            **self.extra,
        }


def invalid(field: str, detail: str, code: str = "invalid_field", status: int = 400) -> ApiError:
    """The error of one field."""
    return ApiError(code, f"{field}: {detail}", status, errors=[{"field": field, "code": code, "detail": detail}])


def not_found(what: str) -> ApiError:
    """The same 404 for what does not exist and for what belongs to somebody else."""
    return ApiError("not_found", f"There is no such {what}.", 404)


def problem_details(exc: Exception, context: Mapping[str, Any]) -> Response | None:
    """DRF's exception handler. What it does not know stays an exception, so that it is noticed."""
    error = _api_error(exc)
    if error is None:
        return None
    return Response(error.body(), status=error.status, headers=error.headers, content_type=PROBLEM)


@csrf_exempt  # as every view of the API
def unknown_route(request: HttpRequest) -> JsonResponse:
    """A path under the API that leads nowhere."""
    return JsonResponse(not_found("endpoint").body(), status=404, content_type=PROBLEM)


def _api_error(exc: Exception) -> ApiError | None:
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, Conflict):
        errors: list[FieldError] = [{"field": exc.field, "code": exc.code, "detail": exc.detail}] if exc.field else []
        return ApiError(exc.code, exc.detail, 409, errors=errors)
    if isinstance(exc, DjangoValidationError):
        exc = exceptions.ValidationError(get_error_detail(exc))
    if isinstance(exc, exceptions.ValidationError):
        return _validation_error(exc.get_full_details())
    return _from_drf(exc) if isinstance(exc, exceptions.APIException) else _from_elsewhere(exc)


def _from_elsewhere(exc: Exception) -> ApiError | None:
    match exc:
        case Http404():
            return ApiError("not_found", str(exc) or "There is nothing here.", 404)
        case PermissionDenied():
            return ApiError("forbidden", str(exc) or "This key may not do this.", 403)
        case RequestDataTooBig():
            return ApiError("too_large", "The body is too large.", 413)
        case OperationalError():
            logger.warning("Answered 503: %s", exc)
            return ApiError("unavailable", BUSY, 503, headers={"Retry-After": "1"})
        case DataError():
            logger.error("The database refused a value that was not validated.", exc_info=exc)
            return ApiError("invalid_field", "A value cannot be stored: it is out of range or has a NUL character.")
    return None


def _from_drf(exc: exceptions.APIException) -> ApiError:
    headers = {}
    if header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = header
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(round(wait))
    return ApiError(CODES.get(type(exc), "error"), str(exc.detail), exc.status_code, headers=headers)


def _validation_error(details: Any) -> ApiError:
    errors = list(_field_errors(details))
    codes = {error["code"] for error in errors}
    first = errors[0]
    detail = f"{first['field']}: {first['detail']}" if first["field"] else first["detail"]
    code = codes.pop() if len(codes) == 1 else "invalid_field"
    return ApiError(code, detail, 409 if code == "already_exists" else 400, errors=errors)


def _field_errors(details: Any, path: str = "") -> Iterator[FieldError]:
    """DRF's nested details, flattened: {"prices": [{}, {"key": [...]}]} is about `prices.1.key`."""
    if isinstance(details, list):
        for index, item in enumerate(details):
            plain = "message" in item and isinstance(item["message"], str)
            yield from _field_errors(item, path if plain else _join(path, str(index)))
    elif isinstance(details.get("message"), str):
        yield {"field": path, "code": _field_code(details["code"]), "detail": str(details["message"])}
    else:
        for name, item in details.items():
            yield from _field_errors(item, path if name in {"non_field_errors", "__all__"} else _join(path, str(name)))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field_code(code: str) -> str:
    kept = {"unknown_field", "invalid_value", "too_many_properties", "too_large"}
    known = {"required": "missing_field", "unique": "already_exists"} | {name: name for name in kept}
    return known.get(code, "invalid_field")
