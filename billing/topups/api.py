"""Buying credits over HTTP."""

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.clock import now
from billing.http import (
    ApiError,
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    page_of,
    plain_instant,
    read_body,
)
from billing.money import ZERO, plain
from billing.topups import queries, services
from billing.topups.models import TopUp, TopUpStatus
from billing.topups.payments import Unavailable
from billing.topups.webhooks import stripe_events


class TopUpBody(StrictSerializer):
    unit = serializers.CharField(max_length=32)
    amount = ExactDecimalField(above=ZERO)


class TopUpRow(serializers.Serializer[Any]):
    """A purchase. It is granted when its payment has succeeded."""

    id = serializers.CharField()
    customer = KeyField()
    unit = serializers.CharField()
    amount = ExactDecimalField()
    currency = serializers.CharField()
    charge = ExactDecimalField(help_text="What is paid for it, in the currency.")
    state = serializers.ChoiceField(TopUpStatus.choices)
    is_automatic = serializers.BooleanField()
    url = serializers.CharField(allow_null=True, help_text="Where the customer pays; null where an operator is paid.")
    receipt_url = serializers.CharField(allow_null=True)
    grant = serializers.CharField(allow_null=True, help_text="The credit grant's id, once it is paid.")
    failure = serializers.CharField(allow_null=True)
    created_at = InstantField()


class TopUpsView(ApiView):
    """Buy credits, and see what was bought."""

    own_errors = (409,)
    customer_key_may_read = True

    @extend_schema(operation_id="customers_top_ups_list", responses=page_of("TopUps", TopUpRow))
    def get(self, request: Request, key: str) -> Response:
        """The customer's top-ups, newest first."""
        found = queries.top_ups(customer_or_404(request, key))
        return cursor_page(found, request, serialize=shown, order=("-id",))

    @extend_schema(operation_id="customers_top_ups_create", request=TopUpBody, responses={201: TopUpRow})
    def post(self, request: Request, key: str) -> Response:
        """Begin a purchase: a `url` where the customer pays, or a purchase that waits for an operator. 409
        `not_for_sale`, 503 `payment_unavailable`; sent again with the same Idempotency-Key it is the same purchase,
        as it is by then."""
        customer = customer_or_404(request, key)
        top_up = services.order(customer=customer, **read_body(request, TopUpBody), at=now(customer))
        return Response(shown(top_up), status=201)

    def committed(self, request: Request, response: Response) -> Response:
        """The provider is asked when the purchase is stored, and again when it could not be asked before."""
        top_up = TopUp.objects.select_related("customer", "grant").get(public_id=response.data["id"])
        try:
            response.data = shown(services.begin(top_up=top_up, at=now(top_up.customer)))
        except Unavailable as error:
            detail = "Payments cannot be begun at the moment. Send the same request again, with its Idempotency-Key."
            raise ApiError("payment_unavailable", detail, 503, headers={"Retry-After": "10"}) from error
        return response


def shown(top_up: TopUp) -> dict[str, Any]:
    """A top-up as the API writes it."""
    return {
        "id": top_up.public_id,
        "customer": top_up.customer.key,
        "unit": top_up.unit,
        "amount": plain(top_up.amount),
        "currency": top_up.currency,
        "charge": plain(top_up.charge),
        "state": top_up.status,
        "is_automatic": top_up.is_automatic,
        "url": top_up.url or None,
        "receipt_url": top_up.receipt_url or None,
        "grant": top_up.grant.public_id if top_up.grant else None,
        "failure": top_up.failure or None,
        "created_at": plain_instant(top_up.created_at),
    }


urlpatterns = [
    path("customers/<str:key>/top-ups", TopUpsView.as_view(), name="api-top-ups"),
    path("webhooks/stripe", stripe_events, name="stripe-events"),
]
