"""Meters in the admin, and what no meter counts yet."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from billing.metering.models import ImportRun, Meter, RefusedItems, UnmatchedEvent


class ReadOnlyAdmin(ModelAdmin):
    """Facts: to be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Meter)
class MeterAdmin(ModelAdmin):
    list_display = ["key", "name", "unit", "event_type", "aggregation", "value", "dimensions"]
    list_filter = ["aggregation", "event_type"]
    search_fields = ["key", "name", "event_type"]


@admin.register(UnmatchedEvent)
class UnmatchedEventAdmin(ReadOnlyAdmin):
    """Stored and counted by nothing: each is counted once when its customer or a meter for its type appears."""

    list_display = ["recorded_at", "reason", "customer_key", "type", "source", "event_id", "occurred_at"]
    list_filter = ["reason", "type"]
    search_fields = ["customer_key", "type", "event_id"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(RefusedItems)
class RefusedItemsAdmin(ReadOnlyAdmin):
    list_display = ["recorded_at", "code", "items", "api_key", "source", "detail"]
    list_filter = ["code", "api_key"]
    list_select_related = ["api_key"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(ImportRun)
class ImportRunAdmin(ReadOnlyAdmin):
    list_display = ["name", "started_at", "finished_at", "next_row", "accepted", "refused"]
    ordering = ["-id"]
