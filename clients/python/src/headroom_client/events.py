"""One event: its shape, its JSON, and what is said about one that will not be counted."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, TypedDict
from uuid import UUID


class _Required(TypedDict):
    type: str
    customer: str


class Event(_Required, total=False):
    """What `Client.record` takes: `client.record(**event)`."""

    id: str
    source: str
    timestamp: datetime | str
    properties: Mapping[str, Any]
    authorization: str


@dataclass(frozen=True)
class Rejection:
    """An event that will not be counted, and why. It is never sent again.

    `rejected` and `conflict` (another event has its id) come from the server, with its codes. `dropped` is said by
    the client: `not_json`, `too_large`, `queue_full`, `closed` or `unreadable`.
    """

    status: Literal["rejected", "conflict", "dropped"]
    code: str
    detail: str
    event: Mapping[str, Any]


def encode(event: Mapping[str, Any]) -> bytes:
    """One line of JSON. Raises TypeError, ValueError or RecursionError for what JSON cannot hold."""
    try:
        return _dumps(event, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate: escaped, so that the server refuses this event and no other
        return _dumps(event, ensure_ascii=True).encode()


def decode(line: bytes) -> dict[str, Any]:
    """The event of a line; of a damaged one, its text."""
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"line": line.decode(errors="replace")}


def _dumps(event: Mapping[str, Any], *, ensure_ascii: bool) -> str:
    return json.dumps(event, ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value, "f")  # the server reads strings as exact decimals
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
