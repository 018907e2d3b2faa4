"""Subscriptions over HTTP: starting one sets the whole cycle in motion for its customer."""

from typing import Any

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
    page_of,
    plain_instant,
    read_body,
    within_reach,
)
from billing.pricing.models import Plan, PlanVersion
from billing.pricing.queries import latest_published
from billing.subscriptions import queries
from billing.subscriptions.models import Subscription


class SubscriptionBody(StrictSerializer):
    customer = KeyField()
    plan = KeyField()
    version = serializers.IntegerField(required=False, help_text="The version published last when absent.")
    starts_at = InstantField(required=False, help_text="Rounded down to a quarter hour; now when absent.")
    anchor_day = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=31)
    anchor_month = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=12)


class SubscriptionAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    customer = KeyField()
    plan = KeyField()
    version = serializers.IntegerField()
    status = serializers.ChoiceField(["active", "ended"])
    starts_at = InstantField()
    ends_at = InstantField(allow_null=True)
    anchor_day = serializers.IntegerField()
    anchor_month = serializers.IntegerField(allow_null=True)


class SubscriptionsView(ApiView):
    """Who pays by which plan."""

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
        at = now()
        customer = Customer.objects.filter(key=body["customer"]).first()
        if customer is None:
            raise invalid("customer", "There is no such customer. Create it first.")
        subscription = cycle.subscribe(
            customer=customer,
            version=_version(body["plan"], body.get("version")),
            starts_at=body.get("starts_at", at),
            anchor_day=body.get("anchor_day"),
            anchor_month=body.get("anchor_month"),
            at=at,
        )
        return Response(shown_subscription(subscription), status=201)


def _version(key: str, number: int | None) -> PlanVersion:
    plan = Plan.objects.filter(key=key).first()
    if plan is None:
        raise invalid("plan", "There is no such plan. Create it first.")
    if number is None:
        found = latest_published(plan, now())
        if found is None:
            raise invalid("plan", "No version of this plan is published yet.")
        return found
    version = PlanVersion.objects.select_related("plan").filter(plan=plan, number=number).first()
    if version is None:
        raise invalid("version", "This plan has no such version.")
    return version


def shown_subscription(subscription: Subscription) -> dict[str, Any]:
    return {
        "id": subscription.public_id,
        "customer": subscription.customer.key,
        "plan": subscription.version.plan.key,
        "version": subscription.version.number,
        "status": subscription.status,
        "starts_at": plain_instant(subscription.starts_at),
        "ends_at": None if subscription.ends_at is None else plain_instant(subscription.ends_at),
        "anchor_day": subscription.anchor_day,
        "anchor_month": subscription.anchor_month,
    }


urlpatterns = [path("subscriptions", SubscriptionsView.as_view(), name="api-subscriptions")]
