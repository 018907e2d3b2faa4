"""The operator's page about margin: what usage earned and what it cost, and what has no unit cost yet.

It is the vendor's secret: nothing of it is on a customer's page or in an answer to a key.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import Customer
from billing.clock import now
from billing.metering.queries import dimensions
from billing.money import display, plain, quantise
from billing.periods import Interval, quarter_ceil
from billing.pricing.where import format_where
from billing.revenue.queries import (
    CUSTOMER,
    DIMENSION,
    METER,
    PLAN,
    MarginReport,
    MarginRow,
    MissingCost,
    margin_report,
)

LONGEST: Final = timedelta(days=366)
ROWS: Final = 50  # of a page
MISSING: Final = 25  # shown at once; the next ones follow when these have a cost
CSV_HEADER: Final = (
    "group",
    "name",
    "currency",
    "usage_revenue",
    "base_fees",
    "revenue",
    "cost",
    "margin",
    "margin_percent",
    "usage_revenue_without_cost",
)
_DAY: Final = timedelta(days=1)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


class MarginForm(forms.Form):
    """Days are UTC, both ends included; by default this month so far."""

    start = forms.DateField(label="From", widget=UnfoldAdminTextInputWidget({"type": "date"}))
    end = forms.DateField(label="Through", widget=UnfoldAdminTextInputWidget({"type": "date"}))
    by = forms.ChoiceField(label="By", widget=UnfoldAdminSelectWidget)
    customer = forms.ModelChoiceField(
        Customer.objects.all(),
        required=False,
        to_field_name="key",
        label="Of customer",
        widget=UnfoldAdminTextInputWidget({"placeholder": "all, or a key"}),
    )

    def __init__(self, sent: Any, at: datetime) -> None:
        today = at.astimezone(UTC).date()
        defaults = {"start": today.replace(day=1).isoformat(), "end": today.isoformat(), "by": CUSTOMER}
        super().__init__({**defaults, **{name: sent[name] for name in self.base_fields if sent.get(name)}})
        self.at = at
        self.fields["by"].choices = [  # type: ignore[attr-defined]
            (CUSTOMER, "Customer"),
            (PLAN, "Plan version"),
            (METER, "Meter"),
            *((DIMENSION + name, name) for name in dimensions()),
        ]
        self.fields["customer"].error_messages["invalid_choice"] = "There is no customer with this key."

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        if "start" in found and "end" in found:
            if found["end"] < found["start"]:
                self.add_error("end", "Choose a day that is not before the first.")
            elif found["end"] - found["start"] >= LONGEST:
                self.add_error("end", f"Choose at most {LONGEST.days} days.")
            elif _midnight(found["start"]) > self.at:
                self.add_error("start", "Choose a day that has begun.")
        return found

    @property
    def interval(self) -> Interval:
        """Of what has been used, so nothing of the days to come."""
        end = min(_midnight(self.cleaned_data["end"] + _DAY), quarter_ceil(self.at))
        start = _midnight(self.cleaned_data["start"])
        return Interval(start, max(end, quarter_ceil(start + timedelta(seconds=1))))

    def report(self) -> MarginReport:
        said = self.cleaned_data
        return margin_report(self.interval, group_by=said["by"], customer=said["customer"])

    def address(self, name: str, **changes: Any) -> str:
        """Of the page or the file, with the same questions but for the changes."""
        said = {field: self[field].value() or "" for field in self.fields}
        return f"{reverse(name)}?{urlencode({**said, **changes})}"


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def margin_page(site: AdminSite) -> Callable[[HttpRequest], HttpResponse]:
    """The page as a view of this admin."""

    def view(request: HttpRequest) -> HttpResponse:
        _check(request)
        form = MarginForm(request.GET, now())
        context = {**site.each_context(request), "title": "Margin", "form": form, "at": form.at}
        if not form.is_valid():
            return render(request, "admin/billing/unitcost/margin.html", context, status=400)
        context |= _context(form, form.report(), request.GET.get("page"))
        return render(request, "admin/billing/unitcost/margin.html", context)

    return site.admin_view(require_safe(view))


def margin_csv(site: AdminSite) -> Callable[[HttpRequest], HttpResponse]:
    """Every row as a file, as a view of this admin."""

    def view(request: HttpRequest) -> HttpResponse:
        _check(request)
        form = MarginForm(request.GET, now())
        if not form.is_valid():
            sentences = [f"{field}: {one}" for field, found in form.errors.items() for one in found]
            return HttpResponse("\n".join(sentences), status=400, content_type="text/plain; charset=utf-8")
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        said = form.cleaned_data
        name = f"margin-by-{said['by'].removeprefix(DIMENSION)}-{said['start']}-{said['end']}.csv"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        writer = csv.writer(response)
        writer.writerow(CSV_HEADER)
        writer.writerows(map(_csv_row, form.report().rows))
        return response

    return site.admin_view(require_safe(view))


def _check(request: HttpRequest) -> None:
    if not request.user.has_perm("billing.view_unitcost"):
        raise PermissionDenied


def _context(form: MarginForm, report: MarginReport, page: str | None) -> dict[str, Any]:
    shown = Paginator(report.rows, ROWS).get_page(page)
    by = form.cleaned_data["by"]
    return {
        "interval": report.interval,
        "last_moment": min(report.interval.end - timedelta(microseconds=1), form.at),
        "what": dict(form.fields["by"].choices)[by],  # type: ignore[attr-defined]
        "has_fees": by in (CUSTOMER, PLAN),
        "cards": [_cells(row) for row in report.totals],
        "rows": [(_cells(row), _door(form, row)) for row in shown],
        "page": shown,
        "pages": [(number, form.address("admin:billing_margin", page=number)) for number in _around(shown)],
        "file": form.address("admin:billing_margin_csv"),
        "is_partial": any(row.sums.without_cost for row in report.totals),
        "is_mixed": any(row.is_mixed for row in report.rows),
        "missing": [(one, where_of(one), cure(one)) for one in report.missing[:MISSING]],
        "more_missing": max(len(report.missing) - MISSING, 0),
    }


def _around(page: Any) -> Sequence[int]:
    return [number for number in (page.number - 1, page.number + 1) if number in page.paginator.page_range]


def _cells(row: MarginRow) -> dict[str, Any]:
    """A row as it is shown. What earned something whose cost nobody said has at most the margin that is shown."""
    sums = row.sums
    amounts = {
        name: display(getattr(sums, name), row.currency, code=True)
        for name in ("usage", "fees", "revenue", "cost", "margin")
    }
    at_most = "≤ " if sums.without_cost else ""
    percent = "\N{EN DASH}" if row.percent is None else f"{at_most}{row.percent:,.1f} %".replace("-", "\N{MINUS SIGN}")
    margin = "\N{EN DASH}" if row.is_mixed else at_most + amounts["margin"]
    return {
        **amounts,
        "group": row.group,
        "currency": row.currency,
        "margin": margin,
        "percent": percent,
        "is_loss": not row.is_mixed and sums.margin < 0,
        "without_cost": display(sums.without_cost, row.currency, code=True) if sums.without_cost else "",
    }


def _door(form: MarginForm, row: MarginRow) -> str:
    """Where a row leads: what a customer's margin is made of."""
    if form.cleaned_data["by"] != CUSTOMER:
        return ""
    return form.address("admin:billing_margin", by=METER, customer=row.group.key)


def where_of(one: MissingCost) -> str:
    """The condition of the unit cost that is missing, as an operator types it."""
    return format_where(one.where)


def cure(one: MissingCost) -> str:
    """The form that adds what is missing, filled in."""
    filled = {"meter": one.meter.pk, "where": where_of(one)}
    return f"{reverse('admin:billing_unitcost_add')}?{urlencode(filled)}"


def _csv_row(row: MarginRow) -> Iterator[str]:
    sums = row.sums
    yield _text(row.group.key)
    yield _text(row.group.name)
    yield row.currency
    for amount in (sums.usage, sums.fees, sums.revenue, sums.cost):
        yield _figure(amount)
    yield "" if row.is_mixed else _figure(sums.margin)
    yield "" if row.percent is None else plain(row.percent.quantize(Decimal("0.01")))
    yield _figure(sums.without_cost)


def _figure(amount: Decimal) -> str:
    return plain(quantise(amount))


def _text(text: str) -> str:
    """Values come from senders: a spreadsheet must not take one for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
