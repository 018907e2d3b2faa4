"""Grants in the admin: give, adjust and void them, and see what is owed by them."""

import csv
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget

from accounts.models import User
from billing.admin_pages import act_on_row, add_refusal
from billing.authorizations import grants
from billing.clock import now
from billing.credits import liability, queries
from billing.credits.models import CreditGrant, GrantKind
from billing.credits.queries import GrantBalance
from billing.metering.models import Meter
from billing.money import display as shown
from billing.money import plain


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
            self.instance = grants.grant(**values, at=now(values["customer"]), created_by=self.operator)
        except ValidationError as error:
            add_refusal(self, error)


class ReasonForm(BaseDialogForm):
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="It stays in the ledger.")


class AdjustForm(ReasonForm):
    amount = forms.DecimalField(
        max_digits=38,
        decimal_places=12,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="Above 0 to add to the grant, below 0 to take from what is left of it.",
    )
    field_order = ["amount", "reason"]


@admin.register(CreditGrant)
class CreditGrantAdmin(ModelAdmin):
    """Given through the ledger, so never edited: void it and give another."""

    list_display = ["customer", "given", "kind", "priority", "effective_at", "expires_at", "voided_at", "reason"]
    list_filter = ["kind", "unit"]
    list_select_related = ["customer"]
    search_fields = ["public_id", "customer__key", "customer__name", "reason"]
    ordering = ["-id"]
    actions_list = ["to_liability"]
    actions_detail = ["adjust", "void"]

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
        return [
            *facts,
            ("given", "corrected", "carried_over"),
            ("used", "remaining"),
            "cost_basis",
            "meters",
            "reason",
            ("created_by", "created_at"),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: CreditGrant | None = None) -> Any:
        return ["given", "corrected", "carried_over", "used", "remaining"] if obj else []

    def given(self, grant: CreditGrant) -> str:
        return shown(grant.amount, grant.unit)

    def corrected(self, grant: CreditGrant) -> str:
        return shown(grant.adjusted, grant.unit)

    def carried_over(self, grant: CreditGrant) -> str:
        return shown(grant.rolled_in, grant.unit)

    def used(self, grant: CreditGrant) -> str:
        return shown(queries.grant_balance(grant, now(grant.customer)).used, grant.unit)

    def remaining(self, grant: CreditGrant) -> str:
        return shown(queries.grant_balance(grant, now(grant.customer)).remaining, grant.unit)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_adjust_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("billing.change_creditgrant")

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
            "form_class": ReasonForm,
        },
    )
    def void(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        reason = form.cleaned_data["reason"]

        def act(grant: CreditGrant) -> str:
            grants.void(grant=grant, reason=reason, at=now(grant.customer))
            return f"Voided: {reason}"

        return act_on_row(self, request, object_id, act, "The grant is void.")

    @action(
        description="Adjust",
        permissions=["adjust"],
        icon="exposure",
        dialog={
            "title": "Adjust this grant",
            "description": "A correction counts from the beginning of the grant, as if it had been given so. "
            "What is used cannot be taken.",
            "form_submit_text": "Adjust it",
            "form_class": AdjustForm,
        },
    )
    def adjust(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        said = form.cleaned_data

        def act(grant: CreditGrant) -> str:
            grants.adjust(grant=grant, amount=said["amount"], reason=said["reason"], at=now(grant.customer))
            return f"Adjusted by {said['amount']}: {said['reason']}"

        return act_on_row(self, request, object_id, act, "The grant is adjusted.")

    # --- liability --------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        own = [
            path("liability/", view(self.liability), name="billing_creditgrant_liability"),
            path("liability.csv", view(self.liability_csv), name="billing_creditgrant_liability_csv"),
        ]
        return [*own, *super().get_urls()]

    @action(description="Liability", icon="account_balance")
    def to_liability(self, request: HttpRequest) -> HttpResponse:
        return redirect("admin:billing_creditgrant_liability")

    def liability(self, request: HttpRequest) -> HttpResponse:
        """What is owed now, by unit, and page by page the grants with something left."""
        self._check_view(request)
        at = now()
        page = Paginator(liability.outstanding(at), SHOWN).get_page(request.GET.get("page"))
        balances = [liability.balance(grant, at) for grant in page]
        context = {
            **self.admin_site.each_context(request),
            "title": "Credit liability",
            "at": at,
            "units": liability.by_unit(at),
            "page": page,
            "outstanding": [(item, liability.value(item)) for item in balances],
        }
        return TemplateResponse(request, "admin/billing/creditgrant/liability.html", context)

    def liability_csv(self, request: HttpRequest) -> HttpResponse:
        """Every grant."""
        self._check_view(request)
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="credit-liability-{now():%Y-%m-%d}.csv"'
        writer = csv.writer(response)
        writer.writerow(LIABILITY_HEADER)
        writer.writerows(map(_liability_row, liability.grants(now())))
        return response

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


SHOWN = 50  # grants of a page
LIABILITY_HEADER = (
    "customer",
    "grant",
    "kind",
    "unit",
    "given",
    "rolled_over",
    "used",
    "expired",
    "voided",
    "outstanding",
    "cost_basis",
    "outstanding_value",
    "currency",
    "effective_at",
    "expires_at",
)


def _liability_row(item: GrantBalance) -> tuple[str, ...]:
    grant = item.grant
    owed = liability.value(item)
    return (
        grant.customer.key,
        grant.public_id,
        grant.kind,
        grant.unit,
        plain(item.total),
        plain(item.rolled_out),
        plain(item.used),
        plain(item.expired),
        plain(item.voided),
        plain(item.remaining),
        "" if grant.cost_basis is None else plain(grant.cost_basis),
        "" if owed is None else plain(owed),
        grant.customer.currency,
        grant.effective_at.isoformat(),
        grant.expires_at.isoformat() if grant.expires_at else "",
    )
