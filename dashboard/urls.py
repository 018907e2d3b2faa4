"""Addresses of the customer's window. The customer is part of the address, so that a link names its tenant."""

from django.urls import path

from dashboard.views import budgets, customers, overview, theme

urlpatterns = [
    path("", customers.home, name="home"),
    path("c/<str:key>/", overview.overview, name="overview"),
    path("c/<str:key>/live", overview.live, name="overview-live"),
    path("c/<str:key>/spend.csv", overview.download, name="overview-csv"),
    path("c/<str:key>/budget", budgets.show, name="budget"),
    path("c/<str:key>/budget/edit", budgets.edit, name="budget-edit"),
    path("theme", theme.choose, name="theme"),
]
