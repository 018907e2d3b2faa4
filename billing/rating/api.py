"""Usage of a meter, with what it cost."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Customer
from billing.clock import now
from billing.http import (
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    customer_or_404,
    invalid,
    is_key,
    plain_instant,
)
from billing.metering import minutes
from billing.metering.models import Meter
from billing.metering.queries import capped, counted_through
from billing.money import ZERO, plain
from billing.rating import queries
from billing.rating.queries import SeriesRow, UsageSeries
from billing.rating.selection import MAX_ROWS, MINUTE, MINUTE_PARAMETERS, Selection, read_selection, too_many_rows

# A dimension with as many values as are told apart can be asked for: (other) and its absence have rows beside them.
_BESIDE_VALUES: Final = 2


class SeriesRowAnswer(serializers.Serializer[Any]):
    start = InstantField()
    end = InstantField()
    group = serializers.DictField(child=serializers.CharField(allow_null=True), help_text="Value by name of group_by.")
    quantity = ExactDecimalField(allow_null=True)
    amount = ExactDecimalField(allow_null=True)


class CappedDimensionAnswer(serializers.Serializer[Any]):
    dimension = serializers.CharField()
    month = serializers.CharField(help_text="In UTC, as 2026-11.")
    since = InstantField()


class UsageAnswer(serializers.Serializer[Any]):
    customer = KeyField()
    meter = KeyField()
    unit = serializers.CharField(help_text="Of quantity and total: the meter's unit.")
    amount_unit = serializers.CharField(allow_null=True, help_text="Of amounts; null where the meter has no one price.")
    as_of = InstantField(help_text="Everything acknowledged before it is counted.")
    timezone = serializers.CharField()
    to = InstantField()
    additive = serializers.BooleanField(help_text="Whether the rows may be added up.")
    total = ExactDecimalField()
    series = SeriesRowAnswer(many=True)
    capped = CappedDimensionAnswer(
        many=True, help_text="Dimensions with so many values that further ones count under (other) since then."
    )

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": InstantField()}  # a word of Python


class UsageView(ApiView):
    """What a customer used of a meter."""

    own_errors = (422,)
    customer_key_may_read = True

    @extend_schema(
        operation_id="usage_retrieve",
        parameters=[OpenApiParameter("meter", str, required=True, description="Key of the meter."), *MINUTE_PARAMETERS],
        responses=UsageAnswer,
    )
    def get(self, request: Request, key: str) -> Response:
        """Quantities in buckets of the customer's zone. Ungrouped, every bucket has a row; grouped, the used ones."""
        customer = customer_or_404(request, key)
        meter = _meter(request)
        chosen = read_selection(
            request, customer, at=now(customer), dimensions=meter.dimensions, own=("meter",), minutes=True
        )
        as_of = counted_through(customer)  # before the numbers, so that they hold at least what it promises
        found = _series(customer, meter, chosen)
        return Response(
            {
                "customer": customer.key,
                "meter": meter.key,
                "unit": meter.unit,
                "amount_unit": found.amount_unit,
                "as_of": plain_instant(as_of),
                **shown_selection(chosen),
                "additive": meter.is_additive,
                "total": plain(found.total),
                "series": shown_rows(found.rows, priced=found.amount_unit is not None),
                "capped": _capped(customer, meter, chosen),
            }
        )


def _series(customer: Customer, meter: Meter, chosen: Selection) -> UsageSeries:
    """Minutes have no amounts: a line's rounding and tiers are those of its period."""
    if chosen.granularity != MINUTE:
        return queries.usage_series(
            customer, meter, edges=chosen.edges, group_by=chosen.group_by, filters=chosen.filters
        )
    used = minutes.series(customer, meter, starts_at=chosen.interval.start, ends_at=chosen.interval.end)
    rows = [SeriesRow(start, end, {}, used.quantities.get(start, ZERO), ZERO) for start, end in pairwise(chosen.edges)]
    return UsageSeries(None, used.total, rows)


def _capped(customer: Customer, meter: Meter, chosen: Selection) -> list[dict[str, str]]:
    found = capped(customer, meter, starts_at=chosen.interval.start, ends_at=chosen.interval.end)
    return [
        {"dimension": one.dimension, "month": f"{one.month:%Y-%m}", "since": plain_instant(one.capped_at)}
        for one in found
        if one.capped_at is not None
    ]


def _meter(request: Request) -> Meter:
    key = request.query_params.get("meter")
    if not key:
        detail = "Name the meter whose usage you ask for."
        raise invalid("meter", detail, "missing_field")
    meter = Meter.objects.filter(key=key).first() if is_key(key) else None
    if meter is None:
        raise invalid("meter", "There is no such meter.")
    return meter


def shown_selection(chosen: Selection) -> dict[str, str]:
    """The range as it was rounded, and whose days the buckets are."""
    return {
        "timezone": chosen.timezone,
        "from": plain_instant(chosen.interval.start),
        "to": plain_instant(chosen.interval.end),
    }


def shown_rows(rows: Sequence[SeriesRow], *, priced: bool = True) -> list[dict[str, Any]]:
    """The rows of a series in the contract's shape. ApiError 422 `range_too_large` for too many."""
    if len(rows) > MAX_ROWS + _BESIDE_VALUES:
        raise too_many_rows()
    return [
        {
            "start": plain_instant(row.start),
            "end": plain_instant(row.end),
            "group": dict(row.group),
            "quantity": None if row.quantity is None else plain(row.quantity),
            "amount": plain(row.amount) if priced else None,
        }
        for row in rows
    ]


urlpatterns = [path("customers/<str:key>/usage", UsageView.as_view(), name="api-usage")]
