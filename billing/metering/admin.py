"""Meters in the admin, and what no meter counts yet."""

from copy import copy
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from unfold.admin import ModelAdmin

from billing.admin_pages import ReadOnlyAdmin
from billing.clock import now
from billing.errors import Conflict
from billing.metering import queries, services
from billing.metering.counter_models import DimensionUse
from billing.metering.intake_admin import intake_page
from billing.metering.models import EventCorrection, ImportRun, Meter, RefusedItems, UnmatchedEvent

METER_FIELDS = ["key", "name", "unit", "event_type", "aggregation", "value", "dimensions", "filters"]


class MeterForm(forms.ModelForm):
    """Says what makes no sense by its field, as the API does."""

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().clean() or {}
        if not self.errors:
            changed = copy(self.instance)
            for name, value in fields.items():
                setattr(changed, name, value)
            services.check(changed)
        return fields


@admin.register(Meter)
class MeterAdmin(ModelAdmin):
    list_display = ["key", "name", "unit", "event_type", "aggregation", "value", "dimensions"]
    list_filter = ["aggregation", "event_type"]
    search_fields = ["key", "name", "event_type"]
    form = MeterForm
    fields = METER_FIELDS

    def get_readonly_fields(self, request: HttpRequest, obj: Meter | None = None) -> list[str]:
        if obj is None:
            return []
        return ["key", *(services.FROZEN_ONCE_COUNTED if queries.is_counted(obj) else ())]

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        meter = self.get_object(request, object_id) if request.method == "GET" else None
        if meter is not None and queries.is_counted(meter):
            messages.info(
                request,
                "Events were counted with this meter, so what it counts is frozen. Dimensions may be added, and removed"
                " while no price, unit cost or budget names them; the stored events are then counted again.",
            )
        return super().change_view(request, object_id, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Meter, form: Any, change: bool) -> None:
        fields = {name: form.cleaned_data[name] for name in form.changed_data}
        if not change:
            obj.pk = services.create_meter(**form.cleaned_data, at=now()).pk
            return
        try:
            services.update_meter(meter=obj, at=now(), **fields)
        except (services.MeterIsCounted, Conflict) as error:  # a dimension that is named, or since the page was opened
            messages.error(request, error.detail if isinstance(error, Conflict) else str(error))

    def has_delete_permission(self, request: HttpRequest, obj: Meter | None = None) -> bool:
        """One at a time: each may have been counted meanwhile."""
        return obj is not None and super().has_delete_permission(request, obj)

    def delete_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, *args, **kwargs)
        except Conflict as conflict:
            messages.error(request, conflict.detail)
            return redirect("admin:billing_meter_change", object_id)

    def delete_model(self, request: HttpRequest, obj: Meter) -> None:
        services.delete_meter(meter=obj)


@admin.register(UnmatchedEvent)
class UnmatchedEventAdmin(ReadOnlyAdmin):
    """Stored and counted by nothing: each is counted once when its customer or a meter for its type appears."""

    list_display = ["recorded_at", "reason", "customer_key", "type", "source", "event_id", "occurred_at"]
    list_filter = ["reason", "type"]
    search_fields = ["customer_key", "type", "event_id"]
    ordering = ["-id"]
    show_full_result_count = False

    def get_urls(self) -> list[URLPattern]:
        return [path("intake/", intake_page(self.admin_site), name="billing_intake"), *super().get_urls()]


@admin.register(RefusedItems)
class RefusedItemsAdmin(ReadOnlyAdmin):
    list_display = ["recorded_at", "code", "items", "api_key", "source", "detail"]
    list_filter = ["code", "api_key"]
    list_select_related = ["api_key"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(DimensionUse)
class DimensionUseAdmin(ReadOnlyAdmin):
    """How many values of a dimension a customer uses, and whether more count under (other) by now."""

    list_display = ["month", "customer", "dimension", "values", "capped_at"]
    list_filter = [("capped_at", admin.EmptyFieldListFilter), "dimension"]
    list_select_related = ["customer"]
    search_fields = ["customer__key", "customer__name"]
    ordering = ["-month", "-values"]


@admin.register(EventCorrection)
class EventCorrectionAdmin(ReadOnlyAdmin):
    """Later words on events. Appended and never changed."""

    list_display = ["recorded_at", "kind", "identity", "api_key", "reason"]
    list_filter = ["kind", "api_key"]
    list_select_related = ["api_key"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(ImportRun)
class ImportRunAdmin(ReadOnlyAdmin):
    list_display = ["name", "started_at", "finished_at", "next_row", "accepted", "refused"]
    ordering = ["-id"]
