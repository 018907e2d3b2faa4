"""The budgets of a customer: cards to read, and forms for owners and billing members.

The overview shows the card of the first budget and edits it in place; the page of its own shows all, and what they told
of whom. Every form is also a page.
"""

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from billing import clock
from billing.budgets import queries, services
from billing.budgets.models import Budget
from billing.budgets.validation import ThresholdSpec
from billing.errors import Conflict
from billing.reads import snapshot
from dashboard import building
from dashboard.budgets import ALERTS, alert_rows, every_budget
from dashboard.forms import BudgetForm
from dashboard.http import EDITORS, Access, MemberRequest, customer_for
from dashboard.reading import Reading

PAGE = "dashboard/budget.html"
REFUSED = 422  # htmx swaps this one: the form with its errors


@require_safe
def show(request: MemberRequest, key: str) -> HttpResponse:
    """What is set, and what was told of whom; in place only the card of the first budget."""
    access = customer_for(request, key)
    if request.htmx:
        return _card(request, access)
    reading = Reading(access.customer, clock.now(access.customer))
    with snapshot():
        context = {
            **access.context,
            "budgets": every_budget(reading),
            "alerts": alert_rows(reading),
            "most": ALERTS,
            "period": reading.period,
            "timezone": reading.timezone,
        }
    with timezone.override(reading.timezone):
        return render(request, PAGE, context)


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: MemberRequest, key: str) -> HttpResponse:
    """The form of the overview's budget, or of its first one; a POST saves it and answers the card."""
    access = customer_for(request, key, roles=EDITORS)
    reading = Reading(access.customer, clock.now(access.customer))
    return _edit(request, access, reading, reading.budget, f"{reverse('overview', args=[key])}#budget")


@require_http_methods(["GET", "HEAD", "POST"])
def edit_one(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    """The same for a budget of the page of all."""
    access = customer_for(request, key, roles=EDITORS)
    reading = Reading(access.customer, clock.now(access.customer))
    return _edit(request, access, reading, _found(access, public_id), _address(key, public_id))


@require_http_methods(["GET", "HEAD", "POST"])
def add(request: MemberRequest, key: str) -> HttpResponse:
    """The form of another budget."""
    access = customer_for(request, key, roles=EDITORS)
    reading = Reading(access.customer, clock.now(access.customer))
    return _edit(request, access, reading, None, _address(key))


@require_POST
def test(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    """Mail everybody whom this budget tells what its alerts look like."""
    access = customer_for(request, key, roles=EDITORS)
    try:
        told = services.send_test(budget=_found(access, public_id), at=clock.now(access.customer))
    except Conflict as refused:
        messages.error(request, refused.detail)
    else:
        messages.success(request, f"A test mail is on its way to {', '.join(told)}.")
    return redirect(_address(key))


@require_POST
def archive(request: MemberRequest, key: str, public_id: str) -> HttpResponse:
    """Watch it no more; what it told stays."""
    access = customer_for(request, key, roles=EDITORS)
    budget = _found(access, public_id)
    services.archive_budget(budget=budget, at=clock.now(access.customer))
    messages.success(request, f"The budget “{budget.name}” is removed. Its alerts stay listed.")
    return redirect(_address(key))


def _address(key: str, public_id: str = "") -> str:
    return reverse("budget", args=[key]) + (f"#{public_id}" if public_id else "")


def _found(access: Access, public_id: str) -> Budget:
    return get_object_or_404(queries.budgets(access.customer), public_id=public_id)


def _edit(request: MemberRequest, access: Access, reading: Reading, budget: Budget | None, then: str) -> HttpResponse:
    """`then`: where it goes on once the budget is saved by a page of its own."""
    form = BudgetForm(request.POST or None, unit=budget.unit if budget else reading.unit, budget=budget)
    if request.method != "POST":
        return _form(request, access, form, budget)
    if not (form.is_valid() and _saved(form, reading, budget)):
        return _form(request, access, form, budget, status=REFUSED)
    if not request.htmx:
        return redirect(then)
    response = _card(request, access)
    response["HX-Trigger"] = "budgetSaved"  # tiles and chart follow at once
    return response


def _saved(form: BudgetForm, reading: Reading, budget: Budget | None) -> bool:
    """Whether the budget was stored; what was refused is then said in the form."""
    said = form.cleaned_data
    wanted = {
        "name": said["name"],
        "amount": said["amount"],
        "thresholds": _thresholds(budget, said["thresholds"]),
        "stop_at_percent": said["stop_at"],
        "recipients": said["recipients"],
        "at": reading.at,
    }
    try:
        if budget:
            services.update_budget(budget=budget, **wanted)
        else:
            services.create_budget(customer=reading.customer, unit=reading.unit, **wanted)
    except ValidationError as error:
        form.refuse(error)
    return form.is_valid()


def _thresholds(budget: Budget | None, percents: tuple) -> list[ThresholdSpec]:
    """The percents of the form, beside thresholds that were set as amounts and are not in it."""
    stored = budget.thresholds.all() if budget else ()
    amounts = [ThresholdSpec(id=each.public_id, amount=each.amount) for each in stored if each.amount is not None]
    return [*amounts, *(ThresholdSpec(percent=percent) for percent in percents)]


def _form(
    request: MemberRequest, access: Access, form: BudgetForm, budget: Budget | None, status: int = 200
) -> HttpResponse:
    context = {**access.context, "form": form, "budget": budget}
    return render(request, f"{PAGE}#form" if request.htmx else PAGE, context, status=status)


def _card(request: MemberRequest, access: Access) -> HttpResponse:
    """The overview's."""
    reading = Reading(access.customer, clock.now(access.customer))
    with snapshot():
        budget = building.budget_view(reading)
    context = {**access.context, "budget": budget, "edit_url": reverse("budget-edit", args=[access.customer.key])}
    with timezone.override(reading.timezone):
        return render(request, f"{PAGE}#settings", context)
