"""Plan versions in the admin: edit a draft and its prices in tables, compare, publish, retire, start the next one.

Every page works without JavaScript. What another room knows of a version is added by `cycle.admin`, which registers it.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin_pages import Searching
from billing.admin_pages import ReadOnlyInline, sentences
from billing.clock import now
from billing.errors import Conflict
from billing.pricing import queries, services
from billing.pricing.comparing import (
    changes,
    credit_in_words,
    fee_in_words,
    interval_in_words,
    minimum_in_words,
    rate_in_words,
)
from billing.pricing.forms import PriceForms
from billing.pricing.models import CreditTerm, OverageTerm, PlanVersion, Price, VersionStatus
from billing.pricing.spec import PriceSpec, VersionSpec, terms_of
from billing.pricing.where import format_where
from billing.pricing.wording import row_in_words

FROZEN = (
    "This version is published, so it is frozen: customers are billed by it. "
    "To change a price, start the next draft from it."
)


class CreditTermInline(TabularInline):
    model = CreditTerm
    fields = ["unit", "amount", "every", "rollover_max", "priority"]
    extra = 0
    verbose_name_plural = "Credits that come with the plan"


class OverageTermInline(TabularInline):
    model = OverageTerm
    fields = ["unit", "unit_amount"]
    extra = 0
    verbose_name_plural = "What a credit costs beyond the grants"


class PriceInline(ReadOnlyInline):
    """The price book: one sentence for each row, and in a draft the way to its table."""

    model = Price
    show_title = False
    fields = readonly_fields = ["name", "meter", "costs"]
    verbose_name_plural = "Prices"

    @display(description="price")
    def name(self, price: Price) -> str:
        if price.version.status != VersionStatus.DRAFT:
            return price.key
        url = reverse("admin:billing_planversion_price", args=[price.version_id, price.key])
        return format_html('<a class="hr-button" href="{}">Edit {}</a>', url, price.key)

    @display(description="costs")
    def costs(self, price: Price) -> str:
        terms = terms_of(queries.price_spec(price))
        book = [("", row_in_words(terms.default, terms.unit))]
        for row, said in zip(price.match.all(), terms.match, strict=True):
            book.append((format_html("<strong>{}</strong>: ", format_where(row.where)), row_in_words(said, terms.unit)))
        return format_html_join(mark_safe("<br>"), "{}{}", book)


class FrozenCreditInline(ReadOnlyInline):
    model = CreditTerm
    show_title = False
    fields = readonly_fields = ["gives"]
    verbose_name_plural = CreditTermInline.verbose_name_plural

    def gives(self, term: CreditTerm) -> str:
        return credit_in_words(queries.credit_spec(term))


class FrozenOverageInline(ReadOnlyInline):
    model = OverageTerm
    show_title = False
    fields = readonly_fields = ["costs"]
    verbose_name_plural = OverageTermInline.verbose_name_plural

    def costs(self, term: OverageTerm) -> str:
        return rate_in_words(queries.overage_spec(term), term.version.plan.currency)


class PublishForm(forms.Form):
    at = forms.DateTimeField(
        required=False,
        label="From",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "datetime-local"}),
        help_text="UTC. Empty: now.",
    )


class VersionAdmin(Searching, ModelAdmin):
    """A version's page: editable while it is a draft, readable for ever after."""

    list_display = ["name", "state", "published_at", "billed", "fee"]
    list_filter = ["status", "plan"]
    list_select_related = ["plan"]
    search_fields = ["plan__key", "plan__name"]
    autocomplete_fields = ["plan"]
    fields = [
        "plan",
        ("interval_count", "interval"),
        ("base_fee", "base_fee_timing"),
        ("trial_days", "minimum_spend"),
        "postpaid",
    ]
    inlines = [PriceInline, CreditTermInline, OverageTermInline]
    compressed_fields = True
    change_form_outer_before_template = "admin/billing/planversion/panel.html"

    # --- lists and fields -------------------------------------------------------------------------------------

    @display(description="version", ordering="plan__name")
    def name(self, version: PlanVersion) -> str:
        return str(version)

    @display(
        description="status",
        label={"Draft": "warning", "Scheduled": "info", "Published": "success", "Retired": "danger"},
    )
    def state(self, version: PlanVersion) -> str:
        return state_of(version, now())

    @display(description="billed")
    def billed(self, version: PlanVersion) -> str:
        return interval_in_words(VersionSpec(interval=version.interval, interval_count=version.interval_count))

    @display(description="base fee", ordering="base_fee")
    def fee(self, version: PlanVersion) -> str:
        spec = VersionSpec(base_fee=version.base_fee, base_fee_timing=version.base_fee_timing)
        return fee_in_words(spec, version.plan.currency)

    @display(description="minimum spend")
    def least(self, version: PlanVersion) -> str:
        return minimum_in_words(VersionSpec(minimum_spend=version.minimum_spend), version.plan.currency)

    def get_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> Any:
        frozen = ["plan", "published_at", "retired_at", "billed", "fee", "trial_days", "least", "postpaid"]
        return frozen if _is_frozen(obj) else self.fields

    def get_inlines(self, request: HttpRequest, obj: PlanVersion | None = None) -> Any:
        if obj is None:
            return [CreditTermInline, OverageTermInline]
        return [PriceInline, FrozenCreditInline, FrozenOverageInline] if _is_frozen(obj) else self.inlines

    def get_readonly_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> list[str]:
        if _is_frozen(obj):
            return ["published_at", "retired_at", "billed", "fee", "least"]
        return ["plan"] if obj else []

    def get_queryset(self, request: HttpRequest) -> "QuerySet[PlanVersion]":
        return super().get_queryset(request).select_related("plan")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not _is_frozen(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not _is_frozen(obj)

    # --- the version's own page -------------------------------------------------------------------------------

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        version = self.get_object(request, object_id)
        if version is not None:
            extra_context = {**(extra_context or {}), "panel": self.panel(request, version)}
            if request.method == "GET" and _is_frozen(version):
                messages.info(request, FROZEN)
        return super().change_view(request, object_id, form_url, extra_context)

    def panel(self, request: HttpRequest, version: PlanVersion) -> dict[str, Any]:
        """What stands above the version: what can be done with it, and how it differs from the one before."""
        previous = queries.version_before(version)
        return {
            "state": _state_in_words(version, now()),
            "is_draft": version.status == VersionStatus.DRAFT,
            "is_published": version.status == VersionStatus.PUBLISHED,
            "may_change": request.user.has_perm("billing.change_planversion"),
            "may_add": request.user.has_perm("billing.add_planversion"),
            "previous": previous,
            "changes": _changes(previous, version),
            "publish_url": _url("publish", version),
            "retire_url": _url("retire", version),
            "draft_url": _url("draft", version),
            "add_price_url": _url("add_price", version),
            "preview_url": self.preview_url(version),
        }

    def preview_url(self, version: PlanVersion) -> str | None:
        """Where real usage is rated by the version, if anywhere."""
        return None

    def save_model(self, request: HttpRequest, obj: PlanVersion, form: Any, change: bool) -> None:
        if change:
            request.spec_before = queries.spec_of(PlanVersion.objects.get(pk=obj.pk))  # type: ignore[attr-defined]
        else:
            obj.number = services.next_number(obj.plan)
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A draft may be saved half done: what would keep it from being published is said at once."""
        super().save_related(request, form, formsets, change)
        for problem in _problems(self._version(form.instance.pk)):
            messages.warning(request, f"Not ready to be published: {problem}")

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """For the history: what the version says otherwise than before, in words."""
        if add:
            return super().construct_change_message(request, form, formsets, add)
        version = self._version(form.instance.pk)
        before: VersionSpec = request.spec_before  # type: ignore[attr-defined]
        return _joined(changes(before, queries.spec_of(version), version.plan.currency))

    # --- its other pages --------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        def page(view: Callable[..., HttpResponse]) -> Any:
            return self.admin_site.admin_view(view)

        own = [
            path("<int:pk>/prices/", page(self.price_view), name="billing_planversion_add_price"),
            path("<int:pk>/prices/<str:key>/", page(self.price_view), name="billing_planversion_price"),
            path("<int:pk>/publish/", page(self.publish_view), name="billing_planversion_publish"),
            path("<int:pk>/retire/", page(self.retire_view), name="billing_planversion_retire"),
            path("<int:pk>/draft/", page(require_POST(self.draft_view)), name="billing_planversion_draft"),
        ]
        return [*own, *super().get_urls()]

    def price_view(self, request: HttpRequest, pk: int, key: str | None = None) -> HttpResponse:
        """The table of one price of a draft."""
        version = self._changeable(request, pk)
        if version.status != VersionStatus.DRAFT:
            return HttpResponseRedirect(_url("change", version))
        price = _price(version, key) if key else None
        if request.method != "POST":
            return self._price_page(request, version, key, PriceForms(price=price or _first_guess(version)))
        if key and "_remove" in request.POST:
            services.remove_price(version=version, key=key, at=now())
            self.log_change(request, version, f"{key}: no longer priced")
            return HttpResponseRedirect(_url("change", version))
        typed = PriceForms(request.POST)
        if typed.is_growing or "_preview" in request.POST:
            return self._price_page(request, version, key, typed)
        return self._save_price(request, version, key, typed)

    def _save_price(
        self, request: HttpRequest, version: PlanVersion, key: str | None, typed: PriceForms
    ) -> HttpResponse:
        if typed.is_valid():
            before, spec = queries.spec_of(version), typed.spec()
            try:
                version = services.write_price(version=version, price=spec, replaces=key, at=now())
            except Conflict as error:
                messages.error(request, " ".join(error.messages))
                return HttpResponseRedirect(_url("change", version))
            except ValidationError as error:
                typed.add_problems(error)
            else:
                said = changes(before, queries.spec_of(self._version(version.pk)), version.plan.currency)
                self.log_change(request, version, _joined(said))
                messages.success(request, f"{spec.key} is saved. {_joined(said)}")
                stays = "_continue" in request.POST
                return HttpResponseRedirect(_url("price", version, spec.key) if stays else _url("change", version))
        return self._price_page(request, version, key, typed)

    def _price_page(
        self, request: HttpRequest, version: PlanVersion, key: str | None, typed: PriceForms
    ) -> HttpResponse:
        context = {
            "title": f"{key or 'A new price'} in {version}",
            "forms": typed,
            "identity": [typed.price[name] for name in ("key", "meter", "unit", "scheme", "per")],
            "key": key,
            "preview": self.price_preview(request, version, key, typed),
        }
        return self._page(request, version, "price", context)

    def price_preview(
        self, request: HttpRequest, version: PlanVersion, key: str | None, typed: PriceForms
    ) -> dict[str, Any] | None:
        """What the page says of real usage, if anything."""
        return None

    def publish_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What will change for new customers, and the button."""
        version, at = self._changeable(request, pk), now()
        form = PublishForm(request.POST if request.method == "POST" else None)
        if version.status == VersionStatus.DRAFT and request.method == "POST" and form.is_valid():
            try:
                version = services.publish(version=version, published_at=form.cleaned_data["at"], at=at)
            except ValidationError as error:
                form.add_error("at" if "at" in getattr(error, "error_dict", {}) else None, sentences(error))
            else:
                self.log_change(request, version, f"Published. {_state_in_words(version, at)}")
                messages.success(request, f"{version} is published.")
        if version.status != VersionStatus.DRAFT:
            return HttpResponseRedirect(_url("change", version))
        previous = queries.latest_published(version.plan, form.cleaned_data.get("at") or at if form.is_bound else at)
        context = {
            "title": f"Publish {version}",
            "form": form,
            "previous": previous,
            "changes": _changes(previous, version),
            "problems": _problems(version),
            "preview_url": self.preview_url(version),
        }
        return self._page(request, version, "publish", context)

    def retire_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Who is left with it, and the button."""
        version = self._changeable(request, pk)
        if version.status == VersionStatus.PUBLISHED and request.method == "POST":
            version = services.retire(version=version, at=now())
            self.log_change(request, version, "Retired.")
            messages.success(request, f"{version} is retired.")
        if version.status != VersionStatus.PUBLISHED:
            return HttpResponseRedirect(_url("change", version))
        successor = queries.latest_published(version.plan, now(), without=version)
        return self._page(request, version, "retire", {"title": f"Retire {version}", "successor": successor})

    def draft_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The next draft, as a copy of this version."""
        if not request.user.has_perm("billing.add_planversion"):
            raise PermissionDenied
        version = self._version(pk)
        draft = services.create_version(plan=version.plan, spec=queries.spec_of(version), at=now())
        self.log_addition(request, draft, f"Copied from version {version.number}.")
        messages.success(
            request, f"{draft} begins as a copy of {version}. Nothing changes for anybody until it is out."
        )
        return HttpResponseRedirect(_url("change", draft))

    def _page(self, request: HttpRequest, version: PlanVersion, name: str, context: dict[str, Any]) -> HttpResponse:
        shared = {"version": version, "version_url": _url("change", version), "opts": self.opts}
        site = self.admin_site.each_context(request)
        return render(request, f"admin/billing/planversion/{name}.html", {**site, **shared, **context})

    def _version(self, pk: Any) -> PlanVersion:
        version = PlanVersion.objects.select_related("plan").filter(pk=pk).first()
        if version is None:
            raise Http404
        return version

    def _changeable(self, request: HttpRequest, pk: int) -> PlanVersion:
        if not request.user.has_perm("billing.change_planversion"):
            raise PermissionDenied
        return self._version(pk)


def state_of(version: PlanVersion, at: datetime) -> str:
    """Its status, and of a published one whether its time has come."""
    if version.status == VersionStatus.PUBLISHED and version.published_at is not None and version.published_at > at:
        return "Scheduled"
    return str(version.get_status_display())


def _state_in_words(version: PlanVersion, at: datetime) -> str:
    if version.published_at is None:
        return "A draft: nobody pays by it, and everything may change."
    begins = f"{version.published_at:%-d %B %Y, %H:%M} UTC"
    if version.retired_at is not None:
        return f"Retired on {version.retired_at:%-d %B %Y, %H:%M} UTC: no subscription begins with it."
    if version.published_at > at:
        return f"Scheduled: new subscriptions take it from {begins} on."
    return f"Published: new subscriptions take it since {begins}."


def _is_frozen(version: Any) -> bool:
    return isinstance(version, PlanVersion) and version.status != VersionStatus.DRAFT


def _problems(version: PlanVersion) -> list[str]:
    try:
        services.check(queries.spec_of(version), version.plan)
    except ValidationError as error:
        return sentences(error)
    return []


def _changes(previous: PlanVersion | None, version: PlanVersion) -> list[str]:
    if previous is None:
        return []
    return changes(queries.spec_of(previous), queries.spec_of(version), version.plan.currency)


def _joined(said: list[str]) -> str:
    return "; ".join(said) or "Nothing changed."


def _price(version: PlanVersion, key: str) -> PriceSpec:
    found = [price for price in queries.spec_of(version).prices if price.key == key]
    if not found:
        raise Http404
    return found[0]


def _first_guess(version: PlanVersion) -> PriceSpec:
    return PriceSpec(key="", meter="", unit=version.plan.currency)


def _url(page: str, version: PlanVersion, *more: str) -> str:
    return reverse(f"admin:billing_planversion_{page}", args=[version.pk, *more])
