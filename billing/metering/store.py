"""The event store: what counts, what waits, and what was refused. `appending` stores what comes in. Nothing outside
metering reads or writes these tables. Callers run in a transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from django.db import connection, connections

from accounts.models import Customer
from accounts.prepared import prepared
from billing.metering.counting import Counter, Definition, counter
from billing.metering.identity import number
from billing.metering.judging import Event

# Held shared by whoever counts events, exclusively by whoever changes what counts: a new meter or customer waits for
# requests that have not seen it, and later requests see it.
_CATALOGUE_LOCK: Final = 0x6D657465  # "mete"


@dataclass(slots=True)
class RefusedGroup:
    """Items of one request that were refused for one reason."""

    source: str
    code: str
    items: int
    sample: str
    detail: str


# --- what counts ----------------------------------------------------------------------------------------------


def hold_catalogue() -> None:
    """Until the transaction ends, no meter or customer comes between what is read of them and what is appended."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, [_CATALOGUE_LOCK])


def change_catalogue(using: str = "default") -> None:
    """Wait until every request that may not have seen the change has committed, and make later ones wait for ours."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CATALOGUE_LOCK])


def next_revision() -> int:
    """The catalogue's next number, inside `change_catalogue`: nobody counts, so events before and after it carry
    different ones. Never one of a deleted meter, which events may carry."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('billing_meter_revision')")
        return int(cursor.fetchone()[0])


def clock_times(keys: Iterable[str]) -> dict[str, datetime]:
    """What the test clock says, by key, of those customers that are on one."""
    on_one = Customer.objects.filter(key__in=keys, test_clock__isnull=False)
    return dict(on_one.values_list("key", "test_clock__now"))


def held_catalogue(
    keys: Iterable[str], event_types: Iterable[str]
) -> tuple[dict[str, int], dict[str, datetime], dict[str, list[Counter]]]:
    """`hold_catalogue`, the customers by key, `clock_times` and `counters`. What is read must be read after the lock
    was taken; the driver's pipeline costs more than the round trips."""
    with prepared() as cursor:
        cursor.execute(_HOLD, [_CATALOGUE_LOCK])
        cursor.execute(_CUSTOMERS, [list(keys)])
        found = cursor.fetchall()
        cursor.execute(_METERS_OF_TYPES, [list(event_types)])
        clocks = {key: now for key, _, now in found if now is not None}
        return {key: customer_id for key, customer_id, _ in found}, clocks, _compiled(_defined(cursor.fetchall()))


_HOLD: Final = "SELECT pg_advisory_xact_lock_shared(%s::bigint)"
# A join: a prepared ANY compares each customer with each key.
_CUSTOMERS: Final = """
SELECT customer.key, customer.id, clock.now
FROM unnest(%s::text[]) AS sent (key) JOIN accounts_customer AS customer USING (key)
LEFT JOIN accounts_testclock AS clock ON clock.id = customer.test_clock_id
"""


def definitions(event_types: Iterable[str]) -> list[Definition]:
    """The meters of these types of events."""
    return _definitions(_METERS_OF_TYPES, event_types)


def definitions_of(meter_ids: Iterable[int]) -> list[Definition]:
    return _definitions(_METERS_BY_ID, meter_ids)


def counters(event_types: Iterable[str]) -> dict[str, list[Counter]]:
    """The meters of these types of events, compiled, by type."""
    return _compiled(definitions(event_types))


def _compiled(defined: Iterable[Definition]) -> dict[str, list[Counter]]:
    found: dict[str, list[Counter]] = {}
    for definition in defined:
        found.setdefault(definition.event_type, []).append(counter(definition))
    return found


def _definitions(statement: str, values: Iterable[object]) -> list[Definition]:
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(values)])
        return _defined(cursor.fetchall())


def _defined(rows: Iterable[tuple[int, str, str, str, str, list[str], str, int]]) -> list[Definition]:
    return [
        Definition(id_, key, event_type, aggregation, value, tuple(dimensions), filters, revision)
        for id_, key, event_type, aggregation, value, dimensions, filters, revision in rows
    ]


_METERS: Final = (
    "SELECT id, key, event_type, aggregation, value, dimensions, filters::text, revision FROM billing_meter"
)
_METERS_OF_TYPES: Final = f"{_METERS} WHERE event_type = ANY(%s::text[]) ORDER BY id"
_METERS_BY_ID: Final = f"{_METERS} WHERE id = ANY(%s::bigint[]) ORDER BY id"


# --- refused events, endings, identities ------------------------------------------------------------------------


def append_refused(groups: Sequence[RefusedGroup], *, api_key_id: int | None, at: datetime) -> None:
    """Keep a count and a sample of what one request was refused."""
    with connection.cursor() as cursor:
        cursor.executemany(
            _INSERT_REFUSED,
            [(api_key_id, one.source, one.code, one.items, one.sample, one.detail, at) for one in groups],
        )


_INSERT_REFUSED: Final = """
INSERT INTO billing_refuseditems (api_key_id, source, code, items, sample, detail, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


def append_endings(customer_ids: Sequence[int], authorizations: Sequence[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_APPEND_ENDINGS, [list(customer_ids), list(authorizations)])


def take_endings(customer_ids: Iterable[int]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_ENDINGS, [list(customer_ids)])
        return [authorization for (authorization,) in cursor.fetchall()]


_APPEND_ENDINGS: Final = """
INSERT INTO billing_eventending (customer_id, "authorization") SELECT * FROM unnest(%s::bigint[], %s::text[])
"""
_TAKE_ENDINGS: Final = """
DELETE FROM billing_eventending WHERE customer_id = ANY(%s) AND is_counted RETURNING "authorization"
"""


def forget_identities(before: datetime, most: int) -> int:
    """Delete identities recorded before an instant, except permanent ones. How many went."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, [before, most])
        return int(cursor.rowcount)


# Asked twice: one that was found here may have become permanent before it is locked.
_FORGET: Final = """
DELETE FROM billing_eventidentity WHERE NOT permanent AND digest IN (
    SELECT digest FROM billing_eventidentity WHERE recorded_at < %s AND NOT permanent LIMIT %s
)
"""


# --- unmatched events ------------------------------------------------------------------------------------------

type UnmatchedRow = tuple[int, int, Event]


def matchable(customer_keys: Sequence[str], event_types: Sequence[str], most: int) -> list[UnmatchedRow]:
    """Unmatched events that lack nothing any more: their row's id, their customer's id, and themselves. They stay
    locked; what another replay has locked is left to it."""
    parameters: dict[str, Any] = {"keys": list(customer_keys), "types": list(event_types), "most": most}
    with connection.cursor() as cursor:
        cursor.execute(_MATCHABLE.format(columns=EVENT_COLUMNS), parameters)
        return [(id_, customer_id, stored_event(fields)) for id_, customer_id, *fields in cursor.fetchall()]


def stored_event(row: Sequence[Any]) -> Event:
    """Of a row of EVENT_COLUMNS and the revision."""
    digest, source, event_id, event_type, customer_key, occurred_at, recorded_at, properties, extensions, revision = row
    return Event(
        index=0,
        id=event_id,
        source=source,
        type=event_type,
        customer_key=customer_key,
        occurred_at=occurred_at,
        recorded_at=recorded_at,
        properties=properties_decoder.decode(properties),
        properties_json=properties,
        extensions_json=extensions,
        digest=digest.hex,
        payload="",  # stands in its identity, which it took when it came
        authorization=None,
        revision=revision,
    )


def remove_unmatched(ids: Sequence[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM billing_unmatchedevent WHERE id = ANY(%s)", [list(ids)])


def keep_unmatched(ids: Sequence[int], reason: str) -> None:
    """They stay, for another reason."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_unmatchedevent SET reason = %s WHERE id = ANY(%s)", [reason, list(ids)])


def name_missing_meters(customer_keys: Sequence[str]) -> None:
    """Events whose customer is known by now lack only their meter."""
    with connection.cursor() as cursor:
        cursor.execute(_NAME_MISSING_METERS, {"keys": list(customer_keys)})


properties_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=number)

EVENT_COLUMNS: Final = (
    "identity, source, event_id, type, customer_key, occurred_at, recorded_at, properties, extensions"
)
_MATCHABLE: Final = """
SELECT unmatched.id, customer.id, {columns}, 0
FROM billing_unmatchedevent AS unmatched JOIN accounts_customer AS customer ON customer.key = unmatched.customer_key
WHERE reason <> 'invalid_value' AND type IN (SELECT event_type FROM billing_meter)
    AND (%(keys)s::text[] = '{{}}' OR customer_key = ANY(%(keys)s::text[]))
    AND (%(types)s::text[] = '{{}}' OR type = ANY(%(types)s::text[]))
ORDER BY unmatched.id LIMIT %(most)s
FOR UPDATE OF unmatched SKIP LOCKED
"""
_NAME_MISSING_METERS: Final = """
UPDATE billing_unmatchedevent SET reason = 'no_meter'
WHERE reason = 'unknown_customer' AND customer_key IN (SELECT key FROM accounts_customer)
    AND (%(keys)s::text[] = '{}' OR customer_key = ANY(%(keys)s::text[]))
    AND type NOT IN (SELECT event_type FROM billing_meter)
"""
