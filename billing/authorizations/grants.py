"""Actions on grants, with all that follows from what they count and settle: budgets know of it, and holds are free.

Each is one transaction: a question that waits for its locks finds what is left, held and used of one moment.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from accounts.models import Customer
from billing.authorizations import services
from billing.credits import services as credits
from billing.credits.models import CreditGrant


@transaction.atomic
def grant(*, customer: Customer, at: datetime, **given: Any) -> CreditGrant:
    """As `credits.services.grant`."""
    return _followed(credits.grant(customer=customer, at=at, **given), at)


@transaction.atomic
def void(*, grant: CreditGrant, at: datetime, reason: str = "") -> CreditGrant:
    """As `credits.services.void`."""
    return _followed(credits.void(grant=grant, at=at, reason=reason), at)


@transaction.atomic
def adjust(*, grant: CreditGrant, amount: Decimal, reason: str, at: datetime) -> CreditGrant:
    """As `credits.services.adjust`."""
    return _followed(credits.adjust(grant=grant, amount=amount, reason=reason, at=at), at)


def _followed(grant: CreditGrant, at: datetime) -> CreditGrant:
    services.follow_all(customer_ids=[grant.customer_id], moved=[grant.customer_id], at=at)
    return grant
