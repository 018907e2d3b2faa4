"""The rows of holds, in few statements: an authorization's critical section is one round trip, a write and the commit.

Whoever reserves or frees locks the customer's accounts first, by id, and authorizations afterwards: nobody waits in a
circle. Ingest ends authorizations without an account, so it never waits for one.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import connection

from accounts.prepared import array, together
from billing.authorizations.models import EndedBy

type Place = tuple[int, str, int | None]  # a customer, a unit, and the budget or none


def open_accounts(places: Collection[Place]) -> None:
    """Make the accounts that are missing."""
    rows = sorted(places, key=lambda place: (place[0], place[1], place[2] or 0))  # in one order, as locks are
    customers, units, budgets = map(list, zip(*rows, strict=True))
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, [customers, units, budgets])


class NewAuthorization(NamedTuple):
    public_id: str
    customer: int
    at: datetime
    expires_at: datetime


class NewHold(NamedTuple):
    authorization: str
    account: int
    meter: str
    amount: Decimal


def write(authorizations: Collection[NewAuthorization], holds: Collection[NewHold], *, commits: bool) -> None:
    """Store authorizations and reserve their holds, of accounts that are locked; and end the transaction in the same
    round trip, if it `commits`."""
    if not authorizations:
        return
    columns = {name: array([getattr(one, name) for one in authorizations]) for name in NewAuthorization._fields}
    columns |= {name: array([getattr(one, name) for one in holds]) for name in NewHold._fields}
    with together() as send:
        send(_WRITE, columns)
        if commits:
            send("COMMIT", {})  # the `commit` of the driver takes a round trip more


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
    """Who lives in real time and has holds that wait to be freed: they expired and no question came since, or an event
    ended them that no delta announces."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"expired": at - _LEFT_TO_QUESTIONS, "unannounced": at - _UNANNOUNCED})
        return [customer_id for (customer_id,) in cursor.fetchall()]


def forget(*, kept: timedelta, at: datetime, most: int) -> int:
    """Delete authorizations that were settled so long ago, in a sandbox by its clock; how many went."""
    parameters: dict[str, Any] = {"kept": kept, "at": at, "most": most}
    with connection.cursor() as cursor:
        cursor.execute(_FORGET, parameters)
        return int(cursor.rowcount)


def reserved(customer_id: int, at: datetime) -> dict[str, Decimal]:
    """What is reserved by unit; expired holds never count."""
    with connection.cursor() as cursor:
        cursor.execute(_RESERVED, {"customer": customer_id, "at": at})
        return dict(cursor.fetchall())


def freeing(*, change: str, which: str, answer: str) -> str:
    """The statement that ends some authorizations and takes their holds from the accounts, which are locked."""
    return f"""
WITH gone AS (
    UPDATE billing_authorization SET {change} WHERE settled_at IS NULL AND {which} RETURNING id
), freed AS (
    SELECT account_id, sum(amount) AS amount FROM gone, LATERAL (
        SELECT account_id, amount FROM billing_hold WHERE authorization_id = gone.id OFFSET 0
    ) AS hold GROUP BY account_id
), moved AS (
    UPDATE billing_holdaccount AS account SET reserved = reserved - amount
    FROM freed WHERE account.id = freed.account_id RETURNING account.id
)
{answer}
"""  # noqa: S608 -- the parts are ours


# By then the tick that the event's deltas asked for has come; an event that feeds no meter has none.
_UNANNOUNCED: Final = timedelta(seconds=2)
# The next question of the customer frees what has expired: that costs much less than a tick.
_LEFT_TO_QUESTIONS: Final = timedelta(seconds=1)

_LOCK: Final = """
SELECT FROM billing_holdaccount WHERE customer_id = %s ORDER BY id FOR NO KEY UPDATE
"""
_LOCK_ALL: Final = """
SELECT FROM billing_holdaccount WHERE customer_id = ANY(%s) ORDER BY id FOR NO KEY UPDATE
"""
_OPEN: Final = """
INSERT INTO billing_holdaccount (customer_id, unit, budget_id)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) ON CONFLICT DO NOTHING
"""
_WRITE: Final = """
WITH made AS (
    INSERT INTO billing_authorization (public_id, customer_id, created_at, expires_at)
    SELECT * FROM unnest(%(public_id)s::text[], %(customer)s::bigint[], %(at)s::timestamptz[],
                         %(expires_at)s::timestamptz[])
    RETURNING id, public_id
), wanted AS (
    SELECT * FROM unnest(%(authorization)s::text[], %(account)s::bigint[], %(meter)s::text[], %(amount)s::numeric[])
        AS wanted (public_id, account_id, meter, amount)
), held AS (
    INSERT INTO billing_hold (authorization_id, account_id, meter, amount)
    SELECT made.id, account_id, meter, amount FROM wanted JOIN made USING (public_id)
)
UPDATE billing_holdaccount AS account SET reserved = reserved + amount
FROM (SELECT account_id, sum(amount) AS amount FROM wanted GROUP BY account_id) AS added
WHERE account.id = added.account_id
"""
_END: Final = freeing(
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
_SETTLE: Final = freeing(
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
SELECT customer_id FROM (
    SELECT customer_id FROM billing_authorization WHERE settled_at IS NULL AND ended_at <= %(unannounced)s
    UNION
    SELECT customer_id FROM billing_authorization
    WHERE settled_at IS NULL AND ended_at IS NULL AND expires_at <= %(expired)s
) AS waiting JOIN accounts_customer AS customer ON customer.id = customer_id AND customer.test_clock_id IS NULL
ORDER BY 1
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
