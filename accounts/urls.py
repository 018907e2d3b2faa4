"""Signing in and joining a customer."""

from django.urls import include, path

from accounts import views

urlpatterns = [
    path("invitations/<str:token>", views.accept_invitation, name="accept-invitation"),
    path("", include("allauth.urls")),
]
