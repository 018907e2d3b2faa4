"""Seals: digests over a customer's ledger, each chained to the one before, so that a changed past is found.

Posting knows nothing of them. A sealer appends them afterwards, in due time, over whatever was posted since the last.
"""

from collections.abc import Iterator
from typing import Final

from django.db import connection

from billing.metering import services as metering

AT_ONCE: Final = 10_000  # transactions in a seal

# A transaction with its entries as one JSON array, in their order. Instants are in microseconds, so that no setting of
# the session can change the text.
_LINES: Final = """
    SELECT count(*) AS number, max(id) AS last, coalesce(string_agg(line, E'\\n' ORDER BY id), '') AS content
    FROM (
        SELECT id, json_build_array(
            id, public_id, code, idempotency_key, reason,
            (extract(epoch FROM effective_at) * 1000000)::bigint, (extract(epoch FROM recorded_at) * 1000000)::bigint,
            (SELECT json_agg(json_build_array(
                        entry.id, account_id, account.unit, account.kind, direction, amount, cell_id
                    ) ORDER BY entry.id)
             FROM billing_ledgerentry AS entry JOIN billing_ledgeraccount AS account ON account.id = account_id
             WHERE transaction_id = posted.id)
        )::text AS line
        FROM (
            SELECT * FROM billing_ledgertransaction WHERE {range} ORDER BY id {limit}
        ) AS posted
    ) AS line
"""
_DIGEST: Final = "encode(sha256(convert_to({previous} || E'\\n' || content, 'UTF8')), 'hex')"

_SEAL: Final = f"""
WITH head AS (
    SELECT number, through_id, digest FROM billing_ledgerseal
    WHERE customer_id = %(customer)s ORDER BY number DESC LIMIT 1
), lines AS (
    {
    _LINES.format(
        range="customer_id = %(customer)s AND id > coalesce((SELECT through_id FROM head), 0)", limit="LIMIT %(most)s"
    )
}
)
INSERT INTO billing_ledgerseal (customer_id, number, through_id, transactions, digest)
SELECT %(customer)s, coalesce((SELECT number FROM head), 0) + 1, last, number,
       {_DIGEST.format(previous="coalesce((SELECT digest FROM head), '')")}
FROM lines WHERE number > 0
RETURNING transactions
"""  # noqa: S608 -- the parts are ours

# Of one customer, or of all.
BROKEN: Final = f"""
SELECT concat_ws('/', seal.customer_id, seal.number)
FROM (
    SELECT *, lag(number, 1, 0::bigint) OVER own AS number_before, lag(through_id, 1, 0::bigint) OVER own AS after_id,
           lag(digest, 1, '') OVER own AS previous
    FROM billing_ledgerseal WHERE %(customer)s::bigint IS NULL OR customer_id = %(customer)s
    WINDOW own AS (PARTITION BY customer_id ORDER BY number)
) AS seal CROSS JOIN LATERAL ({
    _LINES.format(range="customer_id = seal.customer_id AND id > seal.after_id AND id <= seal.through_id", limit="")
}) AS lines
WHERE seal.number <> number_before + 1 OR lines.number <> transactions
    OR digest <> {_DIGEST.format(previous="previous")}
ORDER BY seal.customer_id, seal.number
"""  # noqa: S608 -- the parts are ours

_UNSEALED: Final = """
SELECT id FROM accounts_customer AS customer
WHERE coalesce((SELECT id FROM billing_ledgertransaction WHERE customer_id = customer.id ORDER BY id DESC LIMIT 1), 0)
    > coalesce((SELECT through_id FROM billing_ledgerseal WHERE customer_id = customer.id
                ORDER BY number DESC LIMIT 1), 0)
ORDER BY id
"""


def unsealed() -> list[int]:
    """Ids of the customers with transactions that no seal covers."""
    with connection.cursor() as cursor:
        cursor.execute(_UNSEALED)
        return [customer_id for (customer_id,) in cursor.fetchall()]


def seal(customer_id: int) -> int:
    """Needs a transaction, and takes the claim, so that no transaction with a lower id commits later. How many
    transactions the new seal covers; 0 when there was nothing to seal."""
    metering.claim(customer_id=customer_id)
    with connection.cursor() as cursor:
        cursor.execute(_SEAL, {"customer": customer_id, "most": AT_ONCE})
        row = cursor.fetchone()
    return row[0] if row else 0


def broken(customer_id: int | None = None) -> Iterator[str]:
    """Seals that do not fit what they were put on, or the seal before."""
    with connection.cursor() as cursor:
        cursor.execute(BROKEN, {"customer": customer_id})
        for (name,) in cursor.fetchall():
            yield f"a seal is broken: {name} is not the digest of its transactions and of the seal before"
