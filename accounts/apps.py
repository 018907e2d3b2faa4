"""Who signs in, who pays, and which keys may ask."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
