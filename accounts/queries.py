"""Who belongs where."""

from collections.abc import Collection
from datetime import datetime

from django.db.models import Case, Q, QuerySet, Value, When

from accounts.models import ApiKey, Customer, Invitation, Membership, Role

_RANK = Case(*(When(role=role, then=Value(rank)) for rank, role in enumerate(Role)))


def memberships(customer: Customer) -> QuerySet[Membership]:
    """The members of a customer with their users: owners first, then by address."""
    return Membership.objects.filter(customer=customer).select_related("user").order_by(_RANK, "user__email")


def open_invitations(customer: Customer, at: datetime) -> QuerySet[Invitation]:
    """Invitations that can still be accepted, newest first."""
    pending = Invitation.objects.filter(customer=customer, accepted_at=None, revoked_at=None, expires_at__gt=at)
    return pending.select_related("invited_by").order_by("-created_at", "-id")


def valid_keys(customer: Customer, at: datetime) -> QuerySet[ApiKey]:
    """The customer's keys that work, newest first."""
    unexpired = Q(expires_at=None) | Q(expires_at__gt=at)
    return ApiKey.objects.filter(unexpired, customer=customer, revoked_at=None).select_related("created_by")


def clock_times(customer_ids: Collection[int]) -> dict[int, datetime]:
    """What the test clock says, by id, of those customers that are on one."""
    on_one = Customer.objects.filter(pk__in=customer_ids, test_clock__isnull=False)
    return dict(on_one.values_list("pk", "test_clock__now"))
