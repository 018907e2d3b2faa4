"""Subscriptions over HTTP: starting or changing one sets the whole cycle in motion for its customer."""

from datetime import datetime
from typing import Any, cast

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Customer
from billing.clock import now
from billing.cycle import services as cycle
from billing.http import (
    ApiView,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    invalid,
    not_found,
    page_of,
    plain_instant,
    read_body,
    within_reach,
)
from billing.pricing.models import Plan, PlanVersion
from billing.pricing.queries import latest_published
from billing.subscriptions import queries
from billing.subscriptions import services as subscriptions
from billing.subscriptions.models import PlanSegment, Subscription
from billing.subscriptions.services import When

_LATEST = "The version published last when absent."


class SubscriptionBody(StrictSerializer):
    customer = KeyField()
    plan = KeyField()
    version = serializers.IntegerField(required=False, help_text=_LATEST)
    starts_at = InstantField(required=False, help_text="Rounded down to a quarter hour; now when absent.")
    anchor_day = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=31)
    anchor_month = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=12)
    beside = serializers.CharField(
        required=False, max_length=40, help_text="Of an add-on: id of the subscription that it is added to."
    )


class _WhenBody(StrictSerializer):
    when = serializers.ChoiceField(["now", "period_end"], help_text="`now` is the start of the current quarter hour.")


class ChangeBody(_WhenBody):
    plan = KeyField()
    version = serializers.IntegerField(required=False, help_text=_LATEST)


class CancelBody(_WhenBody):
    pass


class PlanSegmentAnswer(serializers.Serializer[Any]):
    plan = KeyField()
    version = serializers.IntegerField()
    starts_at = InstantField()
    ends_at = InstantField()
    is_trial = serializers.BooleanField(help_text="Nothing is charged in a trial.")


class PeriodAnswer(serializers.Serializer[Any]):
    starts_at = InstantField()
    ends_at = InstantField()
    segments = PlanSegmentAnswer(many=True, help_text="One for each plan version that holds in the period.")


class ScheduledChangeAnswer(serializers.Serializer[Any]):
    plan = KeyField()
    version = serializers.IntegerField()
    at = InstantField()


class SubscriptionAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    customer = KeyField()
    plan = KeyField()
    version = serializers.IntegerField()
    status = serializers.ChoiceField(["scheduled", "trialing", "active", "ended"])
    starts_at = InstantField()
    ends_at = InstantField(allow_null=True, help_text="Ahead while a cancellation waits for it.")
    trial_ends_at = InstantField(allow_null=True)
    anchor_day = serializers.IntegerField()
    anchor_month = serializers.IntegerField(allow_null=True)
    beside = serializers.CharField(allow_null=True, help_text="Of an add-on: what it is added to, and billed with.")
    current_period = PeriodAnswer(allow_null=True, help_text="The open billing period.")
    scheduled_change = ScheduledChangeAnswer(
        allow_null=True, help_text="What waits for the period's end. Changing to the present version calls it off."
    )


class SubscriptionsView(ApiView):
    """Who pays by which plan."""

    own_errors = (404,)
    customer_key_may_read = True

    @extend_schema(
        operation_id="subscriptions_list",
        parameters=[OpenApiParameter("customer", str, description="Key of a customer; all when absent.")],
        responses=page_of("Subscriptions", SubscriptionAnswer),
    )
    def get(self, request: Request) -> Response:
        """Subscriptions, oldest first."""
        found = within_reach(queries.subscriptions(), request)
        if key := request.query_params.get("customer"):
            found = found.filter(customer=customer_or_404(request, key))
        return cursor_page(found, request, serialize=shown_subscription, order=("starts_at", "id"))

    @extend_schema(operation_id="subscriptions_create", request=SubscriptionBody, responses={201: SubscriptionAnswer})
    def post(self, request: Request) -> Response:
        """Put a customer on a plan. 409 `meter_already_priced` when another subscription prices one of its meters."""
        body = read_body(request, SubscriptionBody)
        customer = Customer.objects.select_related("test_clock").filter(key=body["customer"]).first()
        if customer is None:
            raise invalid("customer", "There is no such customer. Create it first.")
        at = now(customer)
        subscription = cycle.subscribe(
            customer=customer,
            version=_version(body, max(at, now())),
            starts_at=body.get("starts_at", at),
            anchor_day=body.get("anchor_day"),
            anchor_month=body.get("anchor_month"),
            beside=_beside(body.get("beside"), customer),
            at=at,
        )
        return _answer(subscription, status=201)


class ChangeView(ApiView):
    """Another plan, or another version of it."""

    @extend_schema(operation_id="subscriptions_change", request=ChangeBody, responses=SubscriptionAnswer)
    def post(self, request: Request, subscription_id: str) -> Response:
        """Change the plan now or with the next billing period.

        `now` splits the period: fee, included quantities and credits of both plans count by the seconds that each
        holds, and quantities begin anew. A plan with other billing periods begins a new one. 409
        `subscription_ended`, `meter_already_priced`.
        """
        subscription = _subscription_or_404(subscription_id)
        body = read_body(request, ChangeBody)
        at = now(subscription.customer)
        changed = cycle.change(
            subscription=subscription, version=_version(body, max(at, now())), when=cast(When, body["when"]), at=at
        )
        return _answer(changed)


class CancelView(ApiView):
    """The end of a subscription."""

    @extend_schema(operation_id="subscriptions_cancel", request=CancelBody, responses=SubscriptionAnswer)
    def post(self, request: Request, subscription_id: str) -> Response:
        """Cancel it now, which charges the billing period in proportion, or with the period. 409
        `subscription_ended`."""
        subscription = _subscription_or_404(subscription_id)
        body = read_body(request, CancelBody)
        return _answer(
            cycle.cancel(subscription=subscription, when=cast(When, body["when"]), at=now(subscription.customer))
        )


class ResumeView(ApiView):
    """A cancellation that is taken back."""

    @extend_schema(operation_id="subscriptions_resume", request=None, responses=SubscriptionAnswer)
    def post(self, request: Request, subscription_id: str) -> Response:
        """Go on as if it had never been cancelled. 409 `subscription_ended`, `not_cancelled`,
        `meter_already_priced`, `subscription_cancelled` (what an add-on is added to)."""
        subscription = _subscription_or_404(subscription_id)
        return _answer(subscriptions.resume(subscription=subscription, at=now(subscription.customer)))


def _subscription_or_404(subscription_id: str) -> Subscription:
    found = Subscription.objects.select_related("customer__test_clock").filter(public_id=subscription_id).first()
    if found is None:
        raise not_found("subscription")
    return found


def _version(body: dict[str, Any], at: datetime) -> PlanVersion:
    plan = Plan.objects.filter(key=body["plan"]).first()
    if plan is None:
        raise invalid("plan", "There is no such plan. Create it first.")
    if body.get("version") is None:
        found = latest_published(plan, at)
        if found is None:
            raise invalid("plan", "No version of this plan is published yet.")
        return found
    version = PlanVersion.objects.select_related("plan").filter(plan=plan, number=body["version"]).first()
    if version is None:
        raise invalid("version", "This plan has no such version.")
    return version


def _answer(subscription: Subscription, status: int = 200) -> Response:
    return Response(shown_subscription(queries.subscriptions().get(pk=subscription.pk)), status=status)


def _beside(public_id: str | None, customer: Customer) -> Subscription | None:
    if public_id is None:
        return None
    found = queries.subscriptions(customer).filter(public_id=public_id).first()
    if found is None:
        raise invalid("beside", "This customer has no such subscription.")
    return found


def shown_subscription(subscription: Subscription) -> dict[str, Any]:
    """Of `queries.subscriptions`, which has read all of it."""
    period = queries.open_period(subscription)
    change = subscription.next_version
    return {
        "id": subscription.public_id,
        "customer": subscription.customer.key,
        **_shown_version(subscription.version),
        "status": queries.stage(subscription, now(subscription.customer)),
        "starts_at": plain_instant(subscription.starts_at),
        "ends_at": _instant(subscription.ends_at),
        "trial_ends_at": _instant(subscription.trial_ends_at),
        "anchor_day": subscription.anchor_day,
        "anchor_month": subscription.anchor_month,
        "beside": subscription.beside and subscription.beside.public_id,
        "current_period": period
        and {
            "starts_at": plain_instant(period.starts_at),
            "ends_at": plain_instant(period.ends_at),
            "segments": list(map(_shown_segment, period.plan_segments.all())),
        },
        "scheduled_change": None
        if change is None or period is None or subscription.ends_at is not None
        else {**_shown_version(change), "at": plain_instant(period.ends_at)},
    }


def _shown_segment(segment: PlanSegment) -> dict[str, Any]:
    return {
        **_shown_version(segment.version),
        "starts_at": plain_instant(segment.starts_at),
        "ends_at": plain_instant(segment.ends_at),
        "is_trial": segment.is_trial,
    }


def _shown_version(version: PlanVersion) -> dict[str, Any]:
    return {"plan": version.plan.key, "version": version.number}


def _instant(at: datetime | None) -> str | None:
    return None if at is None else plain_instant(at)


urlpatterns = [
    path("subscriptions", SubscriptionsView.as_view(), name="api-subscriptions"),
    path("subscriptions/<id:subscription_id>/change", ChangeView.as_view(), name="api-subscription-change"),
    path("subscriptions/<id:subscription_id>/cancel", CancelView.as_view(), name="api-subscription-cancel"),
    path("subscriptions/<id:subscription_id>/resume", ResumeView.as_view(), name="api-subscription-resume"),
]
