"""Pages of people who do not belong anywhere yet."""

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from accounts import invitation_links, services
from accounts.forms import NewPersonForm
from accounts.models import Invitation, User

GONE = 410


@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
def accept_invitation(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows the offer, POST accepts it. Whoever has an account must be signed in to it; others make one here."""
    invitation = invitation_links.find(token)
    if invitation is None or not invitation.is_open(timezone.now()):
        return render(request, "accounts/invitation_ended.html", status=GONE)
    if request.user.is_authenticated:
        return _accept_as_user(request, invitation, request.user)
    if User.objects.filter(email=invitation.email).exists():
        return _page(request, invitation, must_sign_in=True)
    return _accept_as_new_person(request, invitation)


def _accept_as_user(request: HttpRequest, invitation: Invitation, user: User) -> HttpResponse:
    if user.email != invitation.email:
        return _page(request, invitation, other_account=True)
    if request.method != "POST":
        return _page(request, invitation)
    try:
        services.accept_invitation(invitation=invitation, user=user, at=timezone.now())
    except ValidationError:  # accepted or revoked meanwhile
        return render(request, "accounts/invitation_ended.html", status=GONE)
    return redirect("/")


def _accept_as_new_person(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    form = NewPersonForm(request.POST or None)
    if not form.is_valid():
        return _page(request, invitation, form=form)
    try:
        user = services.accept_as_new_person(invitation=invitation, at=timezone.now(), **form.cleaned_data)
    except ValidationError as error:
        form.add_error("password", error)
        return _page(request, invitation, form=form)
    login(request, user)
    return redirect("/")


def _page(request: HttpRequest, invitation: Invitation, **context: object) -> HttpResponse:
    return render(request, "accounts/accept_invitation.html", {"invitation": invitation, **context})
