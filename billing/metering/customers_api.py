"""Customers over HTTP. They live in this room because events may have waited for them."""

from typing import Any

from django.db import transaction
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services as accounts
from accounts.models import Customer, TestClock
from billing import money
from billing.clock import now
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
)
from billing.metering import services as metering


def known_currency(value: str) -> None:
    if not money.is_currency(value):
        raise serializers.ValidationError(f"{value} is no ISO 4217 currency. Use one like USD.")


class CustomerChanges(StrictSerializer):
    """What may change. A customer's key and currency stay."""

    name = serializers.CharField(max_length=200, required=False)
    timezone = serializers.CharField(
        max_length=64, required=False, help_text="IANA name; a new one holds from the next billing period."
    )
    email = serializers.EmailField(required=False, allow_blank=True, help_text="Where bills and alerts go.")
    test_clock = serializers.CharField(
        required=False, allow_null=True, help_text="Id of a test clock; fixed once the customer exists."
    )


class CustomerBody(CustomerChanges):
    key = KeyField()
    name = serializers.CharField(max_length=200)
    currency = serializers.CharField(required=False, validators=[known_currency], help_text="ISO 4217; USD if absent.")


class CustomerRow(CustomerBody):
    created_at = InstantField()


class CustomersView(ApiView):
    """The tenants that pay."""

    @extend_schema(operation_id="customers_list", responses=page_of("CustomerPage", CustomerRow))
    def get(self, request: Request) -> Response:
        """All customers, by key."""
        return cursor_page(Customer.objects.select_related("test_clock"), request, serialize=_customer, order=("key",))

    @extend_schema(operation_id="customers_create", request=CustomerBody, responses={201: CustomerRow})
    def post(self, request: Request) -> Response:
        """Make a customer. Events that were sent for its key before are counted at once."""
        fields = read_body(request, CustomerBody)
        fields["test_clock"] = _clock(fields.get("test_clock"))
        at = now()
        with transaction.atomic():
            customer = accounts.create_customer(**fields, at=at)
            metering.replay_unmatched(customer_keys=[customer.key], at=at)
        return Response(_customer(customer), status=201)


class CustomerView(ApiView):
    """One customer."""

    customer_key_may_read = True

    @extend_schema(operation_id="customers_read", responses=CustomerRow)
    def get(self, request: Request, key: str) -> Response:
        """Its name, currency, zone and address."""
        return Response(_customer(customer_or_404(request, key)))

    @extend_schema(operation_id="customers_update", request=CustomerChanges, responses=CustomerRow)
    def patch(self, request: Request, key: str) -> Response:
        """Change its name, zone or address; what is not sent stays."""
        customer = customer_or_404(request, key)
        changes = read_body(request, CustomerChanges, partial=True)
        present = customer.test_clock and customer.test_clock.public_id
        if changes.pop("test_clock", present) != present:
            raise invalid("test_clock", "A customer's test clock is fixed. Make another customer for another clock.")
        return Response(_customer(accounts.update_customer(customer=customer, at=now(customer), **changes)))


def _clock(public_id: str | None) -> TestClock | None:
    if public_id is None:
        return None
    clock = TestClock.objects.filter(public_id=public_id, deleted_at=None).first()
    if clock is None:
        raise invalid("test_clock", "There is no such test clock. Create it first, or send null.")
    return clock


def _customer(customer: Customer) -> dict[str, Any]:
    return {
        "key": customer.key,
        "name": customer.name,
        "currency": customer.currency,
        "timezone": customer.timezone,
        "email": customer.email,
        "test_clock": customer.test_clock and customer.test_clock.public_id,
        "created_at": plain_instant(customer.created_at),
    }


urlpatterns = [
    path("customers", CustomersView.as_view(), name="api-customers"),
    path("customers/<str:key>", CustomerView.as_view(), name="api-customer"),
]
