"""The way in: from the bare address to a customer's page."""

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from dashboard.http import Access, MemberRequest, memberships_of

LAST = "customer"  # in the session: the key of the customer that was looked at last


@require_safe
def home(request: MemberRequest) -> HttpResponse:
    """To the customer that was looked at last, else the first one. Without any: operators go to their admin, and
    others are told whom to ask."""
    keys = [membership.customer.key for membership in memberships_of(request.user)]
    if not keys and request.user.is_staff:
        return redirect("admin:index")
    if not keys:
        return render(request, "dashboard/no_customer.html")
    last = request.session.get(LAST)
    return redirect("overview", last if last in keys else keys[0])


def remember(request: MemberRequest, access: Access) -> None:
    """Come back to this customer next time."""
    key = access.customer.key
    if not access.visiting and request.session.get(LAST) != key:
        request.session[LAST] = key
