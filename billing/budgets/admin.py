"""Budgets and alerts in the admin: to be looked at; customers and the API set them."""

from django.contrib import admin
from unfold.decorators import display

from billing.admin_pages import ReadOnlyAdmin, ReadOnlyInline
from billing.budgets.models import Alert, Budget, Threshold
from billing.money import display as shown


class ThresholdInline(ReadOnlyInline):
    model = Threshold
    fields = ["percent", "amount", "archived_at"]


@admin.register(Budget)
class BudgetAdmin(ReadOnlyAdmin):
    list_display = ["customer", "name", "limit", "stop_at_percent", "recipients", "archived_at"]
    list_select_related = ["customer"]
    search_fields = ["customer__key", "name", "public_id"]
    inlines = [ThresholdInline]

    @display(description="amount", ordering="amount")
    def limit(self, budget: Budget) -> str:
        return shown(budget.amount, budget.unit)


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    """What fired, when, at which value."""

    list_display = ["created_at", "customer", "threshold", "direction", "reached", "of", "period_start"]
    list_filter = ["direction"]
    list_select_related = ["customer", "threshold__budget"]
    search_fields = ["customer__key", "public_id"]
    ordering = ["-id"]

    def reached(self, alert: Alert) -> str:
        return shown(alert.value, alert.threshold.budget.unit)

    def of(self, alert: Alert) -> str:
        return shown(alert.limit, alert.threshold.budget.unit)
