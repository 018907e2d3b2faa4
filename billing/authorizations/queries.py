"""Questions about holds."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from django.db.models import Min

from accounts.models import Customer
from billing.authorizations import store
from billing.authorizations.models import Authorization
from billing.credits import queries as credits
from billing.credits.queries import Balance
from billing.money import ZERO


def balances(customer: Customer, at: datetime, *, recorded_by: datetime | None = None) -> list[Balance]:
    """As `credits.queries.balances`, with what is reserved. Of an earlier day only the ledger is known."""
    found = credits.balances(customer, at, recorded_by=recorded_by)
    if recorded_by is not None:
        return found
    reserved = store.reserved(customer.pk, at)
    return [replace(balance, reserved=reserved.get(balance.unit, ZERO)) for balance in found]


def authorization(public_id: str) -> Authorization | None:
    """The authorization with its customer and holds."""
    found = Authorization.objects.filter(public_id=public_id).select_related("customer__test_clock")
    return found.prefetch_related("holds__account__budget").first()


def due_customers(at: datetime) -> list[int]:
    """Ids of customers in real time whose holds wait to be freed."""
    return store.due_customers(at)


def next_due(customer_ids: Collection[int], after: datetime) -> dict[int, datetime]:
    """By customer: when a hold expires next, after this instant."""
    found = Authorization.objects.filter(customer__in=customer_ids, settled_at=None, ended_at=None)
    return dict(found.filter(expires_at__gt=after).values_list("customer").annotate(Min("expires_at")))
