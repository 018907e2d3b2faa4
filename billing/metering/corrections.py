"""Events with the later words on them: finding one, what of it holds, and what a correction changes in the counters."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from django.db import connection

from billing.metering.appending import Change, Delta
from billing.metering.counting import Feed
from billing.metering.identity import canonical, event_digest
from billing.metering.judging import ACCEPTED_AHEAD, Event
from billing.metering.models import CorrectionKind, EventCorrection, EventIdentity
from billing.metering.store import EVENT_COLUMNS, properties_decoder, stored_event
from billing.periods import QUARTER, minute_floor, quarter_floor

# In a delta of a max or latest meter: its quarter hour is counted again from the events. Less than every other rank.
RECOUNT: Final = ""

_CORRECTION_LOCK: Final = 0x6D657464  # "metd", beside the digest that is corrected


class UnknownEvent(Exception):  # noqa: N818 -- a state
    """No event with this source and id is remembered."""


class ArchivedEvent(Exception):  # noqa: N818 -- a state
    """The event is known, but its row lies in an archive."""


@dataclass(slots=True)
class Found:
    """A stored event as it was sent, and the corrections of it in order. No `customer_id`: nothing counts it yet."""

    event: Event
    customer_id: int | None
    corrections: list[EventCorrection] = field(default_factory=list)

    @property
    def current(self) -> Event | None:
        """What holds; None when it is void."""
        return corrected(self.event, self.corrections)


def corrected(event: Event, words: Sequence[EventCorrection]) -> Event | None:
    """The event after its corrections; None when it is void."""
    if not words:
        return event
    properties = words[-1].properties
    return None if properties is None else amended(event, properties)


def amended(event: Event, properties: dict[str, Any]) -> Event:
    """The same event with these properties, in the form that numbers of events have."""
    said = properties_decoder.decode(canonical(properties))
    return msgspec.structs.replace(event, properties=said, properties_json=canonical(said).decode())


def find(source: str, event_id: str, *, lock: bool = False) -> Found:
    """The event. With `lock` nobody else corrects or replays it until the transaction ends."""
    digest = event_digest(source, event_id)
    with connection.cursor() as cursor:
        if lock:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_CORRECTION_LOCK, digest])
        identity = EventIdentity.objects.filter(pk=digest).first()
        # The waiting one first: a replay that moves it meanwhile is waited for, and then it is among the others.
        cursor.execute(_WAITING + (" FOR UPDATE" if lock else ""), [digest])
        row = cursor.fetchone()
        if row is None:
            cursor.execute(*((_COUNTED, [digest, identity.recorded_at]) if identity else (_LONG_AGO, [digest])))
            row = cursor.fetchone()
    if row is None:
        raise ArchivedEvent if identity else UnknownEvent
    customer_id, *fields = row
    return Found(stored_event(fields), customer_id, of([digest]).get(digest, []))


def may_be_archived(occurred_at: datetime, archived_through: datetime | None) -> bool:
    """Whether events of the same quarter hour may lie in an archive: they are recorded when they occur, or later."""
    return archived_through is not None and quarter_floor(occurred_at) < archived_through + ACCEPTED_AHEAD


def of(digests: Collection[str]) -> dict[str, list[EventCorrection]]:
    """The corrections of these events, in order."""
    found: dict[str, list[EventCorrection]] = {}
    for word in EventCorrection.objects.filter(identity__in=digests).order_by("pk"):
        found.setdefault(word.identity.hex, []).append(word)
    return found


def holding(events: Sequence[Event]) -> list[Event]:
    """Those of the events that hold, as they hold. One query."""
    words = of([event.digest for event in events])
    held = (corrected(event, words.get(event.digest, [])) for event in events)
    return [event for event in held if event is not None]


def append(
    event: Event, changed: Event | None, *, reason: str, api_key_id: int | None, at: datetime
) -> EventCorrection:
    """Add a word: what the event says from now on, or that it is void."""
    kind = CorrectionKind.AMEND.value if changed else CorrectionKind.VOID.value
    properties = changed.properties_json if changed else None
    with connection.cursor() as cursor:
        cursor.execute(_APPEND, [event.digest, kind, properties, reason, api_key_id, at])
        (id_,) = cursor.fetchone()
    return EventCorrection.objects.get(pk=id_)


_APPEND: Final = """
INSERT INTO billing_eventcorrection (identity, kind, properties, reason, api_key_id, recorded_at)
VALUES (%s, %s, %s::jsonb, %s, %s, %s) RETURNING id
"""


def changes(event: Event, customer_id: int, before: Iterable[Feed], after: Iterable[Feed]) -> list[Delta]:
    """What the counters change by when an event that fed `before` feeds `after`."""
    old, new = list(before), list(after)
    kept = [feed for feed in old if feed in new]
    return [
        *(_delta(event, customer_id, feed, -1) for feed in old if feed not in kept),
        *(_delta(event, customer_id, feed, 1) for feed in new if feed not in kept),
    ]


def _delta(event: Event, customer_id: int, feed: Feed, events: int) -> Delta:
    quantity, rank = feed.quantity, feed.rank
    if events < 0:
        quantity, rank = (-quantity, None) if rank is None else (Decimal(0), RECOUNT)
    change = Change(feed.meter_id, quantity, events, rank, feed.member)
    return Delta(customer_id, minute_floor(event.occurred_at), feed.dimensions, [change])


def of_quarter(customer_id: int, event_type: str, starts_at: datetime) -> Iterator[Event]:
    """The events of a quarter hour that hold, as they hold."""
    with connection.cursor() as cursor:
        cursor.execute(_QUARTER, [customer_id, starts_at, starts_at + QUARTER, event_type])
        while rows := cursor.fetchmany(_AT_ONCE):
            yield from holding([stored_event(fields) for _, *fields in rows])


_AT_ONCE: Final = 5_000
EVENTS: Final = f"""
SELECT event.customer_id, {EVENT_COLUMNS}, revision
FROM billing_usageevent AS event
JOIN (SELECT id, key AS customer_key FROM accounts_customer) AS customer ON customer.id = event.customer_id
"""  # noqa: S608 -- the parts are ours
_COUNTED: Final = EVENTS + "WHERE identity = %s AND recorded_at = %s"
# Its identity is forgotten, and its month has an index by identity: see `partitions.index_closed`.
_LONG_AGO: Final = EVENTS + "WHERE identity = %s AND recorded_at < statement_timestamp() - interval '42 days'"
_QUARTER: Final = EVENTS + "WHERE customer_id = %s AND occurred_at >= %s AND occurred_at < %s AND type = %s"
_WAITING: Final = f"SELECT NULL, {EVENT_COLUMNS}, 0 FROM billing_unmatchedevent WHERE identity = %s"  # noqa: S608 -- ours
