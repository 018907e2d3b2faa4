"""Which events reached the counters between two folds: those that one snapshot of the database sees and the one before
does not. An event and its deltas are written by one transaction, so who counted the one sees the other.

Snapshots and numbers of transactions are PostgreSQL's. Where a customer's events are copied into another database, the
first posting there may name too few.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from django.db import connection

from accounts.models import Customer
from billing.metering import corrections, counting, store
from billing.metering.judging import Event
from billing.metering.models import EventCorrection, Meter
from billing.metering.receipts import Fed
from billing.metering.store import EVENT_COLUMNS
from billing.periods import quarter_floor

type Place = tuple[datetime, str]  # of an event among those of its customer: when it occurred, and its identity


@dataclass(frozen=True, slots=True)
class Between:
    """From a snapshot (None: from the beginning) to a later one (None: until now)."""

    since: str | None
    through: str | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an event fed before and feeds after: None where it was not there, is void, or feeds another meter."""

    event: Event
    before: Fed | None
    after: Fed | None


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The latest first; `next`: where to go on, if there are more."""

    found: Sequence[Arrival]
    next: Place | None


def arrivals(
    customer: Customer,
    meter: Meter,
    between: Between,
    *,
    starts_at: datetime,
    ends_at: datetime,
    after: Place | None = None,
    most: int,
) -> Arrivals:
    """Events of the meter's type in [starts_at, ends_at) that came between the snapshots, or were corrected. Their
    dimensions are as they were sent: prices name no value that is counted elsewhere. Three queries."""
    occurred_before, identity = after or (None, None)
    parameters = {
        "customer": customer.pk,
        "type": meter.event_type,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "after": occurred_before,
        "after_identity": identity,
        "most": most + 1,
        **_snapshots(between),
    }
    with connection.cursor() as cursor:
        cursor.execute(_ARRIVED, parameters)
        rows = [(was_there, store.stored_event(fields)) for was_there, *fields in cursor.fetchall()]
    shown = rows[:most]
    words = _words([event.digest for _, event in shown], between)
    counter = counting.counter(store.definitions_of([meter.pk])[0])
    found = [
        Arrival(
            event,
            before=_fed(meter, counter, event, [word for word in said if word.was_known]) if was_there else None,
            after=_fed(meter, counter, event, [word for word in said if word.is_known]),
        )
        for was_there, event in shown
        for said in [words.get(event.digest, [])]
    ]
    last = shown[-1][1] if len(rows) > most else None
    return Arrivals(found, (last.occurred_at, last.digest) if last else None)


def written_in(event: Event) -> list[int]:
    """The numbers of the transactions that wrote the event and its corrections: a snapshot that sees one has counted
    it. One query."""
    with connection.cursor() as cursor:
        cursor.execute(_WRITTEN, {"identity": event.digest})
        return [number for (number,) in cursor.fetchall()]


def _snapshots(between: Between) -> dict[str, Any]:
    return {"since": between.since, "through": between.through}


def _fed(meter: Meter, counter: counting.Counter, event: Event, words: Sequence[EventCorrection]) -> Fed | None:
    said = corrections.corrected(event, words)
    feeds = counting.counted_feeds([counter], said) if said else []
    return next(
        (Fed(meter, quarter_floor(event.occurred_at), msgspec.json.decode(one.dimensions), one) for one in feeds), None
    )


def _words(digests: Sequence[str], between: Between) -> dict[str, list[Any]]:
    """The corrections of these events, in order; each with whether it `was_known` before, and `is_known` after."""
    found: dict[str, list[Any]] = {}
    for word in EventCorrection.objects.raw(_WORDS, {"digests": list(digests), **_snapshots(between)}):
        found.setdefault(word.identity.hex, []).append(word)
    return found


# Whether the transaction that wrote a row is seen by a snapshot.
_BEFORE: Final = """(%(since)s::text IS NOT NULL
    AND pg_visible_in_snapshot(written_in::text::xid8, %(since)s::text::pg_snapshot))"""
_BY_THEN: Final = """(%(through)s::text IS NULL
    OR pg_visible_in_snapshot(written_in::text::xid8, %(through)s::text::pg_snapshot))"""
# A range for the index: nothing outside of it is seen by the later snapshot and not by the earlier one.
_RANGE: Final = """written_in >= coalesce(pg_snapshot_xmin(%(since)s::text::pg_snapshot)::text::bigint, 0)
    AND written_in < coalesce(pg_snapshot_xmax(%(through)s::text::pg_snapshot)::text::bigint, 9223372036854775807)"""
_OWN: Final = """customer_id = %(customer)s AND type = %(type)s
    AND occurred_at >= %(starts_at)s AND occurred_at < %(ends_at)s
    AND (%(after)s::timestamptz IS NULL OR (occurred_at, event.identity) < (%(after)s, %(after_identity)s::uuid))
    ORDER BY occurred_at DESC, event.identity DESC LIMIT %(most)s"""
_FIELDS: Final = """event.identity, source, event_id, type, occurred_at, event.recorded_at, properties, extensions,
    customer_id, revision"""
_ARRIVED: Final = f"""
WITH new AS (
    SELECT false AS was_there, {_FIELDS} FROM billing_usageevent AS event
    WHERE {_RANGE} AND {_BY_THEN} AND NOT {_BEFORE} AND {_OWN}
), corrected AS (
    SELECT true AS was_there, {_FIELDS}
    FROM (SELECT DISTINCT identity FROM billing_eventcorrection
          WHERE {_RANGE} AND {_BY_THEN} AND NOT {_BEFORE}) AS word
    JOIN billing_eventidentity AS known ON known.digest = word.identity
    JOIN billing_usageevent AS event ON event.recorded_at = known.recorded_at AND event.identity = word.identity
    WHERE {_BEFORE} AND {_OWN}
)
SELECT was_there, {EVENT_COLUMNS}, revision
FROM (SELECT * FROM new UNION ALL SELECT * FROM corrected) AS event
JOIN (SELECT id, key AS customer_key FROM accounts_customer) AS customer ON customer.id = customer_id
ORDER BY occurred_at DESC, identity DESC LIMIT %(most)s
"""  # noqa: S608 -- the parts are ours
_WRITTEN: Final = """
SELECT written_in FROM billing_eventidentity AS known
JOIN billing_usageevent AS event ON event.recorded_at = known.recorded_at AND event.identity = known.digest
WHERE known.digest = %(identity)s::uuid
UNION SELECT written_in FROM billing_eventcorrection WHERE identity = %(identity)s::uuid
"""
_WORDS: Final = f"""
SELECT *, {_BEFORE} AS was_known, {_BY_THEN} AS is_known FROM billing_eventcorrection
WHERE identity = ANY(%(digests)s::uuid[]) ORDER BY id
"""  # noqa: S608 -- the parts are ours
