"""The operator's page about what comes in: lag, what is not counted and how to mend it, corrections and re-counts."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from billing.clock import now
from billing.metering import capping, intake
from billing.metering.intake import Pulse, UnmatchedGroup
from billing.metering.models import UnmatchedReason

DAY: Final = timedelta(days=1)


def intake_page(site: AdminSite) -> Callable[[HttpRequest], HttpResponse]:
    """The page as a view of this admin."""

    def view(request: HttpRequest) -> HttpResponse:
        if not request.user.has_perm("billing.view_unmatchedevent"):
            raise PermissionDenied
        return render(request, "admin/billing/intake/page.html", {**site.each_context(request), **_context(now())})

    return site.admin_view(view)


def _context(at: datetime) -> dict[str, Any]:
    groups = intake.unmatched_groups()
    limit = capping.limit()
    return {
        "title": "What comes in",
        "figures": [*_pulse(intake.pulse(at), at), *_uncounted(groups, at)],
        "unmatched": [(group, mend(group)) for group in groups],
        "refused": intake.refused_groups(),
        "backfills": intake.backfills(),
        "corrections": intake.corrected_events(),
        "crowded": intake.crowded_dimensions(at, limit),
        "limit": limit,
        "most": intake.MOST,
        "at": at,
    }


def _pulse(found: Pulse, at: datetime) -> Iterator[tuple[str, str, str]]:
    """(what, figure, what it means)"""
    late = "nothing came"
    if found.late_median_s is not None and found.late_p99_s is not None:
        late = f"half within {span(found.late_median_s)} of occurring, 99 of 100 within {span(found.late_p99_s)}"
    yield "Events in the last minute", f"{found.events:,}", late
    counted = "nothing was counted yet"
    if found.counted_at is not None:
        counted = f"the last count was {span((at - found.counted_at).total_seconds())} ago"
    yield "Customers waiting to be counted", f"{found.waiting_customers:,}", counted


def _uncounted(groups: list[UnmatchedGroup], at: datetime) -> Iterator[tuple[str, str, str]]:
    waiting = sum(group.events for group in groups)
    since = "nothing waits"
    if groups:
        since = f"the first since {min(group.first_at for group in groups):%Y-%m-%d %H:%M} UTC"
    yield "Unmatched events", f"{waiting:,}" if len(groups) < intake.MOST else f"{waiting:,} or more", since
    yield "Refused items in the last day", f"{intake.refused_since(at - DAY):,}", "told to their sender, not stored"
    yield "Corrections in the last day", f"{intake.corrections_since(at - DAY):,}", "voided or amended events"


def span(seconds: float) -> str:
    """For a person: `0.4 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.1f} s"


def mend(group: UnmatchedGroup) -> tuple[str, str]:
    """What makes these events count, and the form that does it, filled in as far as they tell."""
    match group.reason:
        case UnmatchedReason.UNKNOWN_CUSTOMER:
            filled = {"key": group.customer_key, "name": group.customer_key}
            return "Make this customer", f"{reverse('admin:accounts_customer_add')}?{urlencode(filled)}"
        case UnmatchedReason.NO_METER:
            return "Make a meter", f"{reverse('admin:billing_meter_add')}?{urlencode({'event_type': group.type})}"
        case UnmatchedReason.INVALID_VALUE:
            listed = urlencode({"reason": group.reason.value, "type": group.type})
            return "See the events", f"{reverse('admin:billing_unmatchedevent_changelist')}?{listed}"
