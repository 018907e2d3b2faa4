"""The facts that a decision rests on, for many customers in one round trip.

First the accounts are locked and what has expired is freed; then one statement reads everything else, in one snapshot.
It sees what was committed before the locks were ours, so what others hold of these accounts cannot move any more.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from django.db import connection

from accounts.prepared import array, together
from billing.authorizations import store
from billing.authorizations.store import Place
from billing.metering.queries import PENDING, Pending


class _Row(msgspec.Struct, array_like=True, gc=False):
    """As the statement below writes it, in this order."""


class Account(_Row):
    id: int
    unit: str
    budget: int | None
    reserved: Decimal


class GrantLeft(_Row):
    """A grant that can be spent now, with what the ledger says is left of it."""

    id: int
    left: Decimal
    unit: str
    kind: str
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    meters: list[str]
    amount: Decimal
    adjusted: Decimal
    rolled_in: Decimal
    forfeited: Decimal


class Stopping(_Row):
    """A budget that stops. See `Budget`."""

    id: int
    public_id: str
    name: str
    unit: str
    amount: Decimal
    stop_at_percent: Decimal
    used: Decimal
    used_from: datetime | None


class Sum(_Row):
    """What is held of an account, by meter."""

    account: int
    meter: str
    amount: Decimal


class Facts(_Row):
    """One customer at one moment.

    `version` grows with everything that moves its counters, and `agreed` differs when anything does that says what its
    usage costs. `ended`: what is reserved by holds that events ended. `held`: everything that is reserved, only where
    grants are for certain meters.
    """

    customer: int
    at: datetime
    version: int
    agreed: str
    is_parked: bool
    accounts: list[Account]
    grants: list[GrantLeft]
    stopping: list[Stopping]
    pending: list[Pending]
    ended: list[Sum]
    held: list[Sum] | None


def read(moments: Mapping[str, datetime]) -> tuple[dict[str, Facts], set[Place]]:
    """By customer key, of those that exist; their accounts are locked until the transaction ends, but for these places,
    whose accounts were opened while the others were waited for. `moments` is now, but for customers on a test clock."""
    asked = {"keys": array(moments.keys()), "ats": array(moments.values())}
    with together() as send:
        locked = send(_LOCK, asked)
        send(_EXPIRE, asked)
        found = send(_FACTS, asked)
    facts = {key: _decoder.decode(one) for key, one in found.fetchall()}
    ours = {pk for (pk,) in locked.fetchall()}
    accounts = [(one.customer, account) for one in facts.values() for account in one.accounts]
    return facts, {(customer, one.unit, one.budget) for customer, one in accounts if one.id not in ours}


def versions(customer_ids: Collection[int]) -> dict[int, int]:
    """By customer id, as in `Facts`, but of this moment."""
    with connection.cursor() as cursor:
        cursor.execute(_VERSIONS, [list(customer_ids)])
        return dict(cursor.fetchall())


_VERSIONS: Final = "SELECT customer_id, version FROM billing_watermark WHERE customer_id = ANY(%s)"
_decoder: Final = msgspec.json.Decoder(Facts)

_ASKED: Final = """
    SELECT customer.id, customer.key, coalesce(clock.now, asked.at) AS at
    FROM unnest(%(keys)s::text[], %(ats)s::timestamptz[]) AS asked (key, at)
    JOIN accounts_customer AS customer USING (key)
    LEFT JOIN accounts_testclock AS clock ON clock.id = customer.test_clock_id
"""
_LOCK: Final = """
SELECT id FROM billing_holdaccount
WHERE customer_id = ANY(ARRAY(SELECT id FROM accounts_customer WHERE key = ANY(%(keys)s::text[])))
ORDER BY id FOR NO KEY UPDATE
"""
# Whatever the statistics say, the few of each customer are looked up by their index.
_EXPIRE: Final = store.freeing(
    change="ended_at = expires_at, ended_by = 'expiry', settled_at = expires_at",
    which=f"""id = ANY(ARRAY(
        SELECT one.id FROM ({_ASKED}) AS customer, LATERAL (
            SELECT id FROM billing_authorization
            WHERE customer_id = customer.id AND settled_at IS NULL AND ended_at IS NULL AND expires_at <= customer.at
            ORDER BY expires_at OFFSET 0
        ) AS one
    ))""",  # noqa: S608 -- the parts are ours
    answer="SELECT FROM moved",
)


def _list(columns: Sequence[str], source: str) -> str:
    """The rows of a query as JSON, in its order."""
    return f"(SELECT coalesce(json_agg(json_build_array({', '.join(columns)})), '[]') FROM {source})"  # noqa: S608 -- the parts are ours


_HELD: Final = """
    SELECT account_id, meter, sum(amount) AS amount
    FROM billing_authorization AS one JOIN billing_hold ON authorization_id = one.id
    WHERE one.customer_id = customer.id AND settled_at IS NULL{} GROUP BY account_id, meter
"""
_USABLE: Final = """
    SELECT held.*, account.credits - account.debits AS "left"
    FROM billing_creditgrant AS held JOIN billing_ledgeraccount AS account ON account.grant_id = held.id
    WHERE held.customer_id = customer.id AND effective_at <= customer.at
        AND (expires_at IS NULL OR expires_at > customer.at) AND account.credits > account.debits
"""
# Whoever changes a row writes it anew, at another place and by another transaction: cheaper than to compare values.
_PRICED_BY: Final = """
    (SELECT string_agg(concat_ws(' ', period.ctid, period.xmin, part.ctid, part.xmin, paid.ctid, paid.xmin), ','
                       ORDER BY period.id, part.id)
     FROM billing_billingperiod AS period JOIN billing_subscription AS paid ON paid.id = period.subscription_id
     LEFT JOIN billing_plansegment AS part ON part.period_id = period.id
     WHERE period.customer_id = customer.id AND period.status <> 'closed'),
    (SELECT string_agg(concat_ws(' ', ctid, xmin), ',' ORDER BY id) FROM billing_priceoverride
     WHERE customer_id = customer.id)
"""
_FACTS: Final = f"""
WITH catalogue AS (
    SELECT md5(string_agg(concat_ws(' ', ctid, xmin), ',' ORDER BY id)) AS meters FROM billing_meter
)
SELECT customer.key, json_build_array(
    customer.id, customer.at, watermark.version,
    concat_ws('|', customer.id, (SELECT meters FROM catalogue), {_PRICED_BY}),
    EXISTS (SELECT FROM billing_settlement WHERE customer_id = customer.id AND parked_reason <> ''),
    {_list(["id", "unit", "budget_id", "reserved"], "billing_holdaccount WHERE customer_id = customer.id")},
    {_list([f'"{name}"' for name in GrantLeft.__struct_fields__], f"({_USABLE}) AS usable")},
    {
    _list(
        Stopping.__struct_fields__,
        '''(
        SELECT * FROM billing_budget WHERE customer_id = customer.id AND archived_at IS NULL
            AND stop_at_percent IS NOT NULL ORDER BY id
    ) AS stopping''',
    )
},
    {
    _list(
        [*Pending.__struct_fields__[:2], "dimensions::json", *Pending.__struct_fields__[3:]], f"({PENDING}) AS pending"
    )
},
    {_list(["account_id", "meter", "amount"], f"({_HELD.format(' AND ended_at IS NOT NULL')}) AS ended")},
    CASE WHEN EXISTS (
        SELECT FROM billing_creditgrant WHERE customer_id = customer.id AND meters <> '{{}}'
            AND (expires_at IS NULL OR expires_at > customer.at)
    )
        THEN {_list(["account_id", "meter", "amount"], f"({_HELD.format('')}) AS held")} END
)::text
FROM ({_ASKED}) AS customer JOIN billing_watermark AS watermark ON watermark.customer_id = customer.id
"""  # noqa: S608 -- the parts are ours
