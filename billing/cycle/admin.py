"""What the nightly checks found, in the admin."""

from django.contrib import admin
from django.utils.html import format_html_join

from billing.admin_pages import ReadOnlyAdmin
from billing.cycle.models import BooksCheck


@admin.register(BooksCheck)
class BooksCheckAdmin(ReadOnlyAdmin):
    """What the nightly checks found; whose books fail is parked."""

    list_display = ["started_at", "ended_at", "customers", "differences", "parked"]
    fields = ["started_at", "ended_at", "customers", "parked", "differences", "sentences"]
    readonly_fields = ["sentences"]

    @admin.display(description="Found")
    def sentences(self, check: BooksCheck) -> str:
        return format_html_join("", "<p>{}</p>", ((sentence,) for sentence in check.found)) or "Everything agrees."
