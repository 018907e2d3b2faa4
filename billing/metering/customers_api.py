"""Customers over HTTP. They live in this room because events may have waited for them."""

from typing import Any

from django.db import transaction
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services as accounts
from accounts.models import Customer
from billing import money
from billing.clock import now
from billing.http import (
    ApiView,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    page_of,
    plain_instant,
    read_body,
)
from billing.metering import services as metering


def known_currency(value: str) -> None:
    if not money.is_currency(value):
        raise serializers.ValidationError(f"{value} is no ISO 4217 currency. Use one like USD.")


def no_test_clock(value: str | None) -> None:
    if value is not None:
        raise serializers.ValidationError("There are no test clocks yet. Leave it out or send null.")


class CustomerChanges(StrictSerializer):
    """What may change. A customer's key and currency stay."""

    name = serializers.CharField(max_length=200, required=False)
    timezone = serializers.CharField(
        max_length=64, required=False, help_text="IANA name; a new one holds from the next billing period."
    )
    email = serializers.EmailField(required=False, allow_blank=True, help_text="Where bills and alerts go.")
    test_clock = serializers.CharField(
        required=False, allow_null=True, validators=[no_test_clock], help_text="Null until there are test clocks."
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
        return cursor_page(Customer.objects.all(), request, serialize=_customer, order=("key",))

    @extend_schema(operation_id="customers_create", request=CustomerBody, responses={201: CustomerRow})
    def post(self, request: Request) -> Response:
        """Make a customer. Events that were sent for its key before are counted at once."""
        fields = _fields(request, CustomerBody)
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
        changes = _fields(request, CustomerChanges, partial=True)
        return Response(_customer(accounts.update_customer(customer=customer, at=now(), **changes)))


def _fields(request: Request, body: type[StrictSerializer], *, partial: bool = False) -> dict[str, Any]:
    fields = read_body(request, body, partial=partial)
    fields.pop("test_clock", None)
    return fields


def _customer(customer: Customer) -> dict[str, Any]:
    return {
        "key": customer.key,
        "name": customer.name,
        "currency": customer.currency,
        "timezone": customer.timezone,
        "email": customer.email,
        "test_clock": None,
        "created_at": plain_instant(customer.created_at),
    }


urlpatterns = [
    path("customers", CustomersView.as_view(), name="api-customers"),
    path("customers/<str:key>", CustomerView.as_view(), name="api-customer"),
]
