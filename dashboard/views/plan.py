"""Plan & pricing: what a customer pays and why; and from each line down to its events and their receipts."""

from functools import partial
from typing import Final

from django.core.cache import caches
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing import clock
from billing.cycle.receipts import receipt_lines, share
from billing.metering import queries as metering
from billing.metering.corrections import ArchivedEvent, UnknownEvent
from billing.metering.receipts import latest_fed, receipt
from billing.pricing.queries import price_terms
from billing.pricing.schemes import select_row
from billing.rating.queries import Line
from billing.reads import snapshot
from dashboard import building, plan
from dashboard.http import Access, MemberRequest, customer_for
from dashboard.reading import PlanReading
from dashboard.views.answers import stamped, unmoved
from dashboard.views.customers import remember
from dashboard.views.overview import chosen_period, period_query

PAGE: Final = "dashboard/plan.html"
SHORT, LONGER = 60, 600  # seconds
EVENTS: Final = 200  # events of the meter that are looked through for those of a line


@require_safe
def show(request: MemberRequest, key: str) -> HttpResponse:
    """The page. Two of its parts are worked out only when they are asked for (`?show=`): they read much, and nobody
    needs them to be live."""
    access = customer_for(request, key)
    remember(request, access)
    reading = _reading(request, access)
    asked = request.GET.get("show", "") if reading.period else ""
    with snapshot():
        match asked:
            case "bridge":
                more = {"bridge": reading.bridges, "bridge_at": reading.local(reading.at)}
            case "comparison":
                more = {"comparison": _comparison(reading), "compared": True}
            case _:
                return _show(request, reading, access, PAGE)
        if request.htmx:
            return _part(request, reading, access, f"{PAGE}#{asked}", more)
        return _show(request, reading, access, PAGE, **more)


def _comparison(reading: PlanReading) -> plan.ComparisonView | None:
    """Kept for a minute, or ten where the period is over: it takes a number of queries for each listed plan."""
    period = reading.compared
    key = f"comparison:{period.subscription.public_id}:{period.version_id}:{period.pk}"
    seconds = LONGER if period.ends_at <= reading.at else SHORT
    return caches["process"].get_or_set(key, partial(plan.comparison, reading), seconds)


def _part(
    request: MemberRequest, reading: PlanReading, access: Access, template: str, more: dict[str, object]
) -> HttpResponse:
    with timezone.override(reading.timezone):
        return render(request, template, {**access.context, **more, "addresses": _addresses(reading)})


def _addresses(reading: PlanReading) -> dict[str, str]:
    """Of the parts that are asked for."""
    page = reverse("plan", args=[reading.customer.key])
    start = period_query(reading.chosen) or "?"
    return {part: f"{page}{start}{'' if start == '?' else '&'}show={part}" for part in ("bridge", "comparison")}


@require_safe
def live(request: MemberRequest, key: str) -> HttpResponse:
    """As the overview's: nothing when the page is current (one query), else the part that moves."""
    access = customer_for(request, key)
    found = metering.freshness(access.customer)
    return unmoved(request, access, found) or _show(request, _reading(request, access, found), access, f"{PAGE}#live")


def _reading(request: MemberRequest, access: Access, found: metering.Freshness | None = None) -> PlanReading:
    return PlanReading(access.customer, clock.now(access.customer), chosen_period(request, access), found)


def _show(request: MemberRequest, reading: PlanReading, access: Access, template: str, **more: object) -> HttpResponse:
    with snapshot():
        freshness = building.freshness_view(reading.freshness, reading.timezone)
        page = plan.plan_page(reading) if reading.period else None
        earlier = reading.earlier
    context = {
        **access.context,
        **more,
        "page": page,
        "freshness": freshness,
        "version": building.version_of(reading.freshness),
        "ended": reading.ended,
        "timezone": reading.timezone,
        "chosen": period_query(reading.chosen),
        "earlier": period_query(earlier),
        "addresses": _addresses(reading),
    }
    with timezone.override(reading.timezone):
        return stamped(render(request, template, context), freshness)


@require_safe
def line(request: MemberRequest, key: str, address: str) -> HttpResponse:
    """One line: its arithmetic, and the latest of the events that it counts, each with its share."""
    access = customer_for(request, key)
    reading = _reading(request, access)
    with snapshot():
        lines = reading.lines if reading.period else []
        found = next((one for one in lines if plan.address(one) == address), None)
        if found is None:
            raise Http404
        events = _events(found)
    context = {
        **access.context,
        "line": found,
        "name": plan.line_name(found, lines),
        "parts": list(plan.parts(found)),
        "events": events,
        "most": EVENTS,
        "chosen": period_query(reading.chosen),
        "timezone": reading.timezone,
    }
    with timezone.override(reading.timezone):
        return render(request, "dashboard/line.html", context)


def _events(line: Line) -> list[tuple[object, ...]]:
    """Event, quantity and share; no share of a meter that does not add up."""
    segment, terms = line.segment, price_terms(line.price)
    customer = segment.period.customer
    found = latest_fed(customer, line.meter, starts_at=segment.starts_at, ends_at=segment.ends_at, most=EVENTS)
    return [
        (event, fed.quantity, share(line, fed.quantity) if line.meter.is_additive else None)
        for event, fed in found
        if select_row(terms, fed.dimensions) == line.row
    ]


@require_safe
def event(request: MemberRequest, key: str) -> HttpResponse:
    """The receipt of an event: what was sent, what it fed, what that costs by which price, and the ledger."""
    access = customer_for(request, key)
    sent = {"source": "default", "id": "", **request.GET.dict()}
    source, event_id = (sent[name].replace("\0", "") for name in ("source", "id"))
    with snapshot():
        try:
            found = receipt(source, event_id)
        except (UnknownEvent, ArchivedEvent):
            raise Http404 from None
        if found.customer != access.customer:
            raise Http404
        fed = receipt_lines(found)
        as_of = metering.counted_through(access.customer)
    context = {
        **access.context,
        "receipt": found,
        "properties": sorted(found.event.properties.items()),
        "fed": [(one, [(part, plan.line_name(part.line)) for part in lines]) for one, lines in fed],
        "as_of": as_of,
        "timezone": access.customer.timezone,
    }
    with timezone.override(access.customer.timezone):
        return render(request, "dashboard/receipt.html", context)
