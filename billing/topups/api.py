"""Buying credits over HTTP, and what Stripe has to say about payments."""

from typing import Any

import stripe
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
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
from billing.topups.providers import Unavailable, stripe_provider


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
        `not_for_sale`, 503 `payment_unavailable`."""
        customer = customer_or_404(request, key)
        body = read_body(request, TopUpBody)
        back = f"{settings.BASE_URL}/c/{customer.key}/credits"
        try:
            top_up = services.order(customer=customer, **body, back=back, at=now(customer))
        except Unavailable as error:
            detail = "Payments cannot be begun at the moment. Send the same request again."
            raise ApiError("payment_unavailable", detail, 503, headers={"Retry-After": "10"}) from error
        return Response(shown(top_up), status=201)


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
        "grant": top_up.grant.public_id if top_up.grant else None,
        "failure": top_up.failure or None,
        "created_at": plain_instant(top_up.created_at),
    }


@csrf_exempt
@login_not_required
@require_POST
def stripe_events(request: HttpRequest) -> HttpResponse:
    """Stripe's webhook: signed, repeated, and in any order."""
    if not settings.STRIPE_WEBHOOK_SECRET:
        return HttpResponse("Stripe is not set up here.", status=400, content_type="text/plain")
    try:
        event = stripe.Webhook.construct_event(
            request.body, request.headers.get("Stripe-Signature", ""), settings.STRIPE_WEBHOOK_SECRET
        )
    except (ValueError, stripe.SignatureVerificationError):
        return HttpResponse("The signature is not Stripe's.", status=400, content_type="text/plain")
    _heed(event.type, event.data.object)
    return HttpResponse(status=204)


def _heed(kind: str, subject: Any) -> None:
    """Only a later failure takes back what did come: an attempt that failed may be told of after the success."""
    public_id = _named(subject)
    if kind in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        if subject.payment_status == "paid":
            _paid(public_id, subject)
    elif kind == "payment_intent.succeeded":
        services.succeed(public_id=public_id, at=now())
    elif kind == "checkout.session.async_payment_failed":
        services.reverse(public_id=public_id, failure=f"Stripe: {kind}", at=now())
    elif kind == "charge.refunded" and subject.refunded:
        services.pay_back(public_id=public_id, failure=f"Stripe: {kind}", at=now())
    elif kind == "charge.dispute.created":
        payment = stripe_provider().client.v1.payment_intents.retrieve(subject.payment_intent)
        services.pay_back(public_id=_named(payment), failure="Stripe: the payment is disputed", at=now())
    elif kind in ("checkout.session.expired", "payment_intent.payment_failed"):
        services.fail(public_id=public_id, failure=f"Stripe: {kind}", at=now())


def _named(subject: Any) -> str:
    """The top-up that a payment is for."""
    metadata = getattr(subject, "metadata", None)
    return str(metadata["top_up"]) if metadata and "top_up" in metadata else ""


def _paid(public_id: str, session: Any) -> None:
    top_up = services.succeed(public_id=public_id, at=now())
    if top_up is not None and session.customer and session.payment_intent:
        method = stripe_provider().saved_card(session.payment_intent)
        if method:
            services.save_card(top_up=top_up, reference=session.customer, payment_method=method)


urlpatterns = [
    path("customers/<str:key>/top-ups", TopUpsView.as_view(), name="api-top-ups"),
    path("webhooks/stripe", stripe_events, name="stripe-events"),
]
