"""What was billed of lines, in the admin; and the late differences that nobody is billed for."""

import csv
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
from billing.money import counted, plain, total
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
        view = self.admin_site.admin_view
        own = [
            path("to-nobody/", view(self.to_nobody), name="billing_billedline_to_nobody"),
            path("to-nobody.csv", view(self.to_nobody_csv), name="billing_billedline_to_nobody_csv"),
        ]
        return [*own, *super().get_urls()]

    def _found(self, request: HttpRequest) -> list[Unbilled]:
        """A sandbox is nobody's business."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return by_subscription(unbilled(Q(segment__period__customer__test_clock=None)))

    def to_nobody(self, request: HttpRequest) -> HttpResponse:
        """The late differences that nobody is billed for."""
        found = self._found(request)
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

    def to_nobody_csv(self, request: HttpRequest) -> HttpResponse:
        """Every line."""
        found = self._found(request)
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="billed-to-nobody-{now():%Y-%m-%d}.csv"'
        writer = csv.writer(response)
        writer.writerow(CSV_HEADER)
        writer.writerows(_csv_row(one.subscription, line) for one in found for line in one.lines)
        return response


CSV_HEADER: Final = (
    "customer",
    "subscription",
    "plan",
    "version",
    "used_from",
    "used_to",
    "price",
    "row",
    "meter",
    "quantity",
    "events",
    "unit",
    "amount",
    "paid_by_grants",
    "beyond_grants",
    "overage",
    "overage_currency",
    "unbilled_since",
)


def _csv_row(subscription: Subscription, line: BilledLine) -> tuple[str, ...]:
    version = line.segment.version
    return (
        subscription.customer.key,
        subscription.public_id,
        version.plan.key,
        str(version.number),
        line.segment.starts_at.isoformat(),
        line.segment.ends_at.isoformat(),
        line.price.key,
        str(line.row),
        line.price.meter.key,
        plain(line.quantity),
        str(line.events),
        line.unit,
        plain(line.amount),
        plain(line.covered),
        plain(line.beyond),
        plain(line.overage),
        version.plan.currency,
        line.recorded_at.isoformat(),
    )
