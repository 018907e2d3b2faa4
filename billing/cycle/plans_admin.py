"""Plan versions in the admin, with what they would have charged for real usage."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import Customer
from billing.clock import now
from billing.cycle.preview import Charged, Preview, percent, preview, preview_everyone
from billing.money import CONTEXT, counted, display, plain
from billing.pricing import queries, services
from billing.pricing.comparing import condition_in_words
from billing.pricing.forms import PriceForms
from billing.pricing.models import PlanVersion
from billing.pricing.schemes import figure
from billing.pricing.spec import VersionSpec
from billing.pricing.versions_admin import VersionAdmin

ROWS_SHOWN = 200
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Change:
    """An amount then and now, as people read it."""

    name: str
    now: str
    then: str
    difference: str
    percent: str


def change(name: str, before: Decimal | None, after: Decimal, currency: str) -> Change:
    """For instance now $1,400.00, then $1,232.00, difference -$168.00, -12 %."""
    if before is None:
        return Change(name, "\N{EM DASH}", display(after, currency), "\N{EM DASH}", "\N{EM DASH}")
    difference, share = CONTEXT.subtract(after, before), percent(before, after)
    sign = "+" if difference > 0 else ""
    return Change(
        name,
        display(before, currency),
        display(after, currency),
        sign + display(difference, currency),
        "\N{EM DASH}" if share is None else f"{_signed(share)} %",
    )


def _signed(share: Decimal) -> str:
    rounded = share.quantize(Decimal("0.1"))
    text = plain(abs(rounded))
    return f"+{text}" if rounded > 0 else f"{_MINUS}{text}" if rounded < 0 else text


class WhoseForm(forms.Form):
    """Whose usage: that of one customer, or of everyone on a version of the plan."""

    on = forms.ChoiceField(
        required=False, label="Of everyone on", widget=UnfoldAdminSelectWidget, help_text="In their billing periods."
    )
    customer = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget, help_text="A customer's key; empty: everyone."
    )

    def __init__(self, version: PlanVersion, data: Any = None) -> None:
        super().__init__(data)
        versions = queries.versions(version.plan).exclude(status="draft")
        before = queries.version_before(version)
        self.versions = {str(one.number): one for one in versions}
        self.fields["on"].choices = [(number, str(one)) for number, one in self.versions.items()]  # type: ignore[attr-defined]
        self.fields["on"].initial = str(before.number) if before and str(before.number) in self.versions else None

    def clean_customer(self) -> Customer | None:
        key = self.cleaned_data["customer"].strip()
        found = Customer.objects.filter(key=key).first() if key else None
        if key and found is None:
            raise forms.ValidationError(f'There is no customer "{key}".')
        return found

    def version(self) -> PlanVersion | None:
        """The version whose customers are meant: the one before this, or the newest that has any."""
        chosen = self.cleaned_data.get("on") or self.fields["on"].initial
        return self.versions.get(chosen) or next(iter(self.versions.values()), None)


@admin.register(PlanVersion)
class PlanVersionAdmin(VersionAdmin):
    """A version's pages, with previews."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.preview_view)
        return [path("<int:pk>/preview/", view, name="billing_planversion_preview"), *super().get_urls()]

    def preview_url(self, version: PlanVersion) -> str:
        return reverse("admin:billing_planversion_preview", args=[version.pk])

    def preview_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What the version would have charged, customer by customer."""
        if not request.user.has_perm("billing.view_planversion"):
            raise PermissionDenied
        version = self._version(pk)
        form = WhoseForm(version, request.GET if request.GET else {})
        context = {"title": f"What {version} would have charged", "form": form}
        if form.is_valid():
            context["found"] = _found(form, queries.spec_of(version), version)
        return self._page(request, version, "preview", context)

    def price_preview(
        self, request: HttpRequest, version: PlanVersion, key: str | None, typed: PriceForms
    ) -> dict[str, Any]:
        """The same of what is being typed, for the page of a price."""
        form = WhoseForm(version, request.POST if request.method == "POST" else {})
        spec = queries.spec_of(version)
        problems: list[str] = []
        if typed.price.is_bound:
            if not typed.is_valid():
                return {"form": form, "problems": ["Fill in what is missing or wrong to see it."]}
            spec, place = services.with_price(spec, typed.spec(), key)
            problems = [problem.detail for problem in services.price_problems(version.plan, spec, place)]
        if problems or not form.is_valid():
            return {"form": form, "problems": problems}
        return {"form": form, "found": _found(form, spec, version)}


def _found(form: WhoseForm, spec: VersionSpec, version: PlanVersion) -> dict[str, Any] | None:
    """The changes: of one customer line by line, or of everyone customer by customer; None without anyone."""
    currency, customer = version.plan.currency, form.cleaned_data["customer"]
    if customer is not None:
        one = preview(customer, spec, currency, None, under=version, at=now(customer))
        total = change(customer.name, one.amount_now, one.then.amount, currency)
        return {"whose": customer.name, "total": total, "parts": _parts(one, currency), "lines": _lines(one)}
    other = form.version()
    if other is None:
        return None
    found = preview_everyone(spec, currency, other, under=version)
    rows = [change(one.customer.name, one.amount_now, one.then.amount, currency) for one in found.previews]
    total = change("All", found.now, found.then, currency)
    count = f"{len(rows)} customer{'' if len(rows) == 1 else 's'}"
    return {"whose": f"everyone on {other} ({count})", "total": total, "rows": rows[:ROWS_SHOWN], "more": len(rows)}


def _parts(found: Preview, currency: str) -> list[Change]:
    def part(charged: Charged | None, name: str) -> Decimal | None:
        return None if charged is None else getattr(charged.statement, name)

    names = {"usage": "Usage", "fees": "Base fee", "true_ups": "Minimums", "credits_applied": "Prepaid with the plan"}
    both = [(words, part(found.now, name), part(found.then, name) or Decimal(0)) for name, words in names.items()]
    return [change(words, before, after, currency) for words, before, after in both if before or after]


def _lines(found: Preview) -> list[dict[str, str]]:
    return [
        {
            "name": line.price.key if not line.row else f"{line.price.key}, {condition_in_words(line.terms)}",
            "quantity": figure(line.quantity),
            "amount": f"{figure(line.amount)} {counted(line.unit, line.amount)}",
            "explanation": line.rated.explanation,
        }
        for line in found.then.lines
        if line.amount or line.quantity
    ]
