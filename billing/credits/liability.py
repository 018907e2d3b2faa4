"""What the vendor still owes in credits: outstanding by grant, what is about to expire, breakage, utilisation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce

from billing.credits.booking import with_rolled_out
from billing.credits.models import WITHDRAWN, AllocationCell, CreditGrant
from billing.credits.queries import GrantBalance, balance_of
from billing.money import CONTEXT, ZERO, exact, mul_div

SOON: Final = (timedelta(days=30), timedelta(days=90))
_CHUNK: Final = 2000
_HUNDRED: Final = Decimal(100)


@dataclass(slots=True)
class UnitLiability:
    """Of all grants in a unit to customers with one currency. `value`: what is outstanding at what it was sold for.

    given = used + expired (breakage) + voided + outstanding; what rolled over counts where it is now.
    """

    unit: str
    currency: str
    grants: int = 0
    given: Decimal = ZERO
    used: Decimal = ZERO
    expired: Decimal = ZERO
    voided: Decimal = ZERO
    outstanding: Decimal = ZERO
    expiring: tuple[Decimal, Decimal] = (ZERO, ZERO)  # within each of SOON
    value: Decimal = ZERO

    @property
    def utilisation(self) -> Decimal:
        """Percent of what was given that was used."""
        return mul_div(self.used, _HUNDRED, self.given) if self.given else ZERO

    @property
    def breakage(self) -> Decimal:
        """Percent of what was given that expired unused."""
        return mul_div(self.expired, _HUNDRED, self.given) if self.given else ZERO


def grants(at: datetime) -> Iterator[GrantBalance]:
    """Every grant with where it went, by customer and age; nothing is owed in a sandbox. One query for each 2,000."""
    cells = AllocationCell.objects.filter(grant=OuterRef("pk")).values("grant")
    used = Coalesce(Subquery(cells.values(used=Sum("posted"))), ZERO)
    found = (
        with_rolled_out(CreditGrant.objects.exclude(WITHDRAWN)).filter(customer__test_clock=None).annotate(used=used)
    )
    for grant in found.select_related("customer").order_by("customer__key", "pk").iterator(_CHUNK):
        yield balance_of(grant, grant.used, at)


def value(item: GrantBalance) -> Decimal | None:
    """What is outstanding of the grant at its cost basis; None for what was not sold."""
    basis = item.grant.cost_basis
    return None if basis is None else CONTEXT.multiply(item.remaining, basis)


@exact()
def by_unit(items: Iterable[GrantBalance], at: datetime) -> list[UnitLiability]:
    """The sums, by unit and the customers' currency."""
    found: dict[tuple[str, str], UnitLiability] = {}
    for item in items:
        key = item.grant.unit, item.grant.customer.currency
        one = found.setdefault(key, UnitLiability(*key))
        one.grants += 1
        one.given += item.total - item.rolled_out
        one.used += item.used
        one.expired += item.expired
        one.voided += item.voided
        one.outstanding += item.remaining
        one.value += value(item) or ZERO
        ends = item.grant.expires_at
        first, second = (item.remaining if ends is not None and ends <= at + span else ZERO for span in SOON)
        one.expiring = one.expiring[0] + first, one.expiring[1] + second
    return [found[key] for key in sorted(found)]
