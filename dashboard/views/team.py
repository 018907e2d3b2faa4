"""Who belongs to a customer, and which programs read for it. Members look, owners change."""

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from accounts import queries, services
from accounts.models import Role
from billing import clock
from dashboard.forms import InvitationForm, KeyForm, RoleForm
from dashboard.http import OWNERS, Access, MemberRequest, customer_for

PAGE = "dashboard/team.html"
REFUSED = 422


@require_safe
def show(request: MemberRequest, key: str) -> HttpResponse:
    """Members; for owners also open invitations and keys."""
    return _page(request, customer_for(request, key))


@require_POST
def invite(request: MemberRequest, key: str) -> HttpResponse:
    access = customer_for(request, key, roles=OWNERS)
    form = InvitationForm(request.POST)
    if _done(form, services.invite, customer=access.customer, invited_by=request.user):
        messages.success(request, f"{form.cleaned_data['email']} gets a mail with a link that works for a week.")
        return redirect("team", key)
    return _page(request, access, status=REFUSED, invitation_form=form)


@require_POST
def revoke_invitation(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    access = customer_for(request, key, roles=OWNERS)
    invitation = get_object_or_404(access.customer.invitations, public_id=public_id)
    services.revoke_invitation(invitation=invitation, at=clock.now())
    messages.success(request, f"The invitation of {invitation.email} is withdrawn.")
    return redirect("team", key)


@require_POST
def change_role(request: MemberRequest, key: str, member: int) -> HttpResponse:
    access = customer_for(request, key, roles=OWNERS)
    membership = get_object_or_404(access.customer.memberships.select_related("user"), pk=member)
    form = RoleForm(request.POST)
    if _done(form, services.change_role, membership=membership):
        messages.success(request, f"{membership.user.get_short_name()} is {membership.get_role_display().lower()} now.")
    else:
        _say(request, form)
    return redirect("team", key)


@require_POST
def remove(request: MemberRequest, key: str, member: int) -> HttpResponse:
    """An owner may also leave, as long as another one stays."""
    access = customer_for(request, key, roles=OWNERS)
    membership = get_object_or_404(access.customer.memberships.select_related("user"), pk=member)
    form = forms.Form({})
    if not _done(form, services.remove_member, membership=membership):
        _say(request, form)
        return redirect("team", key)
    messages.success(request, f"{membership.user.get_short_name()} does not belong to {access.customer.name} any more.")
    return redirect("home") if membership.user == request.user else redirect("team", key)


@require_POST
def create_key(request: MemberRequest, key: str) -> HttpResponse:
    """The secret is in this answer and nowhere else."""
    access = customer_for(request, key, roles=OWNERS)
    form = KeyForm(request.POST)
    if not form.is_valid():
        return _page(request, access, status=REFUSED, key_form=form)
    name, customer = form.cleaned_data["name"], access.customer
    made, secret = services.create_api_key(name=name, customer=customer, created_by=request.user, at=clock.now())
    return _page(request, access, made=made, secret=secret)


@require_POST
def revoke_key(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    access = customer_for(request, key, roles=OWNERS)
    api_key = get_object_or_404(access.customer.api_keys, public_id=public_id)
    services.revoke_api_key(key=api_key, at=clock.now())
    messages.success(request, f"The key “{api_key.name}” has stopped working.")
    return redirect("team", key)


def _done(form: forms.Form, service: Callable[..., object], **arguments: Any) -> bool:
    """Whether the service did what the form asks; what it refused is then said in the form."""
    if form.is_valid():
        try:
            service(**arguments, **form.cleaned_data, at=clock.now())
        except ValidationError as error:
            form.add_error(None, error)
    return form.is_valid()


def _say(request: MemberRequest, form: forms.Form) -> None:
    for sentences in form.errors.values():
        messages.error(request, " ".join(sentences))


def _page(request: MemberRequest, access: Access, status: int = 200, **context: object) -> HttpResponse:
    customer, may_manage = access.customer, access.role in OWNERS
    seen = {
        **access.context,
        "may_manage": may_manage,
        "members": queries.memberships(customer),
        "roles": Role.choices,
        "invitation_form": InvitationForm(),
        "key_form": KeyForm(),
    }
    if may_manage:
        seen["invitations"] = queries.open_invitations(customer, clock.now())
        seen["keys"] = queries.valid_keys(customer, clock.now())
    with timezone.override(ZoneInfo(customer.timezone)):
        return render(request, PAGE, seen | context, status=status)
