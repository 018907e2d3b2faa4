"""Appends to the event store: identities, events, unmatched events, and what they add to the counters; many by COPY,
few in one statement.

Callers run in a transaction. Identities are always taken in the order of their digests, so that two requests with the
same events wait for each other instead of deadlocking.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any, Final

import msgspec
from django.db import IntegrityError, OperationalError, connection, transaction

from accounts.prepared import array, prepared
from billing.metering.counting import Feed
from billing.metering.judging import Event
from billing.money import exact
from billing.periods import minute_floor

SMALL: Final = 20  # events up to which one statement beats COPY


class Matched(msgspec.Struct, gc=False):
    """An event of a known customer and a type with meters, what it adds to them, and their highest revision."""

    event: Event
    customer_id: int
    feeds: list[Feed]
    revision: int


class Unmatched(msgspec.Struct, gc=False):
    """An event that lacks its customer or a meter."""

    event: Event
    reason: str


type Item = Matched | Unmatched


class Change(msgspec.Struct, gc=False):
    """Of one meter's counter. See `counting.Feed` for rank and member."""

    meter_id: int
    quantity: Decimal
    events: int
    rank: str | None
    member: str | None


class Delta(msgspec.Struct, gc=False):
    """Changes of the counters by what occurred in one minute with one dimension set."""

    customer_id: int
    starts_at: datetime
    dimensions: str
    changes: Sequence[Change]


def append(items: Sequence[Item], *, permanent: bool) -> dict[str, str]:
    """Store the items whose identities are new, with what they add to the counters. Identities are distinct.

    Returns the others: digest -> digest of the payload that came first.
    """
    ordered = sorted(items, key=lambda item: item.event.digest)
    if len(ordered) <= SMALL:
        return _append_few(ordered, permanent)
    known = _claim_many([item.event for item in ordered], permanent)
    fresh = [item for item in ordered if item.event.digest not in known] if known else ordered
    append_events([item for item in fresh if isinstance(item, Matched)])
    _copy_unmatched([item for item in fresh if isinstance(item, Unmatched)])
    return known


def append_events(matched: Sequence[Matched]) -> None:
    """Store events whose identities are taken already, and what they add."""
    if matched:
        _copy(_COPY_EVENTS, [_event_row(item.event, f"{item.customer_id}\t{item.revision}") for item in matched])
        append_deltas(deltas(matched))


def append_deltas(changes: Sequence[Delta]) -> None:
    """Change the counters by these, each as it is."""
    if changes:
        _copy(_COPY_DELTAS, [_delta_row(delta) for delta in changes])


def deltas(matched: Iterable[Matched]) -> list[Delta]:
    """What the events add, one per customer, minute and dimensions, by customer."""
    fed: dict[tuple[int, ...], tuple[datetime, dict[str, list[Feed]]]] = {}
    for item in matched:
        if item.feeds:
            at = item.event.occurred_at
            minute = (item.customer_id, at.toordinal(), at.hour, at.minute)  # hashed sooner than an instant
            found = fed.get(minute)
            if found is None:
                found = fed[minute] = minute_floor(at), {}
            for feed in item.feeds:
                found[1].setdefault(feed.dimensions, []).append(feed)
    with exact():
        return [
            Delta(minute[0], starts_at, dimensions, _changes(feeds))
            for minute, (starts_at, sets) in sorted(fed.items(), key=itemgetter(0))
            for dimensions, feeds in sets.items()
        ]


def _changes(feeds: Iterable[Feed]) -> list[Change]:
    """What feeds of one place add up to, by meter and member."""
    sums: dict[int | tuple[int, str], Change] = {}
    for feed in feeds:
        key = feed.meter_id if feed.member is None else (feed.meter_id, feed.member)
        change = sums.get(key)
        if change is None:
            sums[key] = Change(feed.meter_id, feed.quantity, 1, feed.rank, feed.member)
            continue
        change.events += 1
        if feed.rank is None:
            change.quantity += feed.quantity
        elif change.rank is None or feed.rank > change.rank:
            change.quantity, change.rank = feed.quantity, feed.rank
    return list(sums.values())


# --- many: COPY -----------------------------------------------------------------------------------------------


def _claim_many(events: Sequence[Event], permanent: bool) -> dict[str, str]:
    """Take the identities. Most requests repeat nothing: they are tried as they are first."""
    try:
        with transaction.atomic():
            _copy(
                _COPY_IDENTITIES,
                [f"{one.digest}\t{one.payload}\t{_instant(one.recorded_at)}\t{permanent}" for one in events],
            )
    except IntegrityError:
        return _claim_singly(events, permanent)
    return {}


def _claim_singly(events: Sequence[Event], permanent: bool) -> dict[str, str]:
    parameters: dict[str, Any] = {
        "digest": [one.digest for one in events],
        "payload": [one.payload for one in events],
        "recorded_at": [one.recorded_at for one in events],
        "permanent": permanent,
    }
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM_SINGLY, parameters)
        fresh = {digest for (digest,) in cursor.fetchall()}
    return payloads([one.digest for one in events if one.digest not in fresh])


def payloads(digests: Sequence[str]) -> dict[str, str]:
    """What the events with these identities said."""
    if not digests:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_PAYLOADS, [list(digests)])
        found = dict(cursor.fetchall())
    if len(found) < len(digests):  # purged since this request met it: the sender's next try takes it as new
        raise OperationalError("An identity expired in this moment.")
    return found


def recall(events: Iterable[Event], *, recorded_before: datetime) -> None:
    """Give events that were recorded before an instant their identities back, so that these are repeats of them; those
    that still have one keep it for ever. What they said to the letter may be forgotten, so their content decides
    whether a repeat says the same. Events of archived months are not found."""
    first: dict[str, Event] = {}
    for event in sorted(events, key=lambda one: one.digest):
        first.setdefault(event.digest, event)
    sent = list(first.values())
    parameters: dict[str, Any] = {
        "digest": [event.digest for event in sent],
        "payload": [event.payload for event in sent],
        "customer_key": [event.customer_key for event in sent],
        "type": [event.type for event in sent],
        "occurred_at": [event.occurred_at for event in sent],
        "properties": [event.properties_json for event in sent],
        "before": recorded_before,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECALL, parameters)


_RECALL: Final = """
WITH sent AS (
    SELECT * FROM unnest(%(digest)s::uuid[], %(payload)s::uuid[], %(customer_key)s::text[], %(type)s::text[],
                         %(occurred_at)s::timestamptz[], %(properties)s::jsonb[])
        AS sent (digest, payload, customer_key, type, occurred_at, properties)
), stored AS (
    SELECT identity, recorded_at, key AS customer_key, type, occurred_at, properties
    FROM billing_usageevent JOIN accounts_customer AS customer ON customer.id = customer_id
    WHERE identity = ANY(%(digest)s::uuid[]) AND recorded_at < %(before)s
    UNION ALL
    SELECT identity, recorded_at, customer_key, type, occurred_at, properties
    FROM billing_unmatchedevent WHERE identity = ANY(%(digest)s::uuid[]) AND recorded_at < %(before)s
)
INSERT INTO billing_eventidentity AS known (digest, payload, recorded_at, permanent)
SELECT DISTINCT ON (digest) digest,
    CASE WHEN (sent.customer_key, sent.type, sent.occurred_at, sent.properties)
            = (stored.customer_key, stored.type, stored.occurred_at, stored.properties)
        THEN payload ELSE '00000000-0000-0000-0000-000000000000' END,
    stored.recorded_at, true
FROM stored JOIN sent ON digest = identity ORDER BY digest, stored.recorded_at
ON CONFLICT (digest) DO UPDATE SET permanent = true
"""

_CLAIM_SINGLY: Final = """
INSERT INTO billing_eventidentity (permanent, digest, payload, recorded_at)
SELECT %(permanent)s, digest, payload, recorded_at
FROM unnest(%(digest)s::uuid[], %(payload)s::uuid[], %(recorded_at)s::timestamptz[])
    AS sent (digest, payload, recorded_at)
ON CONFLICT DO NOTHING RETURNING replace(digest::text, '-', '')
"""
_PAYLOADS: Final = """
SELECT replace(digest::text, '-', ''), replace(payload::text, '-', '')
FROM billing_eventidentity WHERE digest = ANY(%s::uuid[])
"""

_COPY_IDENTITIES: Final = "COPY billing_eventidentity (digest, payload, recorded_at, permanent) FROM STDIN"
_COPY_EVENTS: Final = """
COPY billing_usageevent
    (identity, source, event_id, type, occurred_at, recorded_at, properties, extensions, customer_id, revision)
FROM STDIN
"""
_COPY_UNMATCHED: Final = """
COPY billing_unmatchedevent
    (identity, source, event_id, type, occurred_at, recorded_at, properties, extensions, customer_key, reason)
FROM STDIN
"""
_COPY_DELTAS: Final = """
COPY billing_usagedelta (customer_id, starts_at, dimensions, meters, quantities, events, ranks, members) FROM STDIN
"""


_NULL: Final = r"\N"


def _copy_unmatched(unmatched: Sequence[Unmatched]) -> None:
    if unmatched:
        _copy(
            _COPY_UNMATCHED,
            [_event_row(item.event, f"{item.event.customer_key}\t{item.reason}") for item in unmatched],
        )


def _copy(statement: str, rows: Iterable[str]) -> None:
    with connection.cursor() as cursor, connection.wrap_database_errors, cursor.copy(statement) as copy:
        copy.write("\n".join(rows))


def _event_row(event: Event, owner: str) -> str:
    # Names and types hold no control characters, JSON escapes its own: only backslashes need care.
    fields = _escape(
        f"{event.digest}\t{event.source}\t{event.id}\t{event.type}\t{_instant(event.occurred_at)}"
        f"\t{_instant(event.recorded_at)}\t{event.properties_json}"
    )
    extensions = _NULL if event.extensions_json is None else _escape(event.extensions_json)
    return f"{fields}\t{extensions}\t{owner}"


def _instant(at: datetime) -> str:
    """As `isoformat` has it, in a tenth of its time."""
    text: str = msgspec.to_builtins(at)
    return text


def _delta_row(delta: Delta) -> str:
    changes = delta.changes
    ranks, members = _ranks(changes), _members(changes)
    return (
        f"{delta.customer_id}\t{_instant(delta.starts_at)}\t{_escape(delta.dimensions)}"
        f"\t{_meters(changes)}\t{_quantities(changes)}\t{_events(changes)}"
        f"\t{_NULL if ranks is None else _escape(ranks)}\t{members or _NULL}"
    )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\") if "\\" in text else text


# Lists as PostgreSQL reads arrays. The driver would look at each value.


def _list(words: Iterable[str]) -> str:
    """Of words that need no quotes."""
    return f"{{{','.join(words)}}}"


def _meters(changes: Iterable[Change]) -> str:
    return _list([str(one.meter_id) for one in changes])


def _quantities(changes: Iterable[Change]) -> str:
    return _list([str(one.quantity) for one in changes])


def _events(changes: Iterable[Change]) -> str:
    return _list([str(one.events) for one in changes])


def _ranks(changes: Sequence[Change]) -> str | None:
    ranks = [one.rank for one in changes]
    return None if ranks.count(None) == len(ranks) else array(ranks)


def _members(changes: Sequence[Change]) -> str | None:
    members = [one.member for one in changes]
    return _list([member or "NULL" for member in members]) if any(members) else None


# --- few: one statement ---------------------------------------------------------------------------------------


def _append_few(items: Sequence[Item], permanent: bool) -> dict[str, str]:
    with prepared() as cursor:
        cursor.execute(_APPEND_FEW, _few(items) | {"permanent": permanent})
        fresh = {digest for (digest,) in cursor.fetchall()}
    return payloads([item.event.digest for item in items if item.event.digest not in fresh])


def _few(items: Sequence[Item]) -> dict[str, str]:
    events = [item.event for item in items]
    matched = [item if isinstance(item, Matched) else None for item in items]
    fed = [(item.event.digest, delta) for item in matched if item for delta in deltas([item])]
    changes = [delta.changes for _, delta in fed]
    return {
        "digest": _list([event.digest for event in events]),
        "payload": _list([event.payload for event in events]),
        "source": array([event.source for event in events]),
        "event_id": array([event.id for event in events]),
        "type": array([event.type for event in events]),
        "occurred_at": _list([_instant(event.occurred_at) for event in events]),
        "recorded_at": _list([_instant(event.recorded_at) for event in events]),
        "properties": array([event.properties_json for event in events]),
        "extensions": array([event.extensions_json for event in events]),
        "customer_id": _list([str(item.customer_id) if item else "NULL" for item in matched]),
        "customer_key": array([event.customer_key for event in events]),
        "revision": _list([str(item.revision) if item else "NULL" for item in matched]),
        "reason": array([item.reason if isinstance(item, Unmatched) else None for item in items]),
        "fed": _list([digest for digest, _ in fed]),
        "starts_at": _list([_instant(delta.starts_at) for _, delta in fed]),
        "dimensions": array([delta.dimensions for _, delta in fed]),
        "meters": array([_meters(one) for one in changes]),
        "quantities": array([_quantities(one) for one in changes]),
        "counts": array([_events(one) for one in changes]),
        "ranks": array([_ranks(one) for one in changes]),
        "members": array([_members(one) for one in changes]),
    }


_APPEND_FEW: Final = """
WITH sent AS (
    SELECT * FROM unnest(
        %(digest)s::uuid[], %(payload)s::uuid[], %(source)s::text[], %(event_id)s::text[], %(type)s::text[],
        %(occurred_at)s::timestamptz[], %(recorded_at)s::timestamptz[],
        %(properties)s::jsonb[], %(extensions)s::jsonb[],
        %(customer_id)s::bigint[], %(revision)s::int[], %(customer_key)s::text[], %(reason)s::text[]
    ) AS sent (digest, payload, source, event_id, type, occurred_at, recorded_at, properties, extensions,
               customer_id, revision, customer_key, reason)
), fresh AS (
    INSERT INTO billing_eventidentity (digest, payload, recorded_at, permanent)
    SELECT digest, payload, recorded_at, %(permanent)s::bool FROM sent
    ON CONFLICT DO NOTHING RETURNING digest
), stored AS (
    INSERT INTO billing_usageevent
        (identity, source, event_id, type, occurred_at, recorded_at, properties, extensions, customer_id, revision)
    SELECT digest, source, event_id, type, occurred_at, recorded_at, properties, extensions, customer_id, revision
    FROM sent JOIN fresh USING (digest) WHERE reason IS NULL
), kept AS (
    INSERT INTO billing_unmatchedevent
        (identity, source, event_id, type, occurred_at, recorded_at, properties, extensions, customer_key, reason)
    SELECT digest, source, event_id, type, occurred_at, recorded_at, properties, extensions, customer_key, reason
    FROM sent JOIN fresh USING (digest) WHERE reason IS NOT NULL
), counted AS (
    INSERT INTO billing_usagedelta (customer_id, starts_at, dimensions, meters, quantities, events, ranks, members)
    SELECT sent.customer_id, fed.starts_at, fed.dimensions, fed.meters::bigint[], fed.quantities::numeric[],
           fed.events::bigint[], fed.ranks::text[], fed.members::uuid[]
    FROM unnest(%(fed)s::uuid[], %(starts_at)s::timestamptz[], %(dimensions)s::text[], %(meters)s::text[],
                %(quantities)s::text[], %(counts)s::text[], %(ranks)s::text[], %(members)s::text[])
        AS fed (digest, starts_at, dimensions, meters, quantities, events, ranks, members)
    JOIN fresh USING (digest) JOIN sent USING (digest)
)
SELECT replace(digest::text, '-', '') FROM fresh
"""
