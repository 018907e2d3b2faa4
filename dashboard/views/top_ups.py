"""Buying credits: owners buy, once or by a rule, and every member sees what was bought.

The way to the payment page is a page of ours that leads on. An answer that redirected the form itself to another site
would be refused by the browser: `form-action` holds for what a form is redirected to.
"""

import secrets
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from billing import clock
from billing.errors import Conflict
from billing.topups import automatic, queries, services
from billing.topups.models import TopUp
from billing.topups.payments import Refused, Unavailable
from billing.topups.providers import Manual, provider
from dashboard.forms import RuleForm, TopUpForm
from dashboard.http import OWNERS, Access, MemberRequest, customer_for

PAGE = "dashboard/top_ups.html"
ONE = "dashboard/top_up.html"
LEAVE = "dashboard/leave.html"
REFUSED = 422
ROWS = 50  # that the page lists
AWAY = "Payments cannot be begun at the moment. Nothing was charged. Please try again in a minute."
GONE = "This is not for sale any more. Nothing was charged."


@require_http_methods(["GET", "HEAD", "POST"])
def show(request: MemberRequest, key: str) -> HttpResponse:
    """What was bought, and for owners the way to buy; a POST buys."""
    if request.method == "POST":
        return _buy(request, customer_for(request, key, roles=OWNERS))
    return _page(request, customer_for(request, key))


def _buy(request: MemberRequest, access: Access) -> HttpResponse:
    form = TopUpForm(request.POST, offers=queries.offers(access.customer))
    if not form.is_valid():
        return _page(request, access, status=REFUSED, bought=form)
    customer, at = access.customer, clock.now(access.customer)
    try:
        once = request.POST.get("once", "")
        top_up = services.order(customer=customer, **form.cleaned_data, created_by=request.user, at=at, once=once)
        return _to_payment(request, top_up)
    except Conflict as refused:
        form.add_error("amount", refused.detail)
        return _page(request, access, status=REFUSED, bought=form)


def _to_payment(request: MemberRequest, top_up: TopUp) -> HttpResponse:
    """To where it is paid; to its own page where nothing can be paid now. Conflict."""
    try:
        services.begin(top_up=top_up, at=clock.now(top_up.customer))
    except Unavailable:
        messages.error(request, AWAY)
    if top_up.url and top_up.status in services.OPEN:
        return render(request, LEAVE, {"url": top_up.url})
    return redirect("top-up", top_up.customer.key, top_up.public_id)


@require_safe
def one(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    """One purchase, live until it has ended. The payment page leads back to here."""
    access = customer_for(request, key)
    top_up = _found(access, public_id)
    context = {
        **access.context,
        "top_up": top_up,
        "may_buy": access.role in OWNERS,
        "is_manual": top_up.provider == Manual.name,
        "came_from": request.GET.get("from", ""),
    }
    with timezone.override(ZoneInfo(access.customer.timezone)):
        return render(request, f"{ONE}#state" if request.htmx else ONE, context)


@require_POST
def pay(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    """Go on with a payment that waits for the customer."""
    top_up = _found(customer_for(request, key, roles=OWNERS), public_id)
    try:
        return _to_payment(request, top_up)
    except Conflict as refused:
        messages.error(request, refused.detail)
        return redirect("top-up", key, public_id)


@require_POST
def cancel(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    top_up = _found(customer_for(request, key, roles=OWNERS), public_id)
    try:
        services.cancel(top_up=top_up, at=clock.now(top_up.customer))
    except Unavailable:
        messages.error(request, "It cannot be cancelled at the moment. Please try again in a minute.")
    return redirect("top-up", key, public_id)


@require_POST
def card(request: MemberRequest, key: str) -> HttpResponse:
    """To the page where a card is left for automatic top-ups."""
    customer = customer_for(request, key, roles=OWNERS).customer
    seller = provider(customer)
    account = queries.payment_account(customer, seller.name)
    try:
        return render(request, LEAVE, {"url": seller.card_page(customer, account, queries.top_ups_page(customer))})
    except (Refused, Unavailable):
        messages.error(request, "A card cannot be set up at the moment. Please try again in a minute.")
        return redirect("top-ups", key)


@require_POST
def rule(request: MemberRequest, key: str) -> HttpResponse:
    """Set when credits are bought automatically."""
    access = customer_for(request, key, roles=OWNERS)
    form = RuleForm(request.POST)
    if form.is_valid():
        try:
            saved = automatic.set_rule(customer=access.customer, **form.cleaned_data)
        except ValidationError as refused:
            form.add_error(None, refused)
        else:
            words = "are bought automatically now" if saved.is_active else "are not bought automatically any more"
            messages.success(request, f"{saved.unit.capitalize()} {words}.")
            return redirect("top-ups", key)
    return _page(request, access, status=REFUSED, ruled=form)


def _found(access: Access, public_id: str) -> TopUp:
    return get_object_or_404(queries.top_ups(access.customer).select_related("created_by"), public_id=public_id)


def _page(
    request: MemberRequest,
    access: Access,
    *,
    status: int = 200,
    bought: TopUpForm | None = None,
    ruled: RuleForm | None = None,
) -> HttpResponse:
    customer, may_buy = access.customer, access.role in OWNERS
    seller = provider(customer)
    bought_before = list(queries.top_ups(customer)[: ROWS + 1])
    shelf = _shelf(access, bought, ruled) if may_buy else []
    sent = bought or ruled
    if sent is not None and not any(sent in (item["form"], item["rule_form"]) for item in shelf):
        messages.error(request, GONE)  # its form is not on the page, which would say so
    context = {
        **access.context,
        "may_buy": may_buy,
        "top_ups": bought_before[:ROWS],
        "most": ROWS if len(bought_before) > ROWS else None,
        "waiting": queries.needing_customer(customer),
        "came_from": request.GET.get("from", ""),
        "shelf": shelf,
        "once": secrets.token_urlsafe(16),
        "takes_cards": seller.name != Manual.name,
        "account": queries.payment_account(customer, seller.name) if may_buy else None,
    }
    with timezone.override(ZoneInfo(customer.timezone)):
        return render(request, PAGE, context, status=status)


def _shelf(access: Access, bought: TopUpForm | None, ruled: RuleForm | None) -> list[dict[str, object]]:
    """Each thing that is for sale, with its forms: those that were sent, as they were sent."""
    customer = access.customer
    offers, rules, at = queries.offers(customer), queries.automatic_top_ups(customer), clock.now(customer)
    return [
        {
            "offer": offer,
            "choices": [(amount, offer.costs(amount, customer.currency)) for amount in offer.choices],
            "form": bought if bought and bought.data.get("unit") == offer.unit else TopUpForm.of(offer),
            "rule": rules.get(offer.unit),
            "spent": automatic.spent(rules[offer.unit], at) if offer.unit in rules else None,
            "rule_form": ruled if ruled and ruled.data.get("unit") == offer.unit else RuleForm.of(offer, rules),
        }
        for offer in offers
    ]
