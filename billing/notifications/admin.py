"""The outbox in the admin: what was sent to whom, as they read it, and what failed."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from billing.notifications.models import OutboxMessage


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ModelAdmin):
    list_display = ["created_at", "kind", "recipient", "customer", "state", "attempts", "sent_at"]
    list_filter = ["status", "kind", "channel"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "recipient", "customer__key"]

    @display(
        description="status",
        label={"Queued": "info", "Sending": "info", "Sent": "success", "Failed": "danger"},
    )
    def state(self, message: OutboxMessage) -> str:
        return str(message.get_status_display())

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
