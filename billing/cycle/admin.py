"""Subscriptions in the admin: starting one sets the whole cycle in motion for its customer; then they are read."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.html import format_html_join
from unfold.admin import ModelAdmin

from billing.admin_pages import ReadOnlyAdmin, ReadOnlyInline, add_refusal
from billing.clock import now
from billing.cycle import services
from billing.cycle.models import BooksCheck
from billing.pricing.models import PlanVersion, VersionStatus
from billing.subscriptions.models import BillingPeriod, Subscription


class SubscriptionForm(forms.ModelForm):
    """Starts the subscription inside validation, so that what the service refuses shows at its field."""

    version = forms.ModelChoiceField(
        PlanVersion.objects.filter(status=VersionStatus.PUBLISHED).select_related("plan"),
        help_text="Only published versions can be subscribed to.",
    )
    anchor_day = forms.IntegerField(
        required=False, min_value=1, max_value=31, help_text="Of the month; the start's own day when empty."
    )

    class Meta:
        model = Subscription
        fields = ["customer", "version", "starts_at", "anchor_day", "anchor_month"]

    def _post_clean(self) -> None:
        """The service validates and writes; Django's own checks would ask for what it fills in."""
        if not self.errors:
            try:
                self.instance = services.subscribe(**self.cleaned_data, at=now(self.cleaned_data["customer"]))
            except ValidationError as error:
                add_refusal(self, error)


class BillingPeriodInline(ReadOnlyInline):
    model = BillingPeriod
    fields = ["starts_at", "ends_at", "timezone", "status"]
    ordering = ["-starts_at"]
    per_page = 12


@admin.register(Subscription)
class SubscriptionAdmin(ModelAdmin):
    form = SubscriptionForm
    list_display = ["public_id", "customer", "version", "status", "starts_at"]
    list_filter = ["status", "version__plan"]
    list_select_related = ["customer", "version__plan"]
    search_fields = ["public_id", "customer__key", "customer__name"]
    inlines = [BillingPeriodInline]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:
        """The form has started it."""
        messages.info(request, "The billing period is open, and usage since it began is priced.")


@admin.register(BooksCheck)
class BooksCheckAdmin(ReadOnlyAdmin):
    """What the nightly checks found; whose books fail is parked."""

    list_display = ["started_at", "ended_at", "customers", "differences", "parked"]
    fields = ["started_at", "ended_at", "customers", "parked", "differences", "sentences"]
    readonly_fields = ["sentences"]

    @admin.display(description="Found")
    def sentences(self, check: BooksCheck) -> str:
        return format_html_join("", "<p>{}</p>", ((sentence,) for sentence in check.found)) or "Everything agrees."
