"""From the body of a request to events, one by one. Pure functions: no database, no clock.

The body is cut into items without reading them, so that one bad item spoils no other and each item's size is known.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from billing.metering.identity import number

MAX_BODY_BYTES: Final = 5 * 1024 * 1024
MAX_EVENTS: Final = 1_000
MAX_DEPTH: Final = 32
MAX_EVENT_BYTES: Final = 8 * 1024
MAX_PROPERTIES: Final = 50
MAX_NAME: Final = 255


class BodyError(Exception):
    """The body as a whole cannot be read: nothing of it is stored."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class Refusal(Exception):  # noqa: N818 -- an item is refused; that is an answer, not an error of ours
    """One item is refused; the others are not touched by it."""

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        # It may quote a name that was sent, and it is stored, which NUL cannot be.
        self.code, self.detail, self.field = code, detail.replace("\0", "\\0"), field


class Shape(Enum):
    """How items look."""

    NATIVE = "native"
    CLOUD = "CloudEvents 1.0"


@dataclass(frozen=True, slots=True)
class Body:
    """Items as they were sent, not yet read."""

    shape: Shape
    items: Sequence[bytes]


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")]
CustomerKey = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._:-]{1,128}\Z")]
_CUSTOMER_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class SentEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event as sent. Numbers in its properties are ints and Decimals in one form (see `identity.number`)."""

    id: Name
    type: Name
    customer: CustomerKey
    source: Name | None = None
    timestamp: str | None = None
    properties: dict[str, Any] | None = None
    authorization: Name | None = None


class _PlainEvent(SentEvent):
    """The same without patterns, which cost more than all the rest of the decoding."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    customer: str
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)] | None = None
    authorization: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)] | None = None


class SentCloudEvent(SentEvent):
    """The same as a CloudEvent, with the attributes that only its sender understands."""

    extensions: dict[str, Any] | None = None


WHAT_FIELDS_ARE: Final = {
    "id": "Send a string of 1 to 255 characters without control characters.",
    "source": "Send a string of 1 to 255 characters without control characters.",
    "type": "Send a string of 1 to 255 characters without control characters.",
    "customer": "Send the key of the customer: 1 to 128 letters, digits, dots, underscores, colons or hyphens.",
    "timestamp": "Send an RFC 3339 instant with an offset, such as 2026-11-23T10:00:00Z.",
    "properties": "Send an object whose numbers have an exponent within 1,000.",
    "authorization": "Send the id of an authorization.",
    "specversion": 'Send "1.0".',
}
UNSTORABLE: Final = "Text may contain neither NUL characters nor lone surrogates."

# Attributes of CloudEvents by the names they have here. `specversion` and content types say how, not what.
_CLOUD_NAMES: Final = {
    "id": "id",
    "source": "source",
    "type": "type",
    "customer": "subject",
    "timestamp": "time",
    "properties": "data",
    "authorization": "authorization",
}
_CLOUD_FIELDS: Final = {*_CLOUD_NAMES.values(), "specversion", "datacontenttype"}
_EXTENSION_NAME: Final = re.compile(r"[a-z0-9]+")
_JSON_MEDIA: Final = re.compile(r"[a-z]+/([a-z0-9.-]+\+)?json\s*(;|\Z)", re.IGNORECASE)

_array = msgspec.json.Decoder(list[msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_native = msgspec.json.Decoder(SentEvent, float_hook=number)
_plain = msgspec.json.Decoder(_PlainEvent, float_hook=number)
_anything = msgspec.json.Decoder(dict[str, Any], float_hook=number)


# --- the body -------------------------------------------------------------------------------------------------


def inflate(compressed: bytes, limit: int = MAX_BODY_BYTES) -> bytes:
    """Decompress gzip, never to more than the limit. BodyError 400 for what is no gzip, 413 beyond the limit."""
    parts: list[bytes] = []
    room = limit
    while compressed:
        stream = zlib.decompressobj(wbits=31)
        try:
            part = stream.decompress(compressed, room + 1)
        except zlib.error as error:
            raise BodyError(400, "malformed", "The body is no gzip, although Content-Encoding says so.") from error
        if len(part) > room:
            raise too_large()
        if not stream.eof:
            raise BodyError(400, "malformed", "The gzip body is cut off.")
        parts.append(part)
        room -= len(part)
        compressed = stream.unused_data
    return b"".join(parts)


def too_large() -> BodyError:
    return BodyError(413, "too_large", f"Send at most {MAX_BODY_BYTES // 1024**2} MB of events at once.")


def split(body: bytes, content_type: str) -> Body:
    """Cut the body into items. BodyError 400 for no JSON, no UTF-8 or too deep, 413 for too many or too large,
    415 for a content type that is none of ours."""
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    shape = _shape(content_type)
    try:
        body.decode()
        items, depth = _items(body)
    except UnicodeDecodeError as error:
        raise BodyError(400, "malformed", "The body is not UTF-8.") from error
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.MsgspecError as error:
        raise BodyError(400, "malformed", f"The body is no JSON object or array of events: {error}.") from error
    if len(items) > MAX_EVENTS:
        raise BodyError(413, "too_many_events", f"Send at most {MAX_EVENTS:,} events at once.")
    if any(_is_deeper(item, MAX_DEPTH - depth) for item in items):
        raise _too_deep()
    return Body(shape, items)


def _shape(content_type: str) -> Shape:
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            return Shape.NATIVE
        case "application/cloudevents+json" | "application/cloudevents-batch+json":
            return Shape.CLOUD
        case _:
            raise BodyError(415, "unsupported_media_type", "Send Content-Type: application/json.")


def _items(body: bytes) -> tuple[list[bytes], int]:
    """The items and how many levels they lie below the root."""
    try:
        return _cut(body)
    except msgspec.DecodeError:
        # A lone surrogate is an escape that JSON allows and no text can hold. As NUL it is refused with its item.
        return _cut(_ESCAPE.sub(_without_lone_surrogate, body))


def _cut(body: bytes) -> tuple[list[bytes], int]:
    if body.lstrip(b" \t\r\n")[:1] != b"{":
        return [bytes(item) for item in _array.decode(body)], 1
    fields = _object.decode(body)
    if "events" not in fields:
        return [body], 0
    if len(fields) > 1:
        other = next(name for name in fields if name != "events")
        raise BodyError(400, "unknown_field", f'Beside "events", "{other}" is not known.')
    return [bytes(item) for item in _array.decode(fields["events"])], 2


_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    return b"\\u0000" if escape[1] else escape[0]


_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def _is_deeper(item: bytes, levels: int) -> bool:
    if item.count(b"{") + item.count(b"[") <= levels:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", item)):
        depth += 1 if bracket in b"[{" else -1
        if depth > levels:
            return True
    return False


def _too_deep() -> BodyError:
    return BodyError(400, "malformed", f"The body is nested deeper than {MAX_DEPTH} levels.")


# --- one item -------------------------------------------------------------------------------------------------


def read(item: bytes, shape: Shape) -> SentEvent:
    """The event that an item is, or Refusal."""
    if len(item) > MAX_EVENT_BYTES:
        raise Refusal("too_large", f"The event is larger than {MAX_EVENT_BYTES:,} bytes.")
    try:
        sent = _sent(item) if shape is Shape.NATIVE else _cloud(_anything.decode(item))
    except msgspec.MsgspecError as error:
        raise _refusal(error, shape) from error
    if _BACKSLASH in item and b"\\u0000" in _ANY_ESCAPE.findall(item):
        raise Refusal("invalid_field", UNSTORABLE)
    if sent.properties and len(sent.properties) > MAX_PROPERTIES:
        raise Refusal("too_many_properties", f"Send at most {MAX_PROPERTIES} properties.", "properties")
    return sent


def _sent(item: bytes) -> SentEvent:
    """Most items hold no escape and no byte of a control character, so their names need not be searched for any.
    Whatever is not plainly right is read again by the decoder that says what is wrong."""
    if not (_BACKSLASH in item or _DELETE in item or _C1 in item):
        try:
            sent = _plain.decode(item)
        except msgspec.MsgspecError:
            return _native.decode(item)
        if _is_key(sent.customer):
            return sent
    return _native.decode(item)


@lru_cache(maxsize=16_384)
def _is_key(customer: str) -> bool:
    return _CUSTOMER_KEY.fullmatch(customer) is not None


# As numbers, which bytes are searched for in a tenth of the time.
_BACKSLASH: Final = 0x5C
_DELETE: Final = 0x7F
_C1: Final = 0xC2  # before U+0080 to U+009F
_ANY_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)")


def _cloud(attributes: dict[str, Any]) -> SentCloudEvent:
    version = attributes.get("specversion")
    if version != "1.0":
        code = "missing_field" if version is None else "invalid_field"
        raise Refusal(code, f"specversion: {WHAT_FIELDS_ARE['specversion']}", "specversion")
    media = attributes.get("datacontenttype") or "application/json"
    if not (isinstance(media, str) and _JSON_MEDIA.match(media)):
        raise Refusal("invalid_field", "datacontenttype: Send data as application/json.", "datacontenttype")
    extensions = {name: value for name, value in attributes.items() if name not in _CLOUD_FIELDS}
    for name, value in extensions.items():
        _judge_extension(name, value)
    fields = {ours: attributes[theirs] for ours, theirs in _CLOUD_NAMES.items() if theirs in attributes}
    return msgspec.convert(fields | {"extensions": extensions or None}, SentCloudEvent)


def _judge_extension(name: str, value: object) -> None:
    if not _EXTENSION_NAME.fullmatch(name):
        raise Refusal("unknown_field", f"{name} is no attribute of CloudEvents; extensions use a-z and 0-9.", name)
    if not isinstance(value, str | int | bool | None):
        raise Refusal("invalid_field", f"{name}: An extension is a string, an integer or a boolean.", name)


_PROBLEM: Final = re.compile(
    r"Object missing required field `(?P<missing>[^`]+)`"
    r"|Object contains unknown field `(?P<unknown>.*)`"
    r"|.*?(?P<null>, got `null`)?(?: - at `\$\.(?P<field>\w+).*)?",
    re.DOTALL,
)


def _refusal(error: Exception, shape: Shape) -> Refusal:
    """What the decoder said, in our codes and words, with the names that the sender uses."""
    problem = _PROBLEM.fullmatch(str(error))
    assert problem is not None, error  # the last alternative matches everything
    if name := problem["unknown"]:
        return Refusal("unknown_field", f"{name} is not known. Put what belongs to your product in properties.", name)
    ours = problem["missing"] or problem["field"]
    if ours is None:
        return Refusal("invalid_field", "An event is a JSON object whose numbers have at most 4,300 digits.")
    name = _CLOUD_NAMES[ours] if shape is Shape.CLOUD else ours
    code = "missing_field" if problem["missing"] or problem["null"] else "invalid_field"
    return Refusal(code, f"{name}: {WHAT_FIELDS_ARE[ours]}", name)


class _Named(msgspec.Struct):
    id: Any = None
    source: Any = None


_named = msgspec.json.Decoder(_Named)


def names(item: bytes) -> tuple[str | None, str]:
    """The id and source of an item that cannot be read otherwise, as far as they can be shown."""
    try:
        found = _named.decode(item)
    except (msgspec.MsgspecError, ValueError):
        return None, ""
    event_id, source = (
        text if isinstance(text, str) and len(text) <= MAX_NAME and "\0" not in text else None
        for text in (found.id, found.source)
    )
    return event_id, source or ""
