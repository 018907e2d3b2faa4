"""What happened and what it cost."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
