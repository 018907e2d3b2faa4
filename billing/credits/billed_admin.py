"""What was billed of lines, in the admin; and the late differences that nobody is billed for."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from billing.admin_pages import ReadOnlyAdmin
from billing.clock import now
from billing.credits.billed import unbilled
from billing.credits.models import BilledLine
from billing.credits.statements import Source, closing_statements
from billing.money import counted, total
from billing.money import display as shown
from billing.pricing.schemes import figure
from billing.rating.statement import Statement
from billing.subscriptions.models import Subscription

SHOWN: Final = 200  # subscriptions on the page


@dataclass(frozen=True, slots=True)
class Unbilled:
    """The closing statement of a subscription: late lines, and what they come to in each unit."""

    subscription: Subscription
    lines: tuple[BilledLine, ...]
    statements: tuple[Statement[Source], ...]

    @property
    def due(self) -> str:
        """In the plan's currency."""
        return shown(self.statements[0].amount_due, self.statements[0].unit)


def by_subscription(rows: Iterable[BilledLine]) -> list[Unbilled]:
    """The longest unbilled first."""
    ordered = sorted(rows, key=lambda row: row.segment.period.subscription_id)
    found = []
    for _, group in groupby(ordered, key=lambda row: row.segment.period.subscription_id):
        lines = tuple(group)
        subscription = lines[0].segment.period.subscription
        found.append(Unbilled(subscription, lines, tuple(closing_statements(lines))))
    return sorted(found, key=lambda one: min(line.recorded_at for line in one.lines))


@admin.register(BilledLine)
class BilledLineAdmin(ReadOnlyAdmin):
    """Lines as they were billed, and each later difference of one."""

    list_display = ["recorded_at", "of", "price", "row", "used", "came_to", "billed_in"]
    list_filter = [("period", admin.EmptyFieldListFilter)]
    list_select_related = [
        "price__meter",
        "segment__period__subscription__customer",
        "segment__period__subscription__version__plan",
        "period",
    ]
    search_fields = ["segment__period__customer__key", "price__key"]
    ordering = ["-id"]
    show_full_result_count = False

    @admin.display(description="line of")
    def of(self, line: BilledLine) -> str:
        return str(line.segment.period)

    @admin.display(description="used")
    def used(self, line: BilledLine) -> str:
        return f"{figure(line.quantity)} {line.price.meter.unit}"

    @admin.display(description="amount")
    def came_to(self, line: BilledLine) -> str:
        return f"{figure(line.amount)} {counted(line.unit, line.amount)}"

    @admin.display(description="billed in the period of")
    def billed_in(self, line: BilledLine) -> str:
        return "Nobody is billed" if line.period is None else f"{line.period.starts_at:%-d %b %Y}"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.to_nobody)
        return [path("to-nobody/", view, name="billing_billedline_to_nobody"), *super().get_urls()]

    def to_nobody(self, request: HttpRequest) -> HttpResponse:
        """The late differences that nobody is billed for; a sandbox is nobody's business."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = by_subscription(unbilled(Q(segment__period__customer__test_clock=None)))
        units = sorted({one.statements[0].unit for one in found})
        due = [
            shown(total(one.statements[0].amount_due for one in found if one.statements[0].unit == unit), unit)
            for unit in units
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": "Billed to nobody",
            "at": now(),
            "found": found[:SHOWN],
            "number": len(found),
            "due": due,
        }
        return TemplateResponse(request, "admin/billing/billedline/to_nobody.html", context)
