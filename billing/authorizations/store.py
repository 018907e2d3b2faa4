"""The rows of holds, in few statements: an authorization's critical section is one round trip, a write and the commit.

Whoever reserves or frees locks the customer's accounts first, by id, and authorizations afterwards: nobody waits in a
circle. Ingest ends authorizations without an account, so it never waits for one.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import connection

from billing.authorizations.models import EndedBy


class Account(NamedTuple):
    id: int
    unit: str
    budget: int | None
    reserved: Decimal


@dataclass(frozen=True, slots=True)
class Locked:
    """The customer's accounts, ours until the transaction ends, and the version of everything else that counts."""

    version: int
    accounts: list[Account]

    def of_unit(self, unit: str) -> Account | None:
        return next((one for one in self.accounts if one.budget is None and one.unit == unit), None)

    def of_budget(self, budget: int) -> Account | None:
        return next((one for one in self.accounts if one.budget == budget), None)


def version(customer_id: int) -> int:
    """Grows with everything that moves the customer's ledger or budgets, and with everything that frees a hold: its
    usage may have come since, and waits to be counted."""
    with connection.cursor() as cursor:
        cursor.execute(_VERSION, [customer_id])
        row = cursor.fetchone()
    return row[0] if row else 0


def lock(customer_id: int, at: datetime) -> Locked:
    """Lock the customer's accounts and free what has expired. One round trip: each statement sees all that was
    committed before it, so the version is that of the moment after the lock."""
    connection.ensure_connection()
    with connection.cursor() as accounts, connection.cursor() as expired, connection.cursor() as versions:
        with connection.wrap_database_errors, connection.connection.pipeline():
            accounts.execute(_LOCK, [customer_id])
            expired.execute(_EXPIRE, {"customer": customer_id, "at": at})
            versions.execute(_VERSION, [customer_id])
        freed: dict[int, Decimal] = dict(expired.fetchall())
        found = [Account(pk, unit, budget, freed.get(pk, reserved)) for pk, unit, budget, reserved in accounts]
        row = versions.fetchone()
    return Locked(row[0] if row else 0, found)


def open_accounts(customer_id: int, units: Iterable[str], budgets: Mapping[int, str]) -> None:
    """Make the accounts that are missing."""
    rows = [*((unit, None) for unit in units), *((unit, budget) for budget, unit in budgets.items())]
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, [customer_id, [unit for unit, _ in rows], [budget for _, budget in rows]])


class NewHold(NamedTuple):
    account: int
    meter: str
    amount: Decimal


def write(*, public_id: str, customer_id: int, at: datetime, expires_at: datetime, holds: Collection[NewHold]) -> None:
    """Store an authorization and reserve its holds, of accounts that are locked."""
    parameters: dict[str, Any] = {
        "public_id": public_id,
        "customer": customer_id,
        "at": at,
        "expires_at": expires_at,
        "accounts": [hold.account for hold in holds],
        "meters": [hold.meter for hold in holds],
        "amounts": [hold.amount for hold in holds],
    }
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, parameters)


def end(customer_id: int, public_id: str, ended_by: EndedBy, at: datetime) -> bool:
    """End an open authorization and free its holds; whether it was open."""
    parameters: dict[str, Any] = {"customer": customer_id, "public_id": public_id, "ended_by": ended_by.value, "at": at}
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [customer_id])
        cursor.execute(_END, parameters)
        (ended,) = cursor.fetchone()
    return bool(ended)


def end_by_events(names: Iterable[tuple[str, str]], ended_by: EndedBy, at: datetime) -> dict[tuple[str, str], int]:
    """End the open ones of these (authorization, customer key); those that were, with the customer's id. They stay
    reserved until they are settled."""
    wanted = sorted(set(names))
    parameters: dict[str, Any] = {
        "ids": [public_id for public_id, _ in wanted],
        "keys": [key for _, key in wanted],
        "ended_by": ended_by.value,
        "at": at,
    }
    with connection.cursor() as cursor:
        cursor.execute(_END_BY_EVENTS, parameters)
        return {(public_id, key): customer_id for public_id, key, customer_id in cursor.fetchall()}


def settle(customer_ids: Collection[int], counted: Collection[str], at: datetime) -> set[int]:
    """Free the authorizations whose events are `counted`, and those that have expired; whose they were."""
    parameters: dict[str, Any] = {"customers": list(customer_ids), "counted": list(counted), "at": at}
    with connection.cursor() as cursor:
        cursor.execute(_TO_SETTLE, parameters)
        waiting = sorted({customer_id for (customer_id,) in cursor.fetchall()})
        if waiting:
            cursor.execute(_LOCK_ALL, [waiting])
            cursor.execute(_SETTLE, parameters | {"customers": waiting})
    return set(waiting)


def due_customers(at: datetime) -> list[int]:
    """Who lives in real time and has holds that wait to be freed: by expiry, or because an event ended them that no
    delta announces."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"at": at, "unannounced": at - _UNANNOUNCED})
        return [customer_id for (customer_id,) in cursor.fetchall()]


def forget(*, kept: timedelta, at: datetime, most: int) -> int:
    """Delete authorizations that were settled so long ago, in a sandbox by its clock; how many went."""
    parameters: dict[str, Any] = {"kept": kept, "at": at, "most": most}
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, parameters)
        return int(cursor.rowcount)


class Sum(NamedTuple):
    """What is reserved of a unit (or of a budget), by meter."""

    unit: str
    budget: int | None
    meter: str
    amount: Decimal


def reserved_sums(customer_id: int, *, only_ended: bool) -> list[Sum]:
    """By account and meter, of everything that is reserved, or only of what events ended."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMS, {"customer": customer_id, "only_ended": only_ended})
        return [Sum(*row) for row in cursor.fetchall()]


def reserved(customer_id: int, at: datetime) -> dict[str, Decimal]:
    """What is reserved by unit; expired holds never count."""
    with connection.cursor() as cursor:
        cursor.execute(_RESERVED, {"customer": customer_id, "at": at})
        return dict(cursor.fetchall())


# By then the tick that the event's deltas asked for has come; an event that feeds no meter has none.
_UNANNOUNCED: Final = timedelta(seconds=2)

_VERSION: Final = """
SELECT version + coalesce((SELECT sum(frees) FROM billing_holdaccount AS held
                           WHERE held.customer_id = billing_watermark.customer_id), 0)::bigint
FROM billing_watermark WHERE customer_id = %s
"""
_LOCK: Final = """
SELECT id, unit, budget_id, reserved FROM billing_holdaccount WHERE customer_id = %s ORDER BY id FOR NO KEY UPDATE
"""
_LOCK_ALL: Final = """
SELECT FROM billing_holdaccount WHERE customer_id = ANY(%s) ORDER BY id FOR NO KEY UPDATE
"""
_OPEN: Final = """
INSERT INTO billing_holdaccount (customer_id, unit, budget_id)
SELECT %s, * FROM unnest(%s::text[], %s::bigint[]) ON CONFLICT DO NOTHING
"""
_WRITE: Final = """
WITH made AS (
    INSERT INTO billing_authorization (public_id, customer_id, created_at, expires_at)
    VALUES (%(public_id)s, %(customer)s, %(at)s, %(expires_at)s) RETURNING id
), wanted AS (
    SELECT * FROM unnest(%(accounts)s::bigint[], %(meters)s::text[], %(amounts)s::numeric[])
        AS wanted (account_id, meter, amount)
), held AS (
    INSERT INTO billing_hold (authorization_id, account_id, meter, amount)
    SELECT made.id, wanted.* FROM made, wanted
)
UPDATE billing_holdaccount AS account SET reserved = reserved + amount
FROM (SELECT account_id, sum(amount) AS amount FROM wanted GROUP BY account_id) AS added
WHERE account.id = added.account_id
"""
# Ends some authorizations and takes their holds from the accounts, which are locked.
_FREE: Final = """
WITH gone AS (
    UPDATE billing_authorization SET {change} WHERE settled_at IS NULL AND {which} RETURNING id
), freed AS (
    SELECT account_id, sum(amount) AS amount FROM billing_hold
    WHERE authorization_id IN (SELECT id FROM gone) GROUP BY account_id
), moved AS (
    UPDATE billing_holdaccount AS account SET reserved = reserved - amount, frees = frees + 1
    FROM freed WHERE account.id = freed.account_id RETURNING account.id, account.reserved
)
{answer}
"""
_EXPIRE: Final = _FREE.format(
    change="ended_at = expires_at, ended_by = 'expiry', settled_at = expires_at",
    which="customer_id = %(customer)s AND ended_at IS NULL AND expires_at <= %(at)s",
    answer="SELECT id, reserved FROM moved",
)
_END: Final = _FREE.format(
    change="ended_at = %(at)s, ended_by = %(ended_by)s, settled_at = %(at)s",
    which="customer_id = %(customer)s AND public_id = %(public_id)s AND ended_at IS NULL AND expires_at > %(at)s",
    answer="SELECT count(*) FROM gone",
)
_TO_SETTLE: Final = """
SELECT customer_id FROM billing_authorization WHERE public_id = ANY(%(counted)s::text[]) AND settled_at IS NULL
UNION
SELECT customer_id FROM billing_authorization
WHERE customer_id = ANY(%(customers)s) AND settled_at IS NULL AND ended_at IS NULL AND expires_at <= %(at)s
"""
_SETTLE: Final = _FREE.format(
    change="""settled_at = %(at)s, ended_at = coalesce(ended_at, expires_at),
        ended_by = CASE WHEN ended_at IS NULL THEN 'expiry' ELSE ended_by END""",
    which="""(public_id = ANY(%(counted)s::text[])
        OR customer_id = ANY(%(customers)s) AND ended_at IS NULL AND expires_at <= %(at)s)""",
    answer="SELECT FROM moved",
)
_END_BY_EVENTS: Final = """
WITH named AS (
    SELECT one.id, key, coalesce(clock.now, %(at)s) AS at
    FROM unnest(%(ids)s::text[], %(keys)s::text[]) AS named (public_id, customer_key)
    JOIN billing_authorization AS one USING (public_id)
    JOIN accounts_customer AS customer ON customer.id = one.customer_id AND customer.key = named.customer_key
    LEFT JOIN accounts_testclock AS clock ON clock.id = customer.test_clock_id
    WHERE one.ended_at IS NULL AND one.expires_at > coalesce(clock.now, %(at)s)
    ORDER BY one.id FOR NO KEY UPDATE OF one
)
UPDATE billing_authorization AS one SET ended_at = named.at, ended_by = %(ended_by)s
FROM named WHERE one.id = named.id RETURNING one.public_id, named.key, one.customer_id
"""
_DUE: Final = """
SELECT DISTINCT customer_id FROM billing_authorization
JOIN accounts_customer AS customer ON customer.id = customer_id AND customer.test_clock_id IS NULL
WHERE settled_at IS NULL AND (ended_at <= %(unannounced)s OR ended_at IS NULL AND expires_at <= %(at)s) ORDER BY 1
"""
# Only a sandbox settles in the future. The second condition keeps to the ends of the index, where few are.
_FORGET: Final = """
WITH old AS (
    SELECT one.id FROM billing_authorization AS one
    JOIN accounts_customer AS customer ON customer.id = one.customer_id
    LEFT JOIN accounts_testclock AS clock ON clock.id = customer.test_clock_id
    WHERE settled_at < coalesce(clock.now, %(at)s) - %(kept)s
        AND (settled_at < %(at)s - %(kept)s OR settled_at > %(at)s)
    LIMIT %(most)s FOR UPDATE OF one SKIP LOCKED
), holds AS (
    DELETE FROM billing_hold WHERE authorization_id IN (SELECT id FROM old)
)
DELETE FROM billing_authorization WHERE id IN (SELECT id FROM old)
"""
_SUMS: Final = """
SELECT account.unit, account.budget_id, hold.meter, sum(hold.amount)
FROM billing_authorization AS one
JOIN billing_hold AS hold ON hold.authorization_id = one.id
JOIN billing_holdaccount AS account ON account.id = hold.account_id
WHERE one.customer_id = %(customer)s AND one.settled_at IS NULL
    AND (one.ended_at IS NOT NULL OR NOT %(only_ended)s)
GROUP BY 1, 2, 3
"""
_RESERVED: Final = """
SELECT account.unit, account.reserved - coalesce(sum(hold.amount) FILTER (WHERE one.id IS NOT NULL), 0)
FROM billing_holdaccount AS account
LEFT JOIN (
    billing_authorization AS one JOIN billing_hold AS hold ON hold.authorization_id = one.id
) ON hold.account_id = account.id AND one.customer_id = account.customer_id AND one.settled_at IS NULL
    AND one.ended_at IS NULL AND one.expires_at <= %(at)s
WHERE account.customer_id = %(customer)s AND account.budget_id IS NULL
GROUP BY account.id
"""
