"""The budget of a customer: a card to read, and a form for owners and billing members. Both work in place and alone."""

from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from billing import clock
from billing.budgets import services
from billing.budgets.models import Budget
from billing.budgets.validation import ThresholdSpec
from billing.reads import snapshot
from dashboard import building
from dashboard.forms import BudgetForm
from dashboard.http import EDITORS, Access, MemberRequest, customer_for
from dashboard.reading import Reading

PAGE = "dashboard/budget.html"
REFUSED = 422  # htmx swaps this one: the form with its errors


@require_safe
def show(request: MemberRequest, key: str) -> HttpResponse:
    """What is set."""
    access = customer_for(request, key)
    return _card(request, access)


@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: MemberRequest, key: str) -> HttpResponse:
    """The form; a POST saves it and answers the card."""
    access = customer_for(request, key, roles=EDITORS)
    reading = Reading(access.customer, clock.now(access.customer))
    form = BudgetForm(request.POST or None, unit=reading.unit, budget=reading.budget)
    if request.method != "POST":
        return _form(request, access, form, reading.budget)
    if not (form.is_valid() and _saved(form, reading)):
        return _form(request, access, form, reading.budget, status=REFUSED)
    if not request.htmx:
        return redirect(f"{reverse('overview', args=[key])}#budget")
    response = _card(request, access)
    response["HX-Trigger"] = "budgetSaved"  # tiles and chart follow at once
    return response


def _saved(form: BudgetForm, reading: Reading) -> bool:
    """Whether the budget was stored; what was refused is then said in the form."""
    said, budget = form.cleaned_data, reading.budget
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
    action = reverse("budget-edit", args=[access.customer.key])
    context = {**access.context, "form": form, "budget": budget, "action": action}
    return render(request, f"{PAGE}#form" if request.htmx else PAGE, context, status=status)


def _card(request: MemberRequest, access: Access) -> HttpResponse:
    reading = Reading(access.customer, clock.now(access.customer))
    with snapshot():
        budget = building.budget_view(reading)
    context = {
        **access.context,
        "budget": budget,
        "unit": reading.unit,
        "edit_url": reverse("budget-edit", args=[access.customer.key]),
    }
    with timezone.override(reading.timezone):
        return render(request, f"{PAGE}#settings" if request.htmx else PAGE, context)
