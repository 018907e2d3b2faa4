"""Questions for the operator's page about what comes in: is it on time, and what of it is not counted?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db import connection
from django.db.models import Q, QuerySet, Sum

from billing.metering import partitions, queries
from billing.metering.counter_models import DimensionUse
from billing.metering.folding import DIRTY
from billing.metering.models import Backfill, EventCorrection, RefusedItems, UnmatchedReason

MOST: Final = 50  # rows of each table
_RECENT: Final = timedelta(minutes=1)
_NEAR_LIMIT: Final = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Pulse:
    """How events come in and are counted. Lateness is from the sender's time to ours; None where nothing came."""

    events: int
    late_median_s: float | None
    late_p99_s: float | None
    waiting_customers: int
    counted_at: datetime | None


@dataclass(frozen=True, slots=True)
class UnmatchedGroup:
    """Unmatched events that lack the same thing, with the latest as a sample."""

    reason: UnmatchedReason
    customer_key: str
    type: str
    events: int
    first_at: datetime
    last_at: datetime
    source: str
    event_id: str
    properties: str


@dataclass(frozen=True, slots=True)
class CorrectedEvent:
    """A correction, and the event it is about; no event where that is archived."""

    kind: str
    reason: str
    recorded_at: datetime
    by: str
    source: str | None
    event_id: str | None
    customer_key: str | None


def pulse(at: datetime) -> Pulse:
    with connection.cursor() as cursor:
        cursor.execute(_PULSE, {"since": at - _RECENT})
        return Pulse(*cursor.fetchone())


def unmatched_groups() -> list[UnmatchedGroup]:
    """The most frequent first."""
    with connection.cursor() as cursor:
        cursor.execute(_UNMATCHED, [MOST])
        return [UnmatchedGroup(UnmatchedReason(reason), *rest) for reason, *rest in cursor.fetchall()]


def refused_groups() -> Sequence[RefusedItems]:
    """The latest of each code, key and source with its `total`, the latest first."""
    return list(queries.refused().order_by("-pk")[:MOST])


def refused_since(since: datetime) -> int:
    found: int | None = RefusedItems.objects.filter(recorded_at__gte=since).aggregate(items=Sum("items"))["items"]
    return found or 0


def backfills() -> QuerySet[Backfill]:
    """Those that run, then the latest that are done."""
    return Backfill.objects.select_related("meter").order_by("-finished_at", "-pk")[:MOST]  # nulls first


def crowded_dimensions(at: datetime, limit: int) -> QuerySet[DimensionUse]:
    """Dimensions that count under (other) this month, or soon will."""
    crowded = Q(capped_at__isnull=False) | Q(values__gte=int(limit * _NEAR_LIMIT))
    found = DimensionUse.objects.filter(crowded, month=partitions.month_of(at))
    return found.select_related("customer").order_by("capped_at", "-values")[:MOST]


def corrected_events() -> list[CorrectedEvent]:
    """The latest corrections."""
    with connection.cursor() as cursor:
        cursor.execute(_CORRECTED, [MOST])
        return [CorrectedEvent(*row) for row in cursor.fetchall()]


def corrections_since(since: datetime) -> int:
    return EventCorrection.objects.filter(recorded_at__gte=since).count()


_PULSE: Final = f"""
WITH RECURSIVE {DIRTY}
SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY late), percentile_cont(0.99) WITHIN GROUP (ORDER BY late),
       (SELECT count(customer_id) FROM dirty), (SELECT max(counted_through) FROM billing_watermark)
FROM (SELECT extract(epoch FROM recorded_at - occurred_at)::float AS late
      FROM billing_usageevent WHERE recorded_at >= %(since)s) AS recent
"""  # noqa: S608 -- the parts are ours
_UNMATCHED: Final = """
SELECT reason, customer_key, type, events, first_at, last_at, source, event_id, left(properties::text, 500)
FROM (SELECT reason, customer_key, type, count(*) AS events, min(recorded_at) AS first_at, max(recorded_at) AS last_at,
             max(id) AS latest
      FROM billing_unmatchedevent GROUP BY reason, customer_key, type
      ORDER BY events DESC, latest DESC LIMIT %s) AS grouped
JOIN (SELECT id, source, event_id, properties FROM billing_unmatchedevent) AS sample ON sample.id = latest
ORDER BY events DESC, latest DESC
"""
# An event is found by its identity and when it was recorded.
_CORRECTED: Final = """
SELECT kind, reason, correction.recorded_at, coalesce(key.name, ''), source, event_id, customer_key
FROM (SELECT * FROM billing_eventcorrection ORDER BY id DESC LIMIT %s) AS correction
LEFT JOIN accounts_apikey AS key ON key.id = correction.api_key_id
LEFT JOIN billing_eventidentity AS known ON known.digest = correction.identity
LEFT JOIN LATERAL (
    SELECT source, event_id, customer.key AS customer_key
    FROM billing_usageevent AS event JOIN accounts_customer AS customer ON customer.id = event.customer_id
    WHERE event.recorded_at = known.recorded_at AND event.identity = correction.identity
    UNION ALL
    SELECT source, event_id, customer_key FROM billing_unmatchedevent WHERE identity = correction.identity
) AS event ON true
ORDER BY correction.id DESC
"""
