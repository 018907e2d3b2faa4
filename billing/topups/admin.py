"""Top-ups in the admin: prices, rules, and the payments that operators take themselves."""

from django import forms
from django.contrib import admin
from django.contrib.postgres.forms import SimpleArrayField
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin_pages import row_or_404
from billing.admin_pages import ReadOnlyAdmin, act_on_row
from billing.clock import now
from billing.errors import Conflict
from billing.fields import PlainDecimalField
from billing.money import display as shown
from billing.topups import services
from billing.topups.models import AutomaticTopUp, PaymentNotice, TopUp, TopUpPrice, TopUpStatus


class TopUpPriceForm(forms.ModelForm):
    choices = SimpleArrayField(
        PlainDecimalField(min_value=0),
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Amounts that the customer's page offers, separated by commas.",
    )


@admin.register(TopUpPrice)
class TopUpPriceAdmin(ModelAdmin):
    form = TopUpPriceForm
    list_display = ["unit", "currency", "unit_amount", "least", "most"]


@admin.register(AutomaticTopUp)
class AutomaticTopUpAdmin(ModelAdmin):
    list_display = [
        "customer",
        "unit",
        "threshold",
        "target",
        "monthly_ceiling",
        "cooldown_minutes",
        "is_active",
        "paused_because",
    ]
    list_select_related = ["customer"]
    search_fields = ["customer__key"]


@admin.register(TopUp)
class TopUpAdmin(ReadOnlyAdmin):
    """An operator who was paid says so here; the customer has the credits at once."""

    list_display = ["public_id", "customer", "bought", "paid", "status", "is_automatic", "provider", "created_at"]
    list_filter = ["status", "provider", "is_automatic"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "reference", "payment", "customer__key"]
    ordering = ["-id"]
    actions_detail = ["mark_paid", "mark_reversed"]

    def bought(self, top_up: TopUp) -> str:
        return shown(top_up.amount, top_up.unit)

    def paid(self, top_up: TopUp) -> str:
        return shown(top_up.charge, top_up.currency)

    def has_decide_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("billing.change_topup")

    @action(
        description="Paid",
        permissions=["decide"],
        icon="check",
        dialog={
            "title": "Was it paid?",
            "description": "The customer gets the credits now.",
            "form_submit_text": "It was paid",
        },
    )
    def mark_paid(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        def grant(one: TopUp) -> str:
            found = services.succeed(public_id=one.public_id, at=now(one.customer))
            if found is not None and found.status == TopUpStatus.REVERSED:
                raise Conflict("It was paid back, and stays so. Let the customer buy again.", code="paid_back")
            return "Paid."

        return act_on_row(self, request, object_id, grant, "Paid.")

    @action(
        description="Not paid",
        permissions=["decide"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Did the payment fail, or was it paid back?",
            "description": "What is left of the credits is void.",
            "form_submit_text": "It was not paid",
        },
    )
    def mark_reversed(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        def undo(one: TopUp) -> str:
            services.reverse(public_id=one.public_id, failure="An operator took it back.", at=now(one.customer))
            return "Not paid."

        return act_on_row(self, request, object_id, undo, "Not paid.")


@admin.register(PaymentNotice)
class PaymentNoticeAdmin(ReadOnlyAdmin):
    """What the provider has told, and the top-up that it was about; what fits none is an operator's to look into."""

    list_display = ["created_at", "kind", "subject", "top_up", "todo", "reference"]
    list_filter = [("todo", admin.EmptyFieldListFilter), "kind", ("top_up", admin.EmptyFieldListFilter)]
    list_select_related = ["top_up"]
    search_fields = ["reference", "subject", "top_up__public_id"]
    ordering = ["-id"]
    actions_detail = ["done"]

    def has_done_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("billing.change_paymentnotice")

    @action(
        description="Done",
        permissions=["done"],
        icon="check",
        dialog={
            "title": "Is it done?",
            "description": "It is not counted as something to do any more.",
            "form_submit_text": "It is done",
        },
    )
    def done(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        notice = row_or_404(self, request, object_id)
        self.log_change(request, notice, f"Done: {notice.todo}")
        services.done(notice=notice)
        return HttpResponse(headers={"HX-Redirect": reverse("admin:billing_paymentnotice_changelist")})


def number_to_do(request: HttpRequest) -> str:
    """For the sidebar: how many payment notices wait for an operator."""
    return str(PaymentNotice.objects.exclude(todo="").count() or "")
