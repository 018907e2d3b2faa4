"""What metering knows of one event: what it says, what holds of it, and which meters it feeds."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from django.db import connection
from django.db.models import Sum

from accounts.models import Customer
from billing.metering import capping, corrections, counting, queries, store
from billing.metering.counter_models import PeriodMember
from billing.metering.judging import Event
from billing.metering.models import EventCorrection, Meter
from billing.periods import quarter_floor


@dataclass(frozen=True, slots=True)
class Fed:
    """What the event adds to a meter, in the quarter hour that begins at `starts_at`."""

    meter: Meter
    starts_at: datetime
    dimensions: Mapping[str, str]
    feed: counting.Feed

    @property
    def quantity(self) -> Decimal:
        """A unique meter counts one member."""
        return Decimal(1) if self.feed.member else self.feed.quantity


@dataclass(frozen=True, slots=True)
class EventReceipt:
    """The event as it was sent; its customer, unless it waits for one; and what its last correction makes it feed."""

    event: Event
    customer: Customer | None
    corrections: list[EventCorrection]
    is_void: bool
    fed: list[Fed]


def receipt(source: str, event_id: str) -> EventReceipt:
    """Raises corrections.UnknownEvent and ArchivedEvent."""
    found = corrections.find(source, event_id)
    customer = Customer.objects.filter(pk=found.customer_id).first() if found.customer_id else None
    current = found.current
    fed = _fed(current, customer.pk) if current and customer else []
    return EventReceipt(found.event, customer, found.corrections, current is None, fed)


def latest_fed(
    customer: Customer, meter: Meter, *, starts_at: datetime, ends_at: datetime, most: int
) -> list[tuple[Event, Fed]]:
    """The latest events of the range that feed the meter, as they hold, with what they add; looks at `most` at most.
    Their dimensions are as they were sent: prices name no value that is counted elsewhere."""
    counter = counting.counter(store.definitions_of([meter.pk])[0])
    with connection.cursor() as cursor:
        cursor.execute(_LATEST, [customer.pk, starts_at, ends_at, meter.event_type, most])
        events = [store.stored_event(fields) for _, *fields in cursor.fetchall()]
    return [
        (event, Fed(meter, quarter_floor(event.occurred_at), msgspec.json.decode(feed.dimensions), feed))
        for event in corrections.holding(events)
        for feed in counting.counted_feeds([counter], event)
    ]


_LATEST: Final = (
    corrections.EVENTS
    + """WHERE customer_id = %s AND occurred_at >= %s AND occurred_at < %s AND type = %s
ORDER BY occurred_at DESC, identity LIMIT %s"""
)


def _fed(event: Event, customer_id: int) -> list[Fed]:
    counters = map(counting.counter, store.definitions([event.type]))
    feeds = counting.counted_feeds(counters, event)
    meters = Meter.objects.in_bulk([feed.meter_id for feed in feeds])
    starts_at = quarter_floor(event.occurred_at)
    elsewhere = capping.placed(customer_id, starts_at, {feed.dimensions for feed in feeds})
    return [
        Fed(
            meters[feed.meter_id],
            starts_at,
            msgspec.json.decode(elsewhere.get(feed.dimensions, feed.dimensions)),
            feed,
        )
        for feed in feeds
    ]


def decides(
    fed: Fed, customer: Customer, *, starts_at: datetime, ends_at: datetime, beside: Collection[queries.MeterTotal]
) -> bool:
    """Whether the quantity of a meter that does not add up would be another without this event, in a tracked period
    and among the sets `beside` it."""
    if fed.feed.rank is not None:
        return fed.feed.rank == max((one.rank or "" for one in beside), default="")
    same = PeriodMember.objects.filter(
        period__customer=customer,
        period__starts_at=starts_at,
        period__ends_at=ends_at,
        meter=fed.meter,
        member=fed.feed.member or "",
        dimension_set__in=[one.set_id for one in beside],
    )
    events: int | None = same.aggregate(events=Sum("events"))["events"]
    return events == 1
