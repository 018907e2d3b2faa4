"""Plans in the admin. Their versions have pages of their own: see versions_admin.py."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from billing.clock import now
from billing.pricing.models import Plan, PlanVersion
from billing.pricing.versions_admin import state_of


class PlanVersionInline(TabularInline):
    model = PlanVersion
    fields = readonly_fields = ["number", "state", "published_at", "base_fee"]
    extra = 0
    can_delete = False
    show_change_link = True

    @display(description="status")
    def state(self, version: PlanVersion) -> str:
        return state_of(version, now())

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Plan)
class PlanAdmin(ModelAdmin):
    """A plan and its versions. Key and currency are fixed once it exists: subscriptions and grants count on them."""

    list_display = ["name", "key", "currency", "is_add_on", "is_listed", "created_at"]
    search_fields = ["key", "name"]
    fields = ["name", "key", "currency", "is_add_on", "is_listed"]
    inlines = [PlanVersionInline]

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> list[str]:
        return ["key", "currency", "is_add_on"] if obj else []
