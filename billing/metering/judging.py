"""Is what was sent an event that we take? Pure functions over one item; the clock comes as `at`."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from billing.metering.decoding import WHAT_FIELDS_ARE, Refusal, SentCloudEvent, SentEvent
from billing.metering.identity import canonical, event_digest, payload_digest

DEFAULT_SOURCE: Final = "default"
ACCEPTED_BACK: Final = timedelta(days=35)
ACCEPTED_AHEAD: Final = timedelta(minutes=5)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

UNTIMELY: Final = ("timestamp_in_future", "timestamp_too_old")

_BEYOND_MICROSECONDS: Final = re.compile(r"(\.[0-9]{6})[0-9]+")
_EXACT: Final = len("2026-11-23T10:00:00.123456")


class Event(msgspec.Struct, kw_only=True, gc=False):
    """An event that is well formed and timely. `digest` and `payload` are those of `identity`. `revision`: of the
    catalogue that counted it, once it is stored."""

    index: int
    id: str
    source: str
    type: str
    customer_key: str
    occurred_at: datetime
    recorded_at: datetime
    properties: dict[str, Any]
    properties_json: str
    extensions_json: str | None
    digest: str
    payload: str
    authorization: str | None
    revision: int = 0
    is_dated: bool = True  # else `occurred_at` is when it came


@dataclass(frozen=True, slots=True)
class Window:
    """Which instants are taken, both ends included. `at` stands in for an absent one."""

    at: datetime
    oldest: datetime
    newest: datetime


def window(at: datetime, *, backfill: bool) -> Window:
    """35 days back and 5 minutes ahead; with back-filling, back to 1970."""
    return Window(at, EPOCH if backfill else at - ACCEPTED_BACK, at + ACCEPTED_AHEAD)


def judge(sent: SentEvent, index: int, taken: Window) -> Event:
    """The event, complete; or Refusal for its timestamp."""
    properties = sent.properties or {}
    properties_json = canonical(properties)
    source = sent.source or DEFAULT_SOURCE
    extensions = sent.extensions if isinstance(sent, SentCloudEvent) else None
    return Event(
        index=index,
        id=sent.id,
        source=source,
        type=sent.type,
        customer_key=sent.customer,
        occurred_at=occurred_at(sent.timestamp, taken),
        recorded_at=taken.at,
        properties=properties,
        properties_json=properties_json.decode(),
        extensions_json=canonical(extensions).decode() if extensions else None,
        digest=event_digest(source, sent.id),
        payload=payload_digest(sent.customer, sent.type, sent.timestamp, properties_json),
        authorization=sent.authorization,
        is_dated=sent.timestamp is not None,
    )


def judge_by_clock(event: Event, taken: Window) -> None:
    """Judge the time of an event anew, by a test clock's window."""
    event.occurred_at = _within(event.occurred_at, taken) if event.is_dated else taken.at


def occurred_at(timestamp: str | None, taken: Window) -> datetime:
    """The instant in UTC, cut to microseconds; Refusal when it is none, has no offset or lies outside the window."""
    if timestamp is None:
        return taken.at
    instant = _instant(timestamp)
    if instant.tzinfo is None:
        raise Refusal("timestamp_without_offset", f"timestamp: {WHAT_FIELDS_ARE['timestamp']}", "timestamp")
    return _within(instant, taken).astimezone(UTC)


def _within(instant: datetime, taken: Window) -> datetime:
    if instant > taken.newest:
        raise Refusal(
            "timestamp_in_future", f"timestamp: It is after {taken.newest.isoformat()}; check the clock.", "timestamp"
        )
    if instant < taken.oldest:
        raise Refusal("timestamp_too_old", _too_old(taken), "timestamp")
    return instant


def _instant(timestamp: str) -> datetime:
    text = timestamp
    if text[_EXACT : _EXACT + 1].isdigit():  # the decoder would round, perhaps into the next quarter hour
        text = _BEYOND_MICROSECONDS.sub(r"\1", text)
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise Refusal("invalid_field", f"timestamp: {WHAT_FIELDS_ARE['timestamp']}", "timestamp") from error


def _too_old(taken: Window) -> str:
    if taken.oldest == EPOCH:
        return "timestamp: It is before 1970."
    return f"timestamp: It is before {taken.oldest.isoformat()}; send older events with ?backfill=true."
