"""Credits in the admin: the ledger, to be read."""

from django.contrib import admin

from billing.admin_pages import ReadOnlyAdmin, ReadOnlyInline
from billing.credits.models import LedgerEntry, LedgerSeal, LedgerTransaction, Settlement


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
