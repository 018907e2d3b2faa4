"""Do the books agree with themselves? Each check answers the differences it finds, in words; it changes nothing.

They run at any time: each night, with `manage.py verify_ledger`, and after each step of the tests.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from django.db import connection

from accounts.models import Customer
from billing.credits import billed
from billing.credits.booking import book, key_of
from billing.credits.models import AllocationCell, Settlement
from billing.credits.sealing import broken
from billing.metering import queries as metering
from billing.metering import recount
from billing.metering.folding import MERGED
from billing.money import ZERO, plain
from billing.reads import snapshot
from billing.subscriptions.models import PeriodStatus
from billing.subscriptions.queries import periods

_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)

# Each finds rows that ought not to exist: (what, stored, summed).
_DIFFERENCES: Final = {
    "a day is not the sum of its buckets": f"""
        SELECT concat_ws('/', customer_id, meter_id, dimension_set_id, day), d.quantity, b.quantity
        FROM (SELECT customer_id, meter_id, dimension_set_id, day, quantity, events FROM billing_usageday
              WHERE OWN()) d
        FULL JOIN (
            SELECT customer_id, meter_id, dimension_set_id, (starts_at AT TIME ZONE 'UTC')::date AS day,
                   {MERGED} AS quantity, sum(events) AS events
            FROM billing_usagebucket JOIN billing_watermark w USING (customer_id)
            WHERE OWN() AND starts_at < w.summed_before GROUP BY 1, 2, 3, 4
        ) b USING (customer_id, meter_id, dimension_set_id, day)
        WHERE (d.quantity, d.events) IS DISTINCT FROM (b.quantity, b.events)""",  # noqa: S608 -- the parts are ours
    "a period total is not the sum of its buckets": f"""
        SELECT concat_ws('/', period_id, meter_id, dimension_set_id), t.quantity, b.quantity
        FROM (SELECT period_id, meter_id, dimension_set_id, quantity, events
              FROM billing_periodtotal JOIN billing_trackedperiod p ON p.id = period_id WHERE OWN(p)) t
        FULL JOIN (
            SELECT p.id AS period_id, u.meter_id, u.dimension_set_id,
                   {MERGED} AS quantity, sum(u.events) AS events
            FROM billing_trackedperiod p
            JOIN billing_usagebucket u ON u.customer_id = p.customer_id
                AND u.starts_at >= p.starts_at AND u.starts_at < p.ends_at
            WHERE OWN(p) GROUP BY 1, 2, 3
        ) b USING (period_id, meter_id, dimension_set_id)
        WHERE (t.quantity, t.events) IS DISTINCT FROM (b.quantity, b.events)""",  # noqa: S608 -- the parts are ours
    "a day has other members than its buckets": """
        SELECT concat_ws('/', customer_id, meter_id, dimension_set_id, day, member), d.events::numeric, b.events
        FROM (SELECT customer_id, meter_id, dimension_set_id, day, member, events FROM billing_daymember
              WHERE OWN()) d
        FULL JOIN (
            SELECT customer_id, meter_id, dimension_set_id, (starts_at AT TIME ZONE 'UTC')::date AS day, member,
                   sum(events) AS events
            FROM billing_bucketmember JOIN billing_watermark w USING (customer_id)
            WHERE OWN() AND starts_at < w.summed_before GROUP BY 1, 2, 3, 4, 5
        ) b USING (customer_id, meter_id, dimension_set_id, day, member)
        WHERE d.events IS DISTINCT FROM b.events""",
    "a period has other members than its buckets": """
        SELECT concat_ws('/', period_id, meter_id, dimension_set_id, member), t.events::numeric, b.events
        FROM (SELECT period_id, meter_id, dimension_set_id, member, events
              FROM billing_periodmember JOIN billing_trackedperiod p ON p.id = period_id WHERE OWN(p)) t
        FULL JOIN (
            SELECT p.id AS period_id, u.meter_id, u.dimension_set_id, u.member, sum(u.events) AS events
            FROM billing_trackedperiod p
            JOIN billing_bucketmember u ON u.customer_id = p.customer_id
                AND u.starts_at >= p.starts_at AND u.starts_at < p.ends_at
            WHERE OWN(p) GROUP BY 1, 2, 3, 4
        ) b USING (period_id, meter_id, dimension_set_id, member)
        WHERE t.events IS DISTINCT FROM b.events""",
    "a period total does not count its members": """
        SELECT concat_ws('/', period_id, meter_id, dimension_set_id), t.members::numeric, m.members
        FROM (SELECT period_id, meter_id, dimension_set_id, members
              FROM billing_periodtotal JOIN billing_trackedperiod p ON p.id = period_id WHERE OWN(p)) t
        FULL JOIN (
            SELECT period_id, meter_id, dimension_set_id, count(*) FILTER (WHERE events > 0)::numeric AS members
            FROM billing_periodmember JOIN billing_trackedperiod p ON p.id = period_id WHERE OWN(p) GROUP BY 1, 2, 3
        ) m USING (period_id, meter_id, dimension_set_id)
        WHERE t.members IS DISTINCT FROM m.members""",
    "a ledger transaction does not balance": """
        SELECT concat_ws('/', t.public_id, a.unit), sum(e.amount) FILTER (WHERE e.direction = 'debit'),
               sum(e.amount) FILTER (WHERE e.direction = 'credit')
        FROM billing_ledgerentry e
        JOIN billing_ledgertransaction t ON t.id = e.transaction_id
        JOIN billing_ledgeraccount a ON a.id = e.account_id
        WHERE OWN(t)
        GROUP BY t.public_id, a.unit
        HAVING sum(CASE e.direction WHEN 'debit' THEN e.amount ELSE -e.amount END) <> 0""",
    "what is reserved is not the sum of its holds": """
        SELECT concat_ws('/', a.customer_id, a.unit, a.budget_id), a.reserved, coalesce(h.amount, 0)
        FROM billing_holdaccount a
        LEFT JOIN (
            SELECT account_id, sum(amount) AS amount FROM billing_hold
            JOIN billing_authorization one ON one.id = authorization_id AND one.settled_at IS NULL
            WHERE OWN(one) GROUP BY account_id
        ) h ON h.account_id = a.id
        WHERE OWN(a) AND a.reserved <> coalesce(h.amount, 0)""",
    "an account's sums are not those of its entries": """
        SELECT concat_ws('/', a.customer_id, a.unit, a.kind, a.grant_id), a.credits - a.debits, e.balance
        FROM billing_ledgeraccount a
        LEFT JOIN (
            SELECT account_id,
                   coalesce(sum(amount) FILTER (WHERE direction = 'debit'), 0) AS debits,
                   coalesce(sum(amount) FILTER (WHERE direction = 'credit'), 0) AS credits,
                   sum(CASE direction WHEN 'credit' THEN amount ELSE -amount END) AS balance
            FROM billing_ledgerentry
            WHERE account_id IN (SELECT id FROM billing_ledgeraccount WHERE OWN()) GROUP BY account_id
        ) e ON e.account_id = a.id
        WHERE OWN(a) AND (a.debits, a.credits) IS DISTINCT FROM (coalesce(e.debits, 0), coalesce(e.credits, 0))""",
    "a cell is not the sum of its entries": """
        SELECT concat_ws('/', c.period_id, c.price_id, c.row, c.segment_starts_at, c.grant_id), c.posted, e.posted
        FROM billing_allocationcell c
        JOIN billing_billingperiod p ON p.id = c.period_id
        LEFT JOIN (
            SELECT e.cell_id, sum(CASE e.direction WHEN 'debit' THEN e.amount ELSE -e.amount END) AS posted
            FROM billing_ledgerentry e JOIN billing_ledgeraccount a ON a.id = e.account_id
            WHERE a.kind <> 'consumed' AND OWN(a) GROUP BY e.cell_id
        ) e ON e.cell_id = c.id
        WHERE OWN(p) AND c.posted IS DISTINCT FROM coalesce(e.posted, 0)""",
    "a billed line has another unit or period than it was billed with": """
        SELECT concat_ws('/', b.segment_id, b.price_id, b.row), b.amount, NULL::numeric
        FROM billing_billedline b
        JOIN billing_plansegment s ON s.id = b.segment_id
        JOIN billing_billingperiod own ON own.id = s.period_id
        JOIN billing_price price ON price.id = b.price_id
        LEFT JOIN billing_billingperiod other ON other.id = b.period_id
        WHERE OWN(own) AND (
            b.unit <> price.unit OR other.customer_id <> own.customer_id OR other.starts_at < own.starts_at
            OR CASE WHEN b.period_id = own.id THEN b.recorded_at <> own.billed_at
                    ELSE b.recorded_at <= own.billed_at END
        )""",
    "a grant's account was not given what the grant says": """
        SELECT g.public_id, g.amount + g.adjusted + g.rolled_in - coalesce(heirs.rolled, 0), e.given
        FROM billing_creditgrant g
        LEFT JOIN billing_ledgeraccount a ON a.grant_id = g.id
        LEFT JOIN (
            SELECT e.account_id, sum(CASE e.direction WHEN 'credit' THEN e.amount ELSE -e.amount END) AS given
            FROM billing_ledgerentry e JOIN billing_ledgertransaction t ON t.id = e.transaction_id
            WHERE t.code IN ('grant', 'adjustment', 'rollover') AND OWN(t) GROUP BY e.account_id
        ) e ON e.account_id = a.id
        LEFT JOIN (
            SELECT rolled_from_id, sum(rolled_in) AS rolled FROM billing_creditgrant WHERE OWN() GROUP BY 1
        ) heirs ON heirs.rolled_from_id = g.id
        WHERE OWN(g) AND g.amount + g.adjusted + g.rolled_in - coalesce(heirs.rolled, 0) IS DISTINCT FROM e.given""",
}


def differences(customer: Customer | None = None, *, since: datetime = _BEGINNING) -> Iterator[str]:
    """Everything that does not agree, of a customer or of all, one sentence each. Counters are compared with their
    events from `since` on. For one state of the database: see `books`."""
    customers = Customer.objects.order_by("pk") if customer is None else [customer]
    for what in _DIFFERENCES:
        yield from _query(what, customer)
    yield from broken(None if customer is None else customer.pk)
    for one in customers:
        if _is_up_to_date(one):
            yield from _lines_are_settled(one)
            yield from _lines_are_billed(one)
        yield from recount.differences(one.pk, since)


def books(customer: Customer, *, since: datetime) -> list[str]:
    """What does not agree in the books of a customer as they stand now, while others write."""
    with snapshot():
        return list(differences(customer, since=since))


_OWN: Final = re.compile(r"OWN\((\w*)\)")


def _query(what: str, customer: Customer | None) -> Iterator[str]:
    """OWN(t) stands for: the rows of t that are this customer's."""
    own = "TRUE" if customer is None else r"\1.customer_id = %(customer)s"
    sql = _OWN.sub(own, _DIFFERENCES[what]).replace(" .customer_id", " customer_id")
    with connection.cursor() as cursor:
        cursor.execute(sql, {"customer": None if customer is None else customer.pk})
        for name, stored, summed in cursor.fetchall():
            yield f"{what}: {name} says {_number(stored)}, its parts say {_number(summed)}"


def _number(value: Decimal | None) -> str:
    return "nothing" if value is None else plain(value)


def _is_up_to_date(customer: Customer) -> bool:
    """Whether everything is counted and settled."""
    state = Settlement.objects.filter(customer=customer).first()
    return state is not None and not state.parked_reason and metering.pending_since(customer.pk) is None


def _lines_are_settled(customer: Customer) -> Iterator[str]:
    """The cells of periods that are not closed are what allocation says."""
    unsettled = [period for period in periods(customer) if period.status != PeriodStatus.CLOSED]
    booking = book(customer, unsettled)
    for pk, target in booking.rolled.items():
        grant = booking.grants[pk]
        if grant.rolled_in != target:
            said = f"{grant.public_id} says {plain(grant.rolled_in)}, not {plain(target)}"
            yield f"a rollover is not what was left: {said}"
    targets = {key_of(cell): amount for cell, amount in booking.cells.items()}
    posted = {cell.key: cell.posted for cell in AllocationCell.objects.filter(period__in=unsettled)}
    for key in sorted(targets.keys() | posted.keys(), key=str):
        target, stored = targets.get(key, ZERO), posted.get(key, ZERO)
        if target != stored:
            yield f"a cell of {customer.key} is not what its line says: {key} says {plain(stored)}, not {plain(target)}"


def _lines_are_billed(customer: Customer) -> Iterator[str]:
    """What is billed of the lines of closed periods, then and later, adds up to what they are now."""
    closed = [period for period in periods(customer) if period.billed_at is not None]
    for line, then, now in billed.differences(closed):
        for (name, stored), target in zip(asdict(then).items(), asdict(now).values(), strict=True):
            if stored != target:
                yield (
                    f"what is billed of a line of {customer.key} is not the line: {name} of {'/'.join(map(str, line))}"
                    f" says {plain(Decimal(stored))}, not {plain(Decimal(target))}"
                )
