"""Subscriptions in the admin: start one; change, cancel and resume it; move many to a version, once it is seen what
that means.

What a service refuses shows at its field. None of it needs JavaScript.
"""

from collections.abc import Callable
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import NoReverseMatch, URLPattern, path, reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin_pages import ReadOnlyInline, add_refusal
from billing.clock import now
from billing.cycle import moving, services
from billing.pricing.models import Coupon, PlanVersion, VersionStatus
from billing.subscriptions import coupons, queries
from billing.subscriptions import services as subscriptions
from billing.subscriptions.models import (
    BillingPeriod,
    CouponRedemption,
    PlanSegment,
    Subscription,
    SubscriptionStatus,
)
from billing.subscriptions.services import When

_WHEN = [("period_end", "With the next billing period"), ("now", "From this quarter hour on")]
MOST_MOVED = 200  # that one page shows


def _published() -> "QuerySet[PlanVersion]":
    found = PlanVersion.objects.filter(status=VersionStatus.PUBLISHED).select_related("plan")
    return found.order_by("plan__name", "-number")


class SubscriptionForm(forms.ModelForm):
    """Starts the subscription inside validation, so that what the service refuses shows at its field."""

    version = forms.ModelChoiceField(
        _published(),
        help_text="Only published versions can be subscribed to.",
    )
    anchor_day = forms.IntegerField(
        required=False, min_value=1, max_value=31, help_text="Of the month; the start's own day when empty."
    )

    class Meta:
        model = Subscription
        fields = ["customer", "version", "starts_at", "anchor_day", "anchor_month"]

    def _post_clean(self) -> None:
        """The service validates and writes; Django's own checks would ask for what it fills in."""
        if not self.errors:
            try:
                self.instance = services.subscribe(**self.cleaned_data, at=now(self.cleaned_data["customer"]))
            except ValidationError as error:
                add_refusal(self, error)


class WhenForm(forms.Form):
    when = forms.ChoiceField(choices=_WHEN, initial="period_end", widget=UnfoldAdminSelectWidget)


class MoveForm(WhenForm):
    version = forms.ModelChoiceField(_published(), label="To the version", widget=UnfoldAdminSelectWidget)
    field_order = ["version", "when"]


class CouponForm(forms.Form):
    coupon = forms.ModelChoiceField(Coupon.objects.order_by("key"), widget=UnfoldAdminSelectWidget)


class RedemptionForm(forms.Form):
    redemption = forms.ModelChoiceField(CouponRedemption.objects.none(), label="Coupon", widget=UnfoldAdminSelectWidget)

    def __init__(self, data: Any, subscription: Subscription) -> None:
        super().__init__(data)
        held = subscription.coupons.filter(ends_at=None)
        self.fields["redemption"].queryset = held.select_related(  # type: ignore[attr-defined]
            "coupon", "subscription__customer", "subscription__version__plan"
        )


class BillingPeriodInline(ReadOnlyInline):
    model = BillingPeriod
    fields = ["starts_at", "ends_at", "timezone", "status", "plans"]
    readonly_fields = ["plans"]
    ordering = ["-starts_at"]
    per_page = 12

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related(queries.SEGMENTS)

    @display(description="Under")
    def plans(self, period: BillingPeriod) -> str:
        return ", then ".join(map(_segment_in_words, period.plan_segments.all())) or "Cancelled as it began"


def _segment_in_words(segment: PlanSegment) -> str:
    return f"{segment.version} (trial)" if segment.is_trial else str(segment.version)


class CouponInline(ReadOnlyInline):
    model = CouponRedemption
    fields = ["coupon", "starts_at", "ends_at"]
    verbose_name_plural = "Coupons"


@admin.register(Subscription)
class SubscriptionAdmin(ModelAdmin):
    form = SubscriptionForm
    list_display = ["public_id", "customer", "version", "stage", "starts_at", "ends_at"]
    list_filter = ["status", "version__plan"]
    list_select_related = ["customer__test_clock", "version__plan"]
    search_fields = ["public_id", "customer__key", "customer__name"]
    inlines = [BillingPeriodInline, CouponInline]
    actions = ["move_selected"]
    actions_detail = ["change_plan", "cancel", "resume", "redeem", "take_coupon_off"]

    @display(description="status", ordering="status")
    def stage(self, subscription: Subscription) -> str:
        return queries.stage(subscription, now(subscription.customer)).capitalize()

    def get_fields(self, request: HttpRequest, obj: Subscription | None = None) -> Any:
        if obj is None:
            return SubscriptionForm.Meta.fields
        return [
            ("public_id", "customer"),
            ("version", "next_version"),
            ("stage", "starts_at", "trial_ends_at", "ends_at"),
            ("anchor_day", "anchor_month"),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Subscription | None = None) -> Any:
        return ["stage"] if obj else []

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_steer_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Whoever may change subscriptions steers them, by what the services offer."""
        may: bool = request.user.has_perm("billing.change_subscription")
        return may

    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:
        """The form has started it."""
        messages.info(request, "The billing period is open, and usage since it began is priced.")

    # --- buttons

    @admin.action(description="Move to another version", permissions=["steer"])
    def move_selected(self, request: HttpRequest, selected: "QuerySet[Subscription]") -> HttpResponse:
        ids = ",".join(str(pk) for pk in selected.values_list("pk", flat=True))
        return HttpResponseRedirect(f"{reverse('admin:billing_subscription_move')}?ids={ids}")

    @action(description="Change the plan", permissions=["steer"], icon="swap_horiz")
    def change_plan(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(f"{reverse('admin:billing_subscription_move')}?ids={object_id}")

    @action(description="Cancel", permissions=["steer"], icon="event_busy")
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return _to("end", object_id)

    @action(description="Resume", permissions=["steer"], icon="undo")
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return _to("go_on", object_id)

    @action(description="Redeem a coupon", permissions=["steer"], icon="sell")
    def redeem(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return _to("coupon", object_id)

    @action(description="Take a coupon off", permissions=["steer"], icon="label_off")
    def take_coupon_off(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return _to("coupon_off", object_id)

    # --- pages

    def get_urls(self) -> list[URLPattern]:
        def page(view: Callable[..., HttpResponse]) -> Any:
            return self.admin_site.admin_view(view)

        own = [
            path("move/", page(self.move_view), name="billing_subscription_move"),
            path("<int:pk>/end/", page(self.cancel_view), name="billing_subscription_end"),
            path("<int:pk>/go-on/", page(self.resume_view), name="billing_subscription_go_on"),
            path("<int:pk>/coupon/", page(self.coupon_view), name="billing_subscription_coupon"),
            path("<int:pk>/coupon-off/", page(self.coupon_off_view), name="billing_subscription_coupon_off"),
        ]
        return [*own, *super().get_urls()]

    def move_view(self, request: HttpRequest) -> HttpResponse:
        """To which version and when; then who is affected and by how much; then the move, which the log keeps."""
        chosen = self._chosen(request)
        typed = request.POST if request.method == "POST" else request.GET if "version" in request.GET else None
        form = MoveForm(typed)
        found = None
        if form.is_valid():
            version, when = form.cleaned_data["version"], cast(When, form.cleaned_data["when"])
            if request.method == "POST":
                return self._move(request, chosen, version, when)
            found = moving.affected(chosen, version)
        context = {"title": "Move to another version", "form": form, "chosen": chosen, "affected": found}
        context |= {"ids": request.GET.get("ids", ""), "from_version": request.GET.get("from", "")}
        return self._page(request, "move", context)

    def _move(self, request: HttpRequest, chosen: list[Subscription], version: PlanVersion, when: When) -> HttpResponse:
        for moved in moving.move(chosen, version=version, when=when):
            if moved.refusal:
                messages.error(request, f"{moved.subscription}: {moved.refusal}")
            else:
                self.log_change(request, moved.subscription, f"Moved to {version}, {dict(_WHEN)[when].lower()}.")
                messages.success(request, f"{moved.subscription.customer.name} is moved to {version}.")
        if len(chosen) == 1:
            return HttpResponseRedirect(_url(chosen[0]))
        return HttpResponseRedirect(reverse("admin:billing_subscription_changelist"))

    def _chosen(self, request: HttpRequest) -> list[Subscription]:
        """Those that the address names by id, or all that are active on the version that it names."""
        if not self.has_steer_permission(request):
            raise PermissionDenied
        found = queries.subscriptions().filter(status=SubscriptionStatus.ACTIVE)
        ids, version = request.GET.get("ids", ""), request.GET.get("from", "")
        if version.isdecimal() and len(version) < 18:  # noqa: PLR2004 -- what a bigint holds
            return list(found.filter(version=int(version))[:MOST_MOVED])
        named = [int(one) for one in ids.split(",") if one.isdecimal() and len(one) < 18]  # noqa: PLR2004
        return list(found.filter(pk__in=named)[:MOST_MOVED])

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._subscription(request, pk)
        form = WhenForm(request.POST or None)

        def cancel() -> str:
            when = cast(When, form.cleaned_data["when"])
            done = services.cancel(subscription=subscription, when=when, at=now(subscription.customer))
            return f"Cancelled: it ends {done.ends_at:%-d %B %Y, %H:%M} UTC."

        return self._act(request, subscription, form, cancel, title="Cancel the subscription", button="Cancel it")

    def resume_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._subscription(request, pk)

        def resume() -> str:
            subscriptions.resume(subscription=subscription, at=now(subscription.customer))
            return "Resumed: it goes on."

        form = forms.Form(request.POST if request.method == "POST" else None)
        return self._act(request, subscription, form, resume, title="Resume the subscription", button="Resume it")

    def coupon_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._subscription(request, pk)
        form = CouponForm(request.POST or None)

        def redeem() -> str:
            coupon = form.cleaned_data["coupon"]
            coupons.redeem(subscription=subscription, coupon=coupon, at=now(subscription.customer))
            return f"Redeemed {coupon}."

        return self._act(request, subscription, form, redeem, title="Redeem a coupon", button="Redeem it")

    def coupon_off_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        subscription = self._subscription(request, pk)
        form = RedemptionForm(request.POST or None, subscription)

        def take_off() -> str:
            redemption = form.cleaned_data["redemption"]
            coupons.take_off(redemption=redemption, at=now(subscription.customer))
            return f"Took {redemption.coupon} off: it discounts no further billing period."

        return self._act(request, subscription, form, take_off, title="Take a coupon off", button="Take it off")

    def _act(
        self,
        request: HttpRequest,
        subscription: Subscription,
        form: forms.Form,
        act: Callable[[], str],
        *,
        title: str,
        button: str,
    ) -> HttpResponse:
        """A form with one button; what the service refuses shows in it, what it did is told and logged."""
        if request.method == "POST" and form.is_valid():
            try:
                done = act()
            except ValidationError as error:
                add_refusal(form, error)
            else:
                self.log_change(request, subscription, done)
                messages.success(request, done)
                return HttpResponseRedirect(_url(subscription))
        return self._page(
            request,
            "act",
            {"title": title, "button": button, "form": form, "subscription": subscription, "back": _url(subscription)},
        )

    def _subscription(self, request: HttpRequest, pk: int) -> Subscription:
        if not self.has_steer_permission(request):
            raise PermissionDenied
        found = queries.subscriptions().filter(pk=pk).first()
        if found is None:
            raise Http404
        return found

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        site = self.admin_site.each_context(request)
        template = f"admin/billing/subscription/{name}.html"
        return render(request, template, {**site, "opts": self.opts, **context})


def _url(subscription: Subscription) -> str:
    return reverse("admin:billing_subscription_change", args=[subscription.pk])


def _to(page: str, object_id: str) -> HttpResponse:
    try:
        return HttpResponseRedirect(reverse(f"admin:billing_subscription_{page}", args=[object_id]))
    except NoReverseMatch:
        raise Http404 from None
