"""Credits: what is left and how long it lasts, the grants, and the ledger down to the events behind it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from django.core import signing
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing import clock
from billing.credits import journal
from billing.credits.models import LedgerEntry, TransactionCode
from billing.metering import queries as metering
from billing.metering.arrivals import Place
from billing.money import plain
from billing.pricing.queries import price_terms
from billing.reads import snapshot
from billing.topups.queries import needing_customer
from dashboard import charts, export
from dashboard.credits import LABELS, CreditCard, credits_page, ledger_rows
from dashboard.http import OWNERS, Access, MemberRequest, customer_for
from dashboard.plan import part_of
from dashboard.reading import Reading
from dashboard.views.answers import csv_file, stamped, unmoved
from dashboard.views.customers import remember

PAGE = "dashboard/credits.html"
ROWS = 25  # transactions of the ledger at once
EVENTS = 200  # of a posting at once
SALT = "credits.ledger"
SALT_OF_EVENTS = "credits.events"


@require_safe
def show(request: MemberRequest, key: str) -> HttpResponse:
    access = customer_for(request, key)
    remember(request, access)
    return _show(request, access, PAGE)


@require_safe
def live(request: MemberRequest, key: str) -> HttpResponse:
    """As the overview's: nothing when the page is current (one query), else the part that moves."""
    access = customer_for(request, key)
    found = metering.freshness(access.customer)
    return unmoved(request, access, found) or _show(request, access, f"{PAGE}#live", found)


@require_safe
def download(request: MemberRequest, key: str) -> StreamingHttpResponse:
    """The whole ledger, entry by entry."""
    access = customer_for(request, key)
    return csv_file(export.ledger_table(access.customer, access.customer.timezone))


def _show(
    request: MemberRequest, access: Access, template: str, found: metering.Freshness | None = None
) -> HttpResponse:
    reading = Reading(access.customer, clock.now(access.customer), asked=found)
    with snapshot():
        page = credits_page(reading)
        ledger = _ledger(request, access, [card.unit for card in page.cards])
    with timezone.override(page.timezone):
        context = {
            **access.context,
            **ledger,
            "may_buy": access.role in OWNERS,
            "waiting": needing_customer(access.customer),
            "page": page,
            "cards": [_drawn(card, f"burn-figure-{number}") for number, card in enumerate(page.cards, 1)],
            "codes": LABELS.items(),
            "query": _query(request),
        }
        return stamped(render(request, template, context), page.freshness)


def _drawn(card: CreditCard, figure_id: str) -> tuple[object, ...]:
    """The card with its chart, for the template."""
    figure, sketch = charts.burn_down_figure(card), charts.burn_down_sketch(card)
    return card, figure, figure_id, sketch, charts.burn_down_summary(card)


# --- the ledger, page by page -----------------------------------------------------------------------------------------


def _ledger(request: MemberRequest, access: Access, units: Sequence[str]) -> Mapping[str, object]:
    """A page of the ledger. Its place is signed, because it carries the balances from which the page goes on."""
    code = request.GET.get("code") or None
    if code is not None and code not in TransactionCode.values:
        raise Http404
    place = _place(request, access)
    found = journal.journal(access.customer, units=units, before=place and place[0], code=code, limit=ROWS)
    rows, left = ledger_rows(found.movements, None if code else _balances(access, place))
    earlier = _signed(access, found.earlier, {} if code else left) if found.earlier else None
    return {"ledger": rows, "code": code, "earlier": earlier, "is_first": place is None}


def _balances(access: Access, place: tuple[int, Mapping[str, Decimal]] | None) -> Mapping[str, Decimal]:
    return place[1] if place else journal.posted(access.customer)


def _signed(access: Access, before: int, balances: Mapping[str, Decimal]) -> str:
    plainly = {unit: plain(amount) for unit, amount in balances.items()}
    return signing.dumps([access.customer.pk, before, plainly], salt=SALT)


def _place(request: MemberRequest, access: Access) -> tuple[int, Mapping[str, Decimal]] | None:
    """Http404 for a place that this page did not name."""
    said = request.GET.get("before")
    if said is None:
        return None
    try:
        customer, before, balances = signing.loads(said, salt=SALT)
    except signing.BadSignature:
        raise Http404 from None
    if customer != access.customer.pk:
        raise Http404
    return before, {unit: Decimal(amount) for unit, amount in balances.items()}


def _query(request: MemberRequest) -> str:
    """What names this page of the ledger, for the fragment that keeps it live."""
    kept = request.GET.copy()
    for name in set(kept) - {"before", "code"}:
        del kept[name]
    return f"?{kept.urlencode()}" if kept else ""


# --- one transaction --------------------------------------------------------------------------------------------------


@require_safe
def transaction(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    """Its entries line by line, and the events that it took into account of the line that `?line=` chooses, or of the
    only one."""
    access = customer_for(request, key)
    reading = Reading(access.customer, clock.now(access.customer))
    with snapshot():
        found = journal.transaction(access.customer, public_id)
        if found is None:
            raise Http404
        entries = list(journal.entries_of([found]).prefetch_related("cell__price__match"))
        chosen = _chosen(request, entries)
        after = _place_of_event(request)
        events = journal.events_of(chosen, after=after, most=EVENTS) if chosen is not None else None
        zone = reading.timezone
    context = {
        **access.context,
        "transaction": found,
        "label": LABELS[TransactionCode(found.code)],
        "entries": [(entry, journal.signed(entry), _part(entry)) for entry in entries],
        "chosen": chosen,
        "events": events,
        "next": signing.dumps(_plainly(events.next), salt=SALT_OF_EVENTS) if events and events.next else None,
        "is_first": after is None,
        "most": EVENTS,
        "credits_url": reverse("credits", args=[key]),
        "timezone": zone,
    }
    with timezone.override(zone):
        return render(request, "dashboard/credits_transaction.html", context)


def _chosen(request: MemberRequest, entries: list[LedgerEntry]) -> LedgerEntry | None:
    caused = [entry for entry in entries if entry.cell_id is not None]
    said = request.GET.get("line")
    if said is None:
        return caused[0] if len({entry.cell_id for entry in caused}) == 1 else None
    found = next((entry for entry in caused if str(entry.cell_id) == said), None)
    if found is None:
        raise Http404
    return found


def _part(entry: LedgerEntry) -> str:
    """Which part of the meter's usage the entry is for."""
    return part_of(price_terms(entry.cell.price), entry.cell.row) if entry.cell else ""


def _plainly(place: Place) -> tuple[str, str]:
    occurred_at, identity = place
    return occurred_at.isoformat(), identity


def _place_of_event(request: MemberRequest) -> Place | None:
    """Where the list of events goes on. Http404 for a place that this page did not name."""
    said = request.GET.get("after")
    if said is None:
        return None
    try:
        occurred_at, identity = signing.loads(said, salt=SALT_OF_EVENTS)
    except signing.BadSignature:
        raise Http404 from None
    return datetime.fromisoformat(occurred_at), identity
