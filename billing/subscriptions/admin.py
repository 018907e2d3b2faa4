"""Subscriptions in the admin: started and read, never edited behind the cycle's back."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline

from billing.subscriptions.models import BillingPeriod, Subscription


class BillingPeriodInline(TabularInline):
    model = BillingPeriod
    fields = readonly_fields = ["starts_at", "ends_at", "timezone", "status"]
    ordering = ["-starts_at"]
    extra = 0
    per_page = 12
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Subscription)
class SubscriptionAdmin(ModelAdmin):
    list_display = ["public_id", "customer", "version", "status", "starts_at"]
    list_filter = ["status", "version__plan"]
    list_select_related = ["customer", "version__plan"]
    search_fields = ["public_id", "customer__key", "customer__name"]
    inlines = [BillingPeriodInline]
