"""HTTP manners of the customer's window: who asks about which customer, and what they may there."""

from collections.abc import Collection
from dataclasses import dataclass

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django_htmx.middleware import HtmxDetails

from accounts.models import Customer, Membership, Role, User
from billing.http import is_key

OWNERS = frozenset({Role.OWNER})
EDITORS = frozenset({Role.OWNER, Role.BILLING})


class MemberRequest(HttpRequest):
    """A request of somebody who is signed in: LoginRequiredMiddleware lets no other one pass."""

    user: User
    htmx: HtmxDetails


@dataclass(frozen=True, slots=True)
class Access:
    """A customer as one person sees it. `visiting`: an operator who is no member and may only look."""

    customer: Customer
    role: Role
    customers: tuple[Customer, ...]
    visiting: bool = False

    @property
    def may_edit(self) -> bool:
        return self.role in EDITORS

    @property
    def context(self) -> dict[str, object]:
        """What every page of a customer needs."""
        return {
            "customer": self.customer,
            "customers": self.customers,
            "visiting": self.visiting,
            "may_edit": self.may_edit,
        }


def customer_for(request: MemberRequest, key: str, *, roles: Collection[Role] = tuple(Role)) -> Access:
    """The customer with this key, for one of its members or a visiting operator. One query, two for a visitor.

    Http404 when there is none or it is not theirs; PermissionDenied when their role is not among `roles`.
    """
    memberships = memberships_of(request.user)
    customers = tuple(membership.customer for membership in memberships)
    own = next((membership for membership in memberships if membership.customer.key == key), None)
    access = Access(own.customer, Role(own.role), customers) if own else _visit(request.user, key, customers)
    if access.role not in roles:
        raise PermissionDenied
    return access


def _visit(user: User, key: str, customers: tuple[Customer, ...]) -> Access:
    may_look = user.is_staff and user.has_perm("accounts.view_customer")
    customer = Customer.objects.filter(key=key).first() if may_look and is_key(key) else None
    if customer is None:
        raise Http404
    return Access(customer, Role.VIEWER, (*customers, customer), visiting=True)


def memberships_of(user: User) -> list[Membership]:
    """With their customers, by name."""
    return list(Membership.objects.filter(user=user).select_related("customer").order_by("customer__name", "pk"))
