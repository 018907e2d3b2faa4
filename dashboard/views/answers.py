"""Answers that pages give alike: how fresh they are, that nothing has moved, and files."""

from django.http import HttpResponse, StreamingHttpResponse
from django.template.defaultfilters import date

from billing.metering import queries as metering
from dashboard import building, export
from dashboard.http import Access, MemberRequest
from dashboard.overview import Freshness


def unmoved(request: MemberRequest, access: Access, found: metering.Freshness) -> HttpResponse | None:
    """What an open page is told each second while it is current; None when a part of it has moved."""
    if request.GET.get("v") != building.version_of(found):
        return None
    return stamped(HttpResponse(status=204), building.freshness_view(found, access.customer.timezone))


def stamped(response: HttpResponse, freshness: Freshness) -> HttpResponse:
    """With the time that the page shows beside "data to", so that it moves also when nothing else does."""
    response["X-Data-To"] = date(freshness.data_to, "H:i:s T")
    response["X-Data-Delayed"] = "true" if freshness.delayed else "false"
    return response


def csv_file(table: export.Table) -> StreamingHttpResponse:
    """The table, line by line."""
    response = StreamingHttpResponse(export.lines(table), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{table.name}"'
    return response
