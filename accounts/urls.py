"""Signing in and joining a customer."""

from django.urls import include, path
from django.views.generic import RedirectView

from accounts import views

urlpatterns = [
    path("invitations/<str:token>", views.accept_invitation, name="accept-invitation"),
    # An address is what was invited: nobody changes theirs alone, operators do.
    path("email/", RedirectView.as_view(pattern_name="account_change_password"), name="account_email"),
    path("", include("allauth.urls")),
]
