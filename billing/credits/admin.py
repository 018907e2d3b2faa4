"""Credits in the admin: grant, void, and read the ledger."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant

from accounts.models import User
from billing.admin_pages import ReadOnlyAdmin, ReadOnlyInline, add_refusal, sentences
from billing.clock import now
from billing.credits import queries, services
from billing.credits.models import CreditGrant, GrantKind, LedgerEntry, LedgerSeal, LedgerTransaction, Settlement
from billing.metering.models import Meter
from billing.money import display as shown


class GrantForm(forms.ModelForm):
    """Gives the grant inside validation, so that what the service refuses shows at its field."""

    kind = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in (GrantKind.PROMOTIONAL, GrantKind.PAID)])
    meters = forms.ModelMultipleChoiceField(
        Meter.objects.all(),
        required=False,
        help_text="The only meters it pays for; all when empty.",
    )
    reason = forms.CharField(max_length=500, help_text="For the audit trail and the customer.")
    operator: User  # set by the page

    class Meta:
        model = CreditGrant
        fields = [
            "customer",
            "unit",
            "amount",
            "kind",
            "priority",
            "effective_at",
            "expires_at",
            "cost_basis",
            "meters",
            "reason",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["effective_at"].required = False
        self.fields["effective_at"].help_text = "Now when empty; rounded down to a quarter hour."

    def _post_clean(self) -> None:
        if self.errors:
            return
        values = {**self.cleaned_data, "meters": [meter.key for meter in self.cleaned_data["meters"]]}
        try:
            self.instance = services.grant(**values, at=now(values["customer"]), created_by=self.operator)
        except ValidationError as error:
            add_refusal(self, error)


@admin.register(CreditGrant)
class CreditGrantAdmin(ModelAdmin):
    """Given through the ledger, so never edited: void it and give another."""

    list_display = ["customer", "given", "kind", "priority", "effective_at", "expires_at", "voided_at", "reason"]
    list_filter = ["kind", "unit"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "customer__key", "customer__name", "reason"]
    ordering = ["-id"]
    actions_detail = ["void"]

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        if obj is not None:
            return super().get_form(request, obj, **kwargs)
        form = super().get_form(request, obj, form=GrantForm, **kwargs)
        form.operator = request.user
        return form

    def get_fields(self, request: HttpRequest, obj: CreditGrant | None = None) -> Any:
        if obj is None:
            return GrantForm.Meta.fields
        facts = ["public_id", "customer", "kind", "priority", ("effective_at", "expires_at", "voided_at")]
        return [*facts, ("given", "used", "remaining"), "cost_basis", "meters", "reason", ("created_by", "created_at")]

    def get_readonly_fields(self, request: HttpRequest, obj: CreditGrant | None = None) -> Any:
        return ["given", "used", "remaining"] if obj else []

    def given(self, grant: CreditGrant) -> str:
        return shown(grant.amount, grant.unit)

    def used(self, grant: CreditGrant) -> str:
        return shown(queries.grant_balance(grant, now(grant.customer)).used, grant.unit)

    def remaining(self, grant: CreditGrant) -> str:
        return shown(queries.grant_balance(grant, now(grant.customer)).remaining, grant.unit)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_void_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("billing.change_creditgrant")

    def save_model(self, request: HttpRequest, obj: CreditGrant, form: Any, change: bool) -> None:
        """The form has given it."""

    @action(
        description="Void",
        permissions=["void"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Void this grant?",
            "description": "What it has paid for stays paid. What is left is forfeited and cannot come back.",
            "form_submit_text": "Void it",
        },
    )
    def void(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        grant = self.get_object(request, object_id)
        try:
            services.void(grant=grant, at=now(grant.customer))
        except ValidationError as error:
            for sentence in sentences(error):
                messages.error(request, sentence)
        else:
            self.log_change(request, grant, "Voided.")
            messages.success(request, "The grant is void.")
        return HttpResponse(headers={"HX-Redirect": reverse("admin:billing_creditgrant_change", args=[object_id])})


class LedgerEntryInline(ReadOnlyInline):
    model = LedgerEntry
    fields = ["account", "direction", "amount"]


@admin.register(LedgerTransaction)
class LedgerTransactionAdmin(ReadOnlyAdmin):
    list_display = ["recorded_at", "customer", "code", "public_id", "effective_at"]
    list_filter = ["code"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "customer__key"]
    ordering = ["-id"]
    inlines = [LedgerEntryInline]
    show_full_result_count = False


@admin.register(LedgerSeal)
class LedgerSealAdmin(ReadOnlyAdmin):
    """Whose digest is noted elsewhere proves the whole ledger before it."""

    list_display = ["customer", "number", "transactions", "digest", "sealed_at"]
    list_select_related = ["customer"]
    search_fields = ["customer__key", "digest"]
    ordering = ["-id"]
    show_full_result_count = False


@admin.register(Settlement)
class SettlementAdmin(ReadOnlyAdmin):
    """Whose books are parked, and why. It is tried again by itself, and free when the checks pass."""

    list_display = ["customer", "settled_through", "parked_reason", "resettle_from"]
    list_filter = [("parked_reason", admin.EmptyFieldListFilter)]
    list_select_related = ["customer"]
    search_fields = ["customer__key"]
