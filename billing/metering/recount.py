"""Are the counters what the stored events say? Counted again, event by event, beside what ingest and fold counted."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db import connection

from billing.metering import backfilling, corrections, counting, store
from billing.metering.judging import Event
from billing.metering.models import Meter
from billing.money import CONTEXT, ZERO, plain
from billing.periods import quarter_floor

type _Place = tuple[int, datetime]  # meter, quarter hour

_AT_ONCE: Final = 5_000


@dataclass(slots=True)
class _Sum:
    quantity: Decimal = ZERO
    events: int = 0


def differences(customer_id: int, since: datetime) -> Iterator[str]:
    """Quarter hours from that of `since` on, over all dimension values, where a meter's counters and its events
    disagree. For a snapshot of the database: what waits for the fold is added to what is counted. Quantities of meters
    that do not add up are not compared, only how many events they hold."""
    meters = Meter.objects.in_bulk()
    since = quarter_floor(since)
    events, counters = _by_events(customer_id, since, meters), _by_counters(customer_id, since)
    for place in sorted(events.keys() | counters.keys()):
        meter_id, starts_at = place
        said, found = counters.get(place, _Sum()), events.get(place, _Sum())
        meter = meters.get(meter_id)  # what waits for the fold may name one that was deleted meanwhile
        is_same = (meter and not meter.is_additive) or said.quantity == found.quantity
        if said.events != found.events or not is_same:
            name = meter.key if meter else f"meter {meter_id}, which is gone,"
            yield (
                f"a counter is not the sum of its events: {name} at {starts_at.isoformat()} says "
                f"{plain(said.quantity)} in {said.events}, they say {plain(found.quantity)} in {found.events}"
            )


def _by_events(customer_id: int, since: datetime, meters: dict[int, Meter]) -> dict[_Place, _Sum]:
    sums: dict[_Place, _Sum] = defaultdict(_Sum)
    counters = store.counters({meter.event_type for meter in meters.values()})
    unfinished = backfilling.unfinished(meters)
    for event in _events(customer_id, since):
        used = backfilling.counted_by(counters.get(event.type, ()), event, customer_id, unfinished)
        for feed in counting.counted_feeds(used, event):
            place = sums[feed.meter_id, quarter_floor(event.occurred_at)]
            place.quantity = CONTEXT.add(place.quantity, feed.quantity)
            place.events += 1
    return sums


def _events(customer_id: int, since: datetime) -> Iterator[Event]:
    """As they hold, page by page."""
    after: tuple[datetime, str] = since, _FIRST
    with connection.cursor() as cursor:
        while True:
            cursor.execute(_PAGE, [customer_id, *after, _AT_ONCE])
            found = [store.stored_event(fields) for _, *fields in cursor.fetchall()]
            yield from corrections.holding(found)
            if len(found) < _AT_ONCE:
                return
            after = found[-1].occurred_at, found[-1].digest


_FIRST: Final = "00000000-0000-0000-0000-000000000000"
_PAGE: Final = f"""{corrections.EVENTS}
WHERE customer_id = %s AND (occurred_at, identity) > (%s, %s::uuid) ORDER BY occurred_at, identity LIMIT %s"""


def _by_counters(customer_id: int, since: datetime) -> dict[_Place, _Sum]:
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED, {"customer": customer_id, "since": since})
        return {(meter, at): _Sum(quantity, events) for meter, at, quantity, events in cursor.fetchall()}


_COUNTED: Final = """
SELECT meter_id, starts_at, sum(quantity), sum(events)::bigint
FROM (
    SELECT meter_id, starts_at, quantity, events FROM billing_usagebucket
    WHERE customer_id = %(customer)s AND starts_at >= %(since)s
    UNION ALL
    SELECT meter, date_bin('15 minutes', starts_at, 'epoch'), quantity, number
    FROM billing_usagedelta, unnest(meters, quantities, events) AS each (meter, quantity, number)
    WHERE customer_id = %(customer)s AND starts_at >= %(since)s
) AS counted
GROUP BY meter_id, starts_at HAVING sum(events) <> 0 OR sum(quantity) <> 0
"""
