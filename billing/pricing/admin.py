"""Plans in the admin: edit a draft in tables, publish it, and start the next one from it."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from unfold.admin import ModelAdmin, StackedInline, TabularInline
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin_pages import ReadOnlyInline, sentences
from billing.clock import now
from billing.pricing import queries, services, where
from billing.pricing.models import CreditTerm, MatchRow, OverageTerm, Plan, PlanVersion, Price, VersionStatus
from billing.pricing.schemes import Terms, figure
from billing.pricing.wording import row_in_words

FROZEN = (
    "This version is published, so it is frozen: customers are billed by it. "
    "To change a price, start a new draft from it."
)


class WhereField(forms.CharField):
    """A condition as text; empty is refused, because the price itself is the default row."""

    widget = UnfoldAdminTextInputWidget(attrs={"placeholder": "model = large-2"})

    def prepare_value(self, value: Any) -> Any:
        return where.format_where(value) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        try:
            return where.parse(super().to_python(value) or "")
        except ValueError as error:
            raise ValidationError(str(error)) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.prepare_value(initial or {}) != (data or ""))


class MatchRowForm(forms.ModelForm):
    where = WhereField(help_text="dimension = value. Several values: model = mini | nano. Absent: region = none.")

    class Meta:
        model = MatchRow
        fields = ["where", "unit_amount"]


class MatchRowInline(TabularInline):
    model = MatchRow
    form = MatchRowForm
    fields = ["where", "unit_amount"]
    extra = 0
    verbose_name_plural = "Other amounts, where dimensions match"


class PriceInline(StackedInline):
    model = Price
    fields = [("key", "meter", "unit"), ("scheme", "unit_amount", "per", "included")]
    readonly_fields = ["scheme"]  # tiers and packages are written through the API
    inlines = [MatchRowInline]
    extra = 0
    autocomplete_fields = ["meter"]


class CreditTermInline(TabularInline):
    model = CreditTerm
    fields = ["unit", "amount", "priority"]
    extra = 0
    verbose_name_plural = "Credits that come with each billing period"


class OverageTermInline(TabularInline):
    model = OverageTerm
    fields = ["unit", "unit_amount"]
    extra = 0
    verbose_name_plural = "What a credit costs beyond the grants"


class FrozenPriceInline(ReadOnlyInline):
    """The price book: one sentence for each row."""

    model = Price
    show_title = False
    fields = readonly_fields = ["meter", "costs"]
    verbose_name_plural = "Prices"

    @display(description="costs")
    def costs(self, price: Price) -> str:
        terms = queries.price_terms(price)
        rows = [(format_html("<strong>{}</strong>: ", str(row)), book) for row, book in _matches(price, terms)]
        sentences = [("", row_in_words(terms.default, terms.unit)), *rows]
        return format_html_join(mark_safe("<br>"), "{}{}", sentences)


def _matches(price: Price, terms: Terms) -> list[tuple[MatchRow, str]]:
    rows = zip(price.match.all(), terms.match, strict=True)
    return [(row, row_in_words(book, terms.unit)) for row, book in rows]


class FrozenCreditInline(ReadOnlyInline):
    model = CreditTerm
    show_title = False
    fields = readonly_fields = ["gives", "priority"]
    verbose_name_plural = CreditTermInline.verbose_name_plural

    def gives(self, term: CreditTerm) -> str:
        return str(term)


class FrozenOverageInline(ReadOnlyInline):
    model = OverageTerm
    show_title = False
    fields = readonly_fields = ["costs"]
    verbose_name_plural = OverageTermInline.verbose_name_plural

    def costs(self, term: OverageTerm) -> str:
        return f"{figure(term.unit_amount)} {term.version.plan.currency} per unit of {term.unit}"


@admin.register(PlanVersion)
class PlanVersionAdmin(ModelAdmin):
    """A version's page: editable while it is a draft, readable for ever after."""

    list_display = ["name", "state", "published_at", "billed", "fee"]
    list_filter = ["status", "plan"]
    list_select_related = ["plan"]
    search_fields = ["plan__key", "plan__name"]
    autocomplete_fields = ["plan"]
    fields = ["plan", ("interval_count", "interval"), ("base_fee", "base_fee_timing"), "postpaid"]
    inlines = [PriceInline, CreditTermInline, OverageTermInline]
    actions_detail = ["publish", "start_new_draft"]
    compressed_fields = True

    @display(description="version", ordering="plan__name")
    def name(self, version: PlanVersion) -> str:
        return str(version)

    @display(description="status", label={"Draft": "warning", "Published": "success"})
    def state(self, version: PlanVersion) -> str:
        return str(version.get_status_display())

    @display(description="billed")
    def billed(self, version: PlanVersion) -> str:
        count = version.interval_count
        return f"every {version.interval}" if count == 1 else f"every {count} {version.interval}s"

    @display(description="base fee", ordering="base_fee")
    def fee(self, version: PlanVersion) -> str:
        timing = version.get_base_fee_timing_display().lower()
        return f"{figure(version.base_fee)} {version.plan.currency}, {timing}"

    def get_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> Any:
        return ["plan", "published_at", "billed", "fee", "postpaid"] if _is_frozen(obj) else self.fields

    def get_inlines(self, request: HttpRequest, obj: PlanVersion | None = None) -> Any:
        return [FrozenPriceInline, FrozenCreditInline, FrozenOverageInline] if _is_frozen(obj) else self.inlines

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and not _is_frozen(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not _is_frozen(obj)

    def get_readonly_fields(self, request: HttpRequest, obj: PlanVersion | None = None) -> list[str]:
        if _is_frozen(obj):
            return ["published_at", "billed", "fee"]
        return ["plan"] if obj else []

    def get_queryset(self, request: HttpRequest) -> "QuerySet[PlanVersion]":
        return super().get_queryset(request).select_related("plan")

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "GET" and PlanVersion.objects.filter(pk=object_id, status="published").exists():
            messages.info(request, FROZEN)
        return super().change_view(request, object_id, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: PlanVersion, form: Any, change: bool) -> None:
        if not change:
            last = PlanVersion.objects.filter(plan=obj.plan).aggregate(last=Max("number"))["last"] or 0
            obj.number = last + 1
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A draft may be saved half done: what would keep it from being published is said at once."""
        super().save_related(request, form, formsets, change)
        version = PlanVersion.objects.select_related("plan").get(pk=form.instance.pk)
        for problem in _problems(version):
            messages.warning(request, f"Not ready to be published: {problem}")

    @action(
        description="Publish",
        permissions=["publish"],
        icon="publish",
        variant=ActionVariant.PRIMARY,
        dialog={
            "title": "Publish this version?",
            "description": "New subscriptions take it from now on. It is frozen then: a change needs a new version.",
            "form_submit_text": "Publish",
        },
    )
    def publish(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        version = self._writable(request, object_id)
        try:
            services.publish(version=version, at=now())
        except ValidationError as error:
            for sentence in sentences(error):
                messages.error(request, sentence)
        else:
            self.log_change(request, version, "Published.")
            messages.success(request, f"{version} is published.")
        return _to(version)

    @action(
        description="Start a new draft from this",
        permissions=["draft"],
        icon="content_copy",
        dialog={
            "title": "Start a new draft?",
            "description": "It begins as a copy of this version. Nothing changes for anybody until you publish it.",
            "form_submit_text": "Start the draft",
        },
    )
    def start_new_draft(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        version = self._writable(request, object_id)
        draft = services.create_version(plan=version.plan, spec=queries.spec_of(version), at=now())
        self.log_addition(request, draft, f"Copied from version {version.number}.")
        return _to(draft)

    def has_draft_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("billing.add_planversion")

    def has_publish_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Whoever may change versions may publish; the button is there while there is something to publish."""
        drafts = PlanVersion.objects.filter(status=VersionStatus.DRAFT)
        may_change: bool = request.user.has_perm("billing.change_planversion")
        return may_change and (object_id is None or drafts.filter(pk=object_id).exists())

    def _writable(self, request: HttpRequest, object_id: str) -> PlanVersion:
        version: PlanVersion = self.get_object(request, object_id)
        return version


class PlanVersionInline(TabularInline):
    model = PlanVersion
    fields = readonly_fields = ["number", "status", "published_at", "base_fee"]
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Plan)
class PlanAdmin(ModelAdmin):
    """A plan and its versions. Key and currency are fixed once it exists: subscriptions and grants count on them."""

    list_display = ["name", "key", "currency", "created_at"]
    search_fields = ["key", "name"]
    fields = ["name", "key", "currency"]
    inlines = [PlanVersionInline]

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> list[str]:
        return ["key", "currency"] if obj else []


def _is_frozen(version: Any) -> bool:
    return isinstance(version, PlanVersion) and version.status == VersionStatus.PUBLISHED


def _problems(version: PlanVersion) -> list[str]:
    try:
        services.check(queries.spec_of(version), version.plan)
    except ValidationError as error:
        return sentences(error)
    return []


def _to(version: PlanVersion) -> HttpResponse:
    """The dialog is an htmx form, so the way on is a header."""
    return HttpResponse(headers={"HX-Redirect": reverse("admin:billing_planversion_change", args=[version.pk])})
