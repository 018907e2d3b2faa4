"""Counting stored events with a meter that came, or got another dimension, after them: page by page, while events come.

Where the cut lies is exact: a meter changes while nobody counts (`store.change_catalogue`) and takes the catalogue's
next revision, and each event carries the highest revision of the meters that counted it.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from django.db import connection

from accounts.models import Customer
from billing.metering import corrections, counting
from billing.metering.appending import Delta
from billing.metering.counting import Counter
from billing.metering.judging import Event
from billing.metering.models import Backfill
from billing.metering.store import stored_event

PAGE: Final = 5_000  # events that one transaction looks at


def unfinished(meter_ids: Collection[int], *, hold: bool = False) -> dict[int, Backfill]:
    """By meter. With `hold` none moves on until the transaction ends."""
    found = Backfill.objects.filter(meter__in=meter_ids, finished_at=None).order_by("pk")
    return {one.meter_id: one for one in (found.select_for_update(of=("self",)) if hold else found)}


def counted_by(
    counters: Collection[Counter], event: Event, customer_id: int, backfills: Mapping[int, Backfill]
) -> list[Counter]:
    """The meters that counted this event, each as it did so far."""
    found = (_as_it_counted(one, event, customer_id, backfills.get(one.definition.id)) for one in counters)
    return [one for one in found if one is not None]


def _as_it_counted(counter: Counter, event: Event, customer_id: int, backfill: Backfill | None) -> Counter | None:
    if backfill is None or event.revision >= counter.definition.revision or _has_passed(backfill, customer_id, event):
        return counter
    return _before(counter, backfill)


def _has_passed(backfill: Backfill, customer_id: int, event: Event) -> bool:
    if backfill.identity is None:
        return False
    cursor = (backfill.customer_id, backfill.occurred_at, backfill.identity.hex)
    return (customer_id, event.occurred_at, event.digest) <= cursor


def _before(counter: Counter, backfill: Backfill) -> Counter | None:
    if backfill.dimensions_before is None:
        return None
    return counting.counter(replace(counter.definition, dimensions=tuple(backfill.dimensions_before)))


def next_page(backfill: Backfill, counter: Counter) -> list[Delta]:
    """What the counters change by for the next page of events; moves the cursor behind it."""
    old = _before(counter, backfill)
    start = (backfill.customer_id or 0, backfill.occurred_at, backfill.identity)
    with connection.cursor() as cursor:
        cursor.execute(_PAGE_END, [*start, PAGE - 1])
        end = cursor.fetchone()
        cursor.execute(
            _PAGE_EVENTS.format(end=_UP_TO if end else ""),
            [*start, counter.definition.event_type, counter.definition.revision, *(end or ())],
        )
        events = [(customer_id, stored_event(fields)) for customer_id, *fields in cursor.fetchall()]
    words = corrections.of([event.digest for _, event in events])
    changes: list[Delta] = []
    for customer_id, event in events:
        current = corrections.corrected(event, words.get(event.digest, []))
        if current is not None and not (old and _shares_what_decides(backfill, counter, event)):
            before = counting.counted_feeds([old] if old else [], current)
            changes += corrections.changes(event, customer_id, before, counting.counted_feeds([counter], current))
    backfill.events += len(events)
    if end:
        backfill.customer_id, backfill.occurred_at, backfill.identity = end
    backfill.percent = _percent(backfill) if end else 100
    return changes


def _shares_what_decides(backfill: Backfill, counter: Counter, event: Event) -> bool:
    """Whether an archived event may decide in its quarter hour, which could not be found again: it stays as it is."""
    return counter.is_ranked and corrections.may_be_archived(event.occurred_at, backfill.sees_from)


def _percent(backfill: Backfill) -> int:
    """By customers; rough, for somebody who waits."""
    passed = Customer.objects.filter(pk__lt=backfill.customer_id).count()
    return 100 * passed // max(Customer.objects.count(), 1)


# An absent cursor stands before every event.
_AFTER: Final = """
(customer_id, occurred_at, identity)
    > (%s, coalesce(%s, '-infinity'::timestamptz), coalesce(%s::uuid, '00000000-0000-0000-0000-000000000000'))
"""
_UP_TO: Final = " AND (event.customer_id, event.occurred_at, event.identity) <= (%s, %s, %s)"
_PAGE_END: Final = f"""
SELECT customer_id, occurred_at, identity FROM billing_usageevent WHERE {_AFTER}
ORDER BY customer_id, occurred_at, identity OFFSET %s LIMIT 1
"""  # noqa: S608 -- the parts are ours
_PAGE_EVENTS: Final = f"{corrections.EVENTS} WHERE {_AFTER} AND type = %s AND revision < %s {{end}}"
