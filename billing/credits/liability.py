"""What the vendor still owes in credits: outstanding by grant, what is about to expire, breakage, utilisation.

Sums are made by the database, so a page costs the same few queries however many grants there are. Nothing is owed in a
sandbox.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.db import connection
from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from billing.credits.booking import with_rolled_out
from billing.credits.models import WITHDRAWN, AllocationCell, CreditGrant
from billing.credits.queries import GrantBalance, balance_of
from billing.money import CONTEXT, ZERO, mul_div

SOON: Final = (timedelta(days=30), timedelta(days=90))
_CHUNK: Final = 2000
_HUNDRED: Final = Decimal(100)


@dataclass(frozen=True, slots=True)
class UnitLiability:
    """Of all grants in a unit to customers with one currency. `value`: what is outstanding at what it was sold for.

    given = used + expired (breakage) + voided + outstanding; what rolled over counts where it is now.
    """

    unit: str
    currency: str
    grants: int
    given: Decimal
    used: Decimal
    expired: Decimal
    voided: Decimal
    outstanding: Decimal
    expires_soon: Decimal  # within the first of SOON
    expires_later: Decimal  # within the second, those included
    value: Decimal

    @property
    def utilisation(self) -> Decimal:
        """Percent of what was given that was used."""
        return mul_div(self.used, _HUNDRED, self.given) if self.given else ZERO

    @property
    def breakage(self) -> Decimal:
        """Percent of what was given that expired unused."""
        return mul_div(self.expired, _HUNDRED, self.given) if self.given else ZERO


def by_unit(at: datetime) -> list[UnitLiability]:
    """The sums, by unit and the customers' currency. One query."""
    first, second = (at + span for span in SOON)
    with connection.cursor() as cursor:
        cursor.execute(_BY_UNIT, {"at": at, "first": first, "second": second})
        return [UnitLiability(*row) for row in cursor.fetchall()]


def grants(at: datetime) -> Iterator[GrantBalance]:
    """Every grant with where it went, by customer and age. One query for each 2,000."""
    found = _with_used(CreditGrant.objects.all()).order_by("customer__key", "pk")
    return (balance_of(grant, grant.used, at) for grant in found.iterator(_CHUNK))


def outstanding(at: datetime) -> Any:
    """A query set of grants with something left, most first; `balance` says where each went."""
    usable = Q(voided_at=None) & (Q(expires_at=None) | Q(expires_at__gt=at))
    left = F("amount") + F("adjusted") + F("rolled_in") - F("rolled_out") - F("used")
    found = _with_used(CreditGrant.objects.filter(usable)).annotate(left=left).exclude(left=0)
    return found.order_by("-left", "pk")


def balance(grant: Any, at: datetime) -> GrantBalance:
    """Where a grant of `outstanding` went."""
    return balance_of(grant, grant.used, at)


def value(item: GrantBalance) -> Decimal | None:
    """What is outstanding of the grant at its cost basis; None for what was not sold."""
    basis = item.grant.cost_basis
    return None if basis is None else CONTEXT.multiply(item.remaining, basis)


def _with_used(found: QuerySet[CreditGrant]) -> QuerySet[Any]:
    cells = AllocationCell.objects.filter(grant=OuterRef("pk")).values("grant")
    used = Coalesce(Subquery(cells.values(used=Sum("posted"))), ZERO)
    found = with_rolled_out(found.exclude(WITHDRAWN)).filter(customer__test_clock=None)
    return found.annotate(used=used).select_related("customer")


# As booking.total_of and queries.balance_of say it of one grant.
_BY_UNIT: Final = """
WITH used AS (
    SELECT grant_id AS id, sum(posted) AS used FROM billing_allocationcell WHERE grant_id IS NOT NULL GROUP BY grant_id
), rolled AS (
    SELECT rolled_from_id AS id, sum(rolled_in) AS rolled_out FROM billing_creditgrant
    WHERE rolled_from_id IS NOT NULL GROUP BY rolled_from_id
), given AS (
    SELECT unit, currency, expires_at, voided_at, cost_basis,
           amount + adjusted + rolled_in - coalesce(rolled_out, 0) AS given, coalesce(used, 0) AS used
    FROM billing_creditgrant AS credit_grant
    JOIN accounts_customer AS customer ON customer.id = customer_id AND test_clock_id IS NULL
    LEFT JOIN used ON used.id = credit_grant.id
    LEFT JOIN rolled ON rolled.id = credit_grant.id
    WHERE voided_at IS NULL OR voided_at > effective_at
), placed AS (
    SELECT *, given - used AS rest,
           CASE WHEN voided_at IS NOT NULL THEN 'voided'
                WHEN expires_at <= %(at)s THEN 'expired' ELSE 'left' END AS place
    FROM given
)
SELECT unit, currency, count(*), sum(given), sum(used),
       coalesce(sum(rest) FILTER (WHERE place = 'expired'), 0),
       coalesce(sum(rest) FILTER (WHERE place = 'voided'), 0),
       coalesce(sum(rest) FILTER (WHERE place = 'left'), 0),
       coalesce(sum(rest) FILTER (WHERE place = 'left' AND expires_at <= %(first)s), 0),
       coalesce(sum(rest) FILTER (WHERE place = 'left' AND expires_at <= %(second)s), 0),
       coalesce(sum(rest * cost_basis) FILTER (WHERE place = 'left'), 0)
FROM placed GROUP BY unit, currency ORDER BY unit, currency
"""
