"""What is agreed outside plan versions, in the admin: amounts for one customer, coupons, and unit costs.

What was agreed is never rewritten: it is made here, and ended.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from accounts.admin_pages import Searching
from billing.admin_pages import act_on_row, add_refusal
from billing.clock import now
from billing.cycle import services
from billing.pricing import agreements, costs
from billing.pricing.forms import ONLY, RowForm, WhereField
from billing.pricing.models import Coupon, Price, PriceOverride, UnitCost, VersionStatus
from billing.pricing.schemes import figure
from billing.pricing.spec import MatchSpec
from billing.pricing.where import format_where
from billing.revenue.margin_admin import margin_csv, margin_page
from billing.subscriptions.models import CouponRedemption


class _Agreed(ModelAdmin):
    """Made once, by a form that calls the service; read from then on."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form has made it."""


class _ServiceForm(forms.ModelForm):
    """Does what the service does inside validation, so that what it refuses shows at its field."""

    def make(self) -> Any:
        raise NotImplementedError

    def _post_clean(self) -> None:
        if not self.errors:
            try:
                self.instance = self.make()
            except ValidationError as error:
                add_refusal(self, error)


class OverrideForm(RowForm, _ServiceForm):
    price_row = forms.ChoiceField(
        label="Price",
        widget=UnfoldAdminSelectWidget,
        help_text="Its amounts are replaced as a whole; its scheme stays.",
    )

    class Meta:
        model = PriceOverride
        fields = ["customer", "starts_at", "ends_at", "reason"]
        help_texts = {"starts_at": "Not in the past; rounded down to a quarter hour.", "ends_at": "Empty: until ended."}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rows = dict(_price_rows())
        self.fields["price_row"].choices = [(key, label) for key, (label, *_) in self.rows.items()]  # type: ignore[attr-defined]

    def make(self) -> PriceOverride:
        typed = self.cleaned_data
        _, price, row = self.rows[typed["price_row"]]
        return services.override_price(
            customer=typed["customer"],
            price=price,
            row=row,
            amounts=MatchSpec({}, **self.amounts(price.scheme)),
            starts_at=typed["starts_at"],
            ends_at=typed["ends_at"],
            reason=typed["reason"],
            at=now(typed["customer"]),
        )


def _price_rows() -> Any:
    """Every row of every published price: its key in the form, its label, the price and the match row."""
    published = Price.objects.filter(version__status=VersionStatus.PUBLISHED).select_related("version__plan")
    for price in published.prefetch_related("match").order_by("version__plan__name", "-version__number", "id"):
        name = f"{price.version}, {price.key} ({price.get_scheme_display().lower()})"
        yield f"{price.pk}", (name, price, None)
        for row in price.match.all():
            yield f"{price.pk}-{row.pk}", (f"{name}, {format_where(row.where)}", price, row)


@admin.register(PriceOverride)
class PriceOverrideAdmin(Searching, _Agreed):
    """Amounts for one customer."""

    form = OverrideForm
    list_display = ["customer", "of", "starts_at", "ends_at", "reason"]
    list_select_related = ["customer", "price__version__plan", "row"]
    search_fields = ["customer__key", "customer__name", "price__key"]
    autocomplete_fields = ["customer"]
    actions_detail = ["end"]

    def get_fields(self, request: HttpRequest, obj: PriceOverride | None = None) -> list[str]:
        if obj is None:
            return ["customer", "price_row", *RowForm.base_fields, "starts_at", "ends_at", "reason"]
        amounts = [name for name in RowForm.base_fields if obj.price.scheme in ONLY.get(name, (obj.price.scheme,))]
        return ["customer", "of", *amounts, "starts_at", "ends_at", "reason", "carried_from", "created_by"]

    def get_readonly_fields(self, request: HttpRequest, obj: PriceOverride | None = None) -> list[str]:
        return ["of", "carried_from", "created_by"] if obj else []

    @display(description="price")
    def of(self, override: PriceOverride) -> str:
        row = f", {format_where(override.row.where)}" if override.row else ""
        return f"{override.price.version}, {override.price.key}{row}"

    def save_model(self, request: HttpRequest, obj: PriceOverride, form: Any, change: bool) -> None:
        PriceOverride.objects.filter(pk=obj.pk).update(created_by=request.user)

    @action(
        description="End it now",
        dialog={
            "title": "End these amounts?",
            "description": "From now on the plan's hold.",
            "form_submit_text": "End",
        },
    )
    def end(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponse:
        if not request.user.has_perm("billing.add_priceoverride"):
            return HttpResponse(status=403)

        def act(override: PriceOverride) -> str:
            services.end_override(override=override, at=now(override.customer))
            return "Ended."

        return act_on_row(self, request, object_id, act, "The plan's amounts hold again.")


class CouponForm(_ServiceForm):
    class Meta:
        model = Coupon
        fields = [
            "key",
            "name",
            "percent",
            "amount",
            "currency",
            "duration",
            "periods",
            "redeem_by",
            "max_redemptions",
        ]

    def make(self) -> Coupon:
        return agreements.create_coupon(**self.cleaned_data, at=now())


class RedemptionInline(TabularInline):
    model = CouponRedemption
    fields = readonly_fields = ["subscription", "starts_at", "ends_at"]
    extra = 0
    can_delete = False
    verbose_name_plural = "Redeemed by"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Coupon)
class CouponAdmin(_Agreed):
    form = CouponForm
    list_display = ["key", "name", "gives", "duration", "redeem_by", "max_redemptions"]
    search_fields = ["key", "name"]

    def get_inlines(self, request: HttpRequest, obj: Coupon | None = None) -> list[Any]:
        return [RedemptionInline] if obj else []

    @display(description="gives")
    def gives(self, coupon: Coupon) -> str:
        if coupon.percent is not None:
            return f"{figure(coupon.percent)} % off"
        return f"{figure(coupon.amount)} {coupon.currency} off"


class UnitCostForm(_ServiceForm):
    where = WhereField(required=False, help_text="dimension = value; empty: everything else.")

    class Meta:
        model = UnitCost
        fields = ["meter", "where", "unit_amount", "per", "currency", "effective_at", "source"]

    def make(self) -> UnitCost:
        return costs.record_cost(**self.cleaned_data, at=now())


@admin.register(UnitCost)
class UnitCostAdmin(Searching, _Agreed):
    """What usage costs the vendor. The page of what is left of it is beside its list."""

    form = UnitCostForm
    actions_list = ["to_margin"]
    list_display = ["meter", "condition", "costs", "effective_at", "source"]
    list_select_related = ["meter"]
    list_filter = ["meter"]
    search_fields = ["meter__key", "source"]
    autocomplete_fields = ["meter"]

    def get_urls(self) -> list[Any]:
        own = [
            path("margin/", margin_page(self.admin_site), name="billing_margin"),
            path("margin.csv", margin_csv(self.admin_site), name="billing_margin_csv"),
        ]
        return [*own, *super().get_urls()]

    @action(description="Margin", icon="trending_up")
    def to_margin(self, request: HttpRequest) -> HttpResponse:
        return redirect("admin:billing_margin")

    @display(description="where")
    def condition(self, cost: UnitCost) -> str:
        return format_where(cost.where) or "everything else"

    @display(description="costs")
    def costs(self, cost: UnitCost) -> str:
        return f"{figure(cost.unit_amount)} {cost.currency} per {figure(cost.per)}"
