"""The overview: one reading of a billing period, as a page, as the fragment that keeps it live, and as CSV.

Each is about the present period, or about the one that begins on the day that `?period=2026-11-01` names.
"""

from datetime import datetime

from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing import clock
from billing.metering import queries as metering
from billing.periods import local_date
from billing.reads import snapshot
from billing.subscriptions.models import BillingPeriod
from billing.subscriptions.queries import period_beginning
from dashboard import building, charts, export
from dashboard.examples import first_event
from dashboard.http import Access, MemberRequest, customer_for
from dashboard.reading import Reading
from dashboard.views.answers import csv_file, stamped, unmoved
from dashboard.views.customers import remember

PAGE = "dashboard/overview.html"


@require_safe
def overview(request: MemberRequest, key: str) -> HttpResponse:
    access = customer_for(request, key)
    remember(request, access)
    return _show(request, access, PAGE)


@require_safe
def live(request: MemberRequest, key: str) -> HttpResponse:
    """What an open page asks every second: nothing when it is current (one query), else the part that moves."""
    access = customer_for(request, key)
    found = metering.freshness(access.customer)
    return unmoved(request, access, found) or _show(request, access, f"{PAGE}#live", found)


@require_safe
def download(request: MemberRequest, key: str) -> StreamingHttpResponse:
    """Every row behind the page: its sums are the page's numbers, to the last place."""
    access = customer_for(request, key)
    with snapshot():
        table = export.table(_reading(request, access))
    return csv_file(table)


def _reading(request: MemberRequest, access: Access, found: metering.Freshness | None = None) -> Reading:
    return Reading(access.customer, clock.now(access.customer), chosen_period(request, access), found)


def chosen_period(request: MemberRequest, access: Access) -> BillingPeriod | None:
    """The period that the address names, None for the present one. Http404 when none begins on that day."""
    chosen = request.GET.get("period")
    if chosen is None:
        return None
    try:
        period = period_beginning(access.customer, datetime.fromisoformat(chosen).date())
    except ValueError:
        period = None
    if period is None:
        raise Http404
    return period


def period_query(period: BillingPeriod | None) -> str:
    """What an address says of a period: the day on which it begins."""
    return f"?period={local_date(period.starts_at, period.timezone)}" if period else ""


def _show(
    request: MemberRequest, access: Access, template: str, found: metering.Freshness | None = None
) -> HttpResponse:
    reading = _reading(request, access, found)
    with snapshot():
        page = building.overview(reading)
        earlier = reading.earlier
    with timezone.override(page.timezone):
        context = {
            **access.context,
            "overview": page,
            "budget": page.budget,
            "chosen": period_query(reading.chosen),
            "earlier": period_query(earlier),
            "edit_url": reverse("budget-edit", args=[access.customer.key]),
            "figure": charts.cumulative_figure(page),
            "sketch": charts.sketch(page),
            "summary": charts.summary(page),
            "first_event": None if page.has_usage else first_event(request, reading),
        }
        return stamped(render(request, template, context), page.freshness)
