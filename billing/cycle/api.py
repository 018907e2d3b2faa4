"""Subscriptions over HTTP: starting one sets the whole cycle in motion for its customer."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Customer
from billing.clock import now
from billing.cycle import services as cycle
from billing.cycle.receipts import ReceiptLine, receipt_lines
from billing.http import (
    ApiError,
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    invalid,
    not_found,
    own_customer,
    page_of,
    plain_instant,
    read_body,
    read_query,
    within_reach,
)
from billing.metering.api import CorrectionRow, EventRow, ExactJSONRenderer, shown_words
from billing.metering.corrections import ArchivedEvent, UnknownEvent
from billing.metering.models import Aggregation
from billing.metering.queries import counted_through
from billing.metering.receipts import EventReceipt, Fed, receipt
from billing.money import plain
from billing.periods import QUARTER
from billing.pricing.models import Plan, PlanVersion
from billing.pricing.queries import latest_published
from billing.pricing.shapes import BreakdownAnswer, shown_rated
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


# --- receipts ---------------------------------------------------------------------------------------------------


class ReceiptQuery(StrictSerializer):
    source = serializers.CharField(max_length=255, default="default", trim_whitespace=False)  # type: ignore[assignment]
    id = serializers.CharField(max_length=255, trim_whitespace=False)


class ReceiptLineAnswer(serializers.Serializer[Any]):
    price = KeyField()
    row = serializers.IntegerField(help_text="0 is the price's default, n its nth match row.")
    plan = KeyField()
    version = serializers.IntegerField()
    period_start = InstantField()
    period_end = InstantField()
    quantity = ExactDecimalField(help_text="Of the whole line.")
    amount = ExactDecimalField(help_text="Of the whole line.")
    unit = serializers.CharField()
    breakdown = BreakdownAnswer(many=True)
    explanation = serializers.CharField(help_text="The arithmetic of the whole line.")
    share = ExactDecimalField(allow_null=True, help_text="Line amount x quantity / line quantity.")
    share_kind = serializers.ChoiceField(["exact", "average"], allow_null=True)
    decides = serializers.BooleanField(
        allow_null=True, help_text="Of max, latest and unique meters: whether the line would be another without it."
    )
    transactions = serializers.ListField(child=serializers.CharField(), help_text="Ledger transactions that paid it.")


class ReceiptMeterAnswer(serializers.Serializer[Any]):
    meter = KeyField()
    aggregation = serializers.ChoiceField(Aggregation.choices)
    bucket_start = InstantField()
    bucket_end = InstantField()
    dimensions = serializers.DictField(child=serializers.CharField())
    quantity = ExactDecimalField()
    lines = ReceiptLineAnswer(many=True, help_text="None where it is unpriced.")


class ReceiptAnswer(EventRow):
    status = serializers.ChoiceField(["counted", "void", "unmatched"])
    corrections = CorrectionRow(many=True)
    as_of = InstantField(allow_null=True, help_text="Everything acknowledged before it is in the lines.")
    meters = ReceiptMeterAnswer(many=True)


class ReceiptView(ApiView):
    """What became of an event."""

    own_errors = (404, 410)
    customer_key_may_read = True
    renderer_classes = [ExactJSONRenderer]

    @extend_schema(operation_id="events_receipt", parameters=[ReceiptQuery], responses=ReceiptAnswer)
    def get(self, request: Request) -> Response:
        """From what was sent to the meters it feeds, the lines it is part of with their arithmetic and price version,
        and the ledger. 404 when it is not known (any more), 410 `event_archived` when its row lies in an archive."""
        asked = read_query(request, ReceiptQuery)
        own = own_customer(request)
        try:
            found = receipt(asked["source"], asked["id"])
        except UnknownEvent:
            raise not_found("event") from None
        except ArchivedEvent as error:
            if own is not None:  # whose it was, the archive knows
                raise not_found("event") from error
            raise ApiError(
                "event_archived", "The event is archived: its row lies outside the database.", 410
            ) from error
        if own is not None and own != found.customer:
            raise not_found("event")
        as_of = counted_through(found.customer) if found.customer else None
        return Response(shown_receipt(found, receipt_lines(found), as_of))


def shown_receipt(
    found: EventReceipt, fed: Sequence[tuple[Fed, Sequence[ReceiptLine]]], as_of: datetime | None
) -> dict[str, Any]:
    event = found.event
    status = "counted" if found.customer else "unmatched"
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "customer": event.customer_key,
        "timestamp": plain_instant(event.occurred_at),
        "recorded_at": plain_instant(event.recorded_at),
        "properties": event.properties,
        "status": "void" if found.is_void else status,
        "corrections": shown_words(found.corrections),
        "as_of": None if as_of is None else plain_instant(as_of),
        "meters": [
            {
                "meter": one.meter.key,
                "aggregation": one.meter.aggregation,
                "bucket_start": plain_instant(one.starts_at),
                "bucket_end": plain_instant(one.starts_at + QUARTER),
                "dimensions": one.dimensions,
                "quantity": plain(one.quantity),
                "lines": list(map(_shown_line, lines)),
            }
            for one, lines in fed
        ],
    }


def _shown_line(part: ReceiptLine) -> dict[str, Any]:
    line, version = part.line, part.line.period.version
    return {
        "price": line.price.key,
        "row": line.row,
        "plan": version.plan.key,
        "version": version.number,
        "period_start": plain_instant(line.period.starts_at),
        "period_end": plain_instant(line.period.ends_at),
        "quantity": plain(line.quantity),
        **shown_rated(line.rated, line.unit),
        "share": None if part.share is None else plain(part.share.amount),
        "share_kind": None if part.share is None else part.share.kind,
        "decides": part.decides,
        "transactions": [transaction.public_id for transaction in part.transactions],
    }


urlpatterns = [
    path("events/receipt", ReceiptView.as_view(), name="api-event-receipt"),
    path("subscriptions", SubscriptionsView.as_view(), name="api-subscriptions"),
]
