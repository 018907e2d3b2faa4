"""Usage minute by minute, of one meter and all its dimensions together, for the last `folding.MINUTES_KEPT`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection

from accounts.models import Customer
from billing.metering.counter_models import MinuteMember, UsageMinute
from billing.metering.folding import MINUTES_STORED
from billing.metering.models import Aggregation, Meter
from billing.money import ZERO, total


@dataclass(frozen=True, slots=True)
class MinuteSeries:
    """Quantities by the start of their minute; minutes without usage are left out. `total` is that of the range."""

    quantities: Mapping[datetime, Decimal]
    total: Decimal


def series(customer: Customer, meter: Meter, *, starts_at: datetime, ends_at: datetime) -> MinuteSeries:
    """Usage in [starts_at, ends_at), which lie on minutes. One query."""
    if meter.aggregation == Aggregation.UNIQUE:
        return _members(customer, meter, starts_at, ends_at)
    found = UsageMinute.objects.filter(customer=customer, meter=meter, events__gt=0)
    found = found.filter(starts_at__gte=starts_at, starts_at__lt=ends_at).order_by("starts_at")
    rows = list(found.values_list("starts_at", "quantity", "rank"))
    quantities = {minute: quantity for minute, quantity, _ in rows}
    if meter.is_additive:
        return MinuteSeries(quantities, total(quantities.values()))
    _, decisive = max(((rank or "", quantity) for _, quantity, rank in rows), default=("", ZERO))
    return MinuteSeries(quantities, decisive)


def _members(customer: Customer, meter: Meter, starts_at: datetime, ends_at: datetime) -> MinuteSeries:
    with connection.cursor() as cursor:
        cursor.execute(_MEMBERS, [customer.pk, meter.pk, starts_at, ends_at])
        rows = cursor.fetchall()
    quantities = {minute: Decimal(members) for minute, members, _ in rows}
    return MinuteSeries(quantities, Decimal(sum(newcomers for *_, newcomers in rows)))


_MEMBERS: Final = """
SELECT starts_at, count(*), count(*) FILTER (WHERE is_new)
FROM (SELECT starts_at, row_number() OVER (PARTITION BY member ORDER BY starts_at) = 1 AS is_new
      FROM billing_minutemember
      WHERE customer_id = %s AND meter_id = %s AND starts_at >= %s AND starts_at < %s AND events > 0) AS seen
GROUP BY starts_at ORDER BY starts_at
"""


def forget(before: datetime, most: int) -> int:
    """Delete minutes that began before an instant, and as long before the time of their customer's test clock. How many
    rows went; at most `most` of each kind."""
    gone = 0
    with connection.cursor() as cursor:
        for model in (UsageMinute, MinuteMember):
            parameters: dict[str, Any] = {"before": before, "stored": MINUTES_STORED, "most": most}
            cursor.execute(_FORGET.format(table=model._meta.db_table), parameters)
            gone += cursor.rowcount
    return gone


_FORGET: Final = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT old.ctid FROM {table} AS old
    WHERE starts_at < %(before)s AND NOT EXISTS (
        SELECT FROM accounts_customer AS customer JOIN accounts_testclock AS clock ON clock.id = customer.test_clock_id
        WHERE customer.id = old.customer_id AND starts_at >= clock.now - %(stored)s)
    ORDER BY starts_at LIMIT %(most)s FOR UPDATE OF old SKIP LOCKED))
"""
