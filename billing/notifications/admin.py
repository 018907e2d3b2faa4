"""The outbox in the admin: what was sent to whom, as they read it, and what failed."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from billing.admin_pages import ReadOnlyAdmin
from billing.clock import now
from billing.notifications import mail, services
from billing.notifications.models import OutboxMessage


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "kind", "recipient", "customer", "state", "attempts", "sent_at"]
    list_filter = ["status", "kind", "channel"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "recipient", "customer__key"]
    fields = [
        ("kind", "recipient", "customer"),
        ("status", "attempts", "next_attempt_at", "sent_at"),
        "last_error",
        "subject",
        "text",
    ]
    readonly_fields = ["subject", "text"]
    actions = ["send_again"]

    @display(
        description="status",
        label={"Queued": "info", "Sending": "info", "Sent": "success", "Failed": "danger"},
    )
    def state(self, message: OutboxMessage) -> str:
        return str(message.get_status_display())

    @admin.action(description="Send again what failed", permissions=["send"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> None:
        queued = services.send_again(messages=queryset, at=now())
        messages.info(request, f"{queued} of the chosen messages had failed and will be sent now.")

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_outboxmessage")

    def subject(self, message: OutboxMessage) -> str:
        return mail.subject(message)

    def text(self, message: OutboxMessage) -> SafeString:
        return format_html("<pre>{}</pre>", mail.text(message))
