"""Addresses of the customer's window. The customer is part of the address, so that a link names its tenant."""

from django.urls import path

from dashboard.views import theme

urlpatterns = [
    path("theme", theme.choose, name="theme"),
]
