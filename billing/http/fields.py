"""Serializers that take exactly what is documented, and the ways numbers and instants are read and written."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, cached_property
from typing import Any, NoReturn

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from accounts.models import KEY_PATTERN
from billing import money

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def plain_instant(at: datetime) -> str:
    """The instant in UTC as the API writes it: "2026-11-23T10:00:01.2Z", without needless zeros."""
    text = at.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def read_instant(value: object) -> datetime:
    """An RFC 3339 instant with an offset, in UTC; ValueError with a sentence otherwise."""
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("Send an RFC 3339 instant with an offset, such as 2026-11-23T10:00:00Z.")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("There is no such instant.") from None


@extend_schema_field({"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "example": "12.5"})
class ExactDecimalField(serializers.Field[Decimal, Any, str, Any]):
    """In: a decimal string or a JSON number, never through a float. Out: plain notation."""

    def __init__(self, *, minimum: Decimal | None = None, above: Decimal | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.minimum, self.above = minimum, above

    def to_internal_value(self, data: Any) -> Decimal:
        try:
            number = money.parse_decimal(data)
        except ValueError as error:
            self._refuse(str(error))
        if self.minimum is not None and number < self.minimum:
            self._refuse(f"Send {self.minimum} or more.")
        if self.above is not None and number <= self.above:
            self._refuse(f"Send more than {self.above}.")
        return number

    def to_representation(self, value: Decimal) -> str:
        return money.plain(value)

    def _refuse(self, sentence: str) -> NoReturn:
        raise serializers.ValidationError(sentence)


@extend_schema_field({"type": "string", "format": "date-time"})
class InstantField(serializers.Field[datetime, Any, str, Any]):
    """In: RFC 3339 with an offset. Out: UTC with Z."""

    def to_internal_value(self, data: Any) -> datetime:
        try:
            return read_instant(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from None

    def to_representation(self, value: datetime) -> str:
        return plain_instant(value)


@extend_schema_field({"type": "string", "pattern": KEY_PATTERN, "example": "acme"})
class KeyField(serializers.CharField):
    """The key of a customer, meter, plan or price."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not is_key(data):
            raise serializers.ValidationError("Use 1 to 128 letters, digits, dots, underscores, colons or hyphens.")
        return str(data)


def documents_only(field: serializers.Field[Any, Any, Any, Any], *values: object) -> None:
    """Says in the schema that the field has one of these values. Null is added where the field allows it."""
    set_override(field, "field", {"anyOf": [{"const": value} for value in values if value is not None]})


def is_key(value: object) -> bool:
    # `$` also matches before a final line break; fullmatch does not.
    return isinstance(value, str) and re.fullmatch(KEY_PATTERN, value) is not None


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses what it does not know, and what may only be read."""

    default_error_messages = {"null": "Send an object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and (unknown := sorted(data.keys() - self._writable)):
            known = ", ".join(sorted(self._writable))
            sentence = f"This field cannot be sent here. Known are: {known}."
            error = serializers.ErrorDetail(sentence, code="unknown_field")
            raise serializers.ValidationError({name: [error] for name in unknown})
        values: dict[str, Any] = super().to_internal_value(data)
        return values

    @cached_property
    def _writable(self) -> frozenset[str]:
        return frozenset(name for name, field in self.fields.items() if not field.read_only)


def read_body(request: Request, serializer: type[StrictSerializer], *, partial: bool = False) -> dict[str, Any]:
    """The validated fields of the body. `partial`: only those that were sent (PATCH)."""
    return dict(_reader(serializer, partial).run_validation(request.data))


def read_query(request: Request, serializer: type[StrictSerializer]) -> dict[str, Any]:
    """The validated query parameters. Those of paging are read by `cursor_page`."""
    sent = {name: value for name, value in request.query_params.items() if name not in {"cursor", "limit"}}
    return dict(_reader(serializer, False).run_validation(sent))


@cache
def _reader(serializer: type[StrictSerializer], partial: bool) -> StrictSerializer:
    """One for all requests: it keeps nothing of what it validates, and to make one copies every field."""
    return serializer(partial=partial)
