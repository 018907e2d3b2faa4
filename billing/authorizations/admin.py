"""Holds in the admin: to be looked at."""

from django.contrib import admin

from billing.admin_pages import ReadOnlyAdmin, ReadOnlyInline
from billing.authorizations.models import Authorization, Hold


class HoldInline(ReadOnlyInline):
    model = Hold
    fields = ["account", "meter", "amount"]


@admin.register(Authorization)
class AuthorizationAdmin(ReadOnlyAdmin):
    list_display = ["public_id", "customer", "created_at", "expires_at", "ended_by", "ended_at", "settled_at"]
    list_filter = ["ended_by"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "customer__key"]
    ordering = ["-id"]
    inlines = [HoldInline]
    show_full_result_count = False
