"""JSON in, without a float anywhere."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import IO, Any, Final

import msgspec
from rest_framework.parsers import BaseParser

from billing.http.errors import ApiError

MAX_DEPTH: Final = 32
MAX_BODY_BYTES: Final = 2_500_000

_decoder = msgspec.json.Decoder(float_hook=Decimal)


def parse_json(body: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value, numbers with a fraction as Decimal. ApiError 400 `malformed` for what is no JSON, no UTF-8,
    NaN, Infinity, a number beyond reason, or nested deeper than `max_depth`."""
    try:
        value = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidOperation, RecursionError) as error:
        raise ApiError("malformed", f"The body is no JSON in UTF-8: {error}") from None
    if body.count(b"[") + body.count(b"{") > max_depth and depth_exceeds(value, max_depth):
        raise ApiError("malformed", f"The body is nested deeper than {max_depth} levels.")
    return value


def depth_exceeds(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than `levels`."""
    if not isinstance(value, list | dict):
        return False
    if levels == 0:
        return True
    items = value.values() if isinstance(value, dict) else value
    return any(depth_exceeds(item, levels - 1) for item in items)


def has_nul(value: Any) -> bool:
    """Whether any text in it holds a NUL character, which PostgreSQL cannot store."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(has_nul, value))


class DecimalJSONParser(BaseParser):
    """The body of an ordinary request."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise ApiError("too_large", f"The body is larger than {MAX_BODY_BYTES:,} bytes.", 413)
        value = parse_json(body)
        if b"\\u0000" in body and has_nul(value):  # JSON can write it in no other way
            raise ApiError("malformed", "The body holds a NUL character.")
        return value
