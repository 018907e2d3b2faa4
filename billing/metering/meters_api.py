"""Meters over HTTP: what is counted."""

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.clock import now
from billing.http import (
    ApiView,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    invalid,
    is_key,
    not_found,
    page_of,
    plain_instant,
    read_body,
)
from billing.metering import services
from billing.metering.counting import OPERATORS
from billing.metering.models import Aggregation, Backfill, Meter


@extend_schema_field({"description": "A list for in and nin, true or false for exists, else a string or a number."})
class FilterValueField(serializers.Field[Any, Any, Any, Any]):
    """Judged with its operator, by the service."""

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class FilterBody(StrictSerializer):
    property = serializers.CharField(max_length=255, help_text="Dotted path.")
    op = serializers.ChoiceField(OPERATORS)
    value = FilterValueField(required=False)


class MeterChanges(StrictSerializer):
    name = serializers.CharField(max_length=200, required=False)
    unit = serializers.CharField(max_length=32, required=False)
    event_type = serializers.CharField(max_length=255)
    aggregation = serializers.ChoiceField(Aggregation.choices)
    value = serializers.CharField(
        max_length=255,
        required=False,
        allow_blank=True,
        allow_null=True,
        help_text="Dotted path of the property that is measured; none for a count.",
    )
    dimensions = serializers.ListField(child=serializers.CharField(max_length=128), required=False)
    filters = FilterBody(many=True, required=False)


class MeterBody(MeterChanges):
    key = KeyField()


class BackfillAnswer(serializers.Serializer[Any]):
    percent = serializers.IntegerField()
    events = serializers.IntegerField(help_text="Stored events that were looked at.")
    sees_from = InstantField(
        allow_null=True, help_text="Events that were recorded before it are archived and not among them."
    )
    started_at = InstantField()
    finished_at = InstantField(allow_null=True)


class MeterRow(MeterBody):
    created_at = InstantField()
    backfill = BackfillAnswer(allow_null=True, help_text="The last count of events that were stored before the meter.")


class MetersView(ApiView):
    """What is counted."""

    @extend_schema(operation_id="meters_create", request=MeterBody, responses={201: MeterRow})
    def post(self, request: Request) -> Response:
        """Define a meter. It counts from now on; events that waited for it are counted at once."""
        fields = _fields(request, MeterBody)
        if Meter.objects.filter(key=fields["key"]).exists():
            raise invalid("key", "A meter with this key exists already.", "already_exists", 409)
        return Response(_meter(services.create_meter(at=now(), **fields)), status=201)

    @extend_schema(operation_id="meters_list", responses=page_of("MeterPage", MeterRow))
    def get(self, request: Request) -> Response:
        """All meters."""
        return cursor_page(Meter.objects.prefetch_related("backfills"), request, serialize=_meter, order=("key",))


class MeterView(ApiView):
    """One meter."""

    @extend_schema(operation_id="meters_read", responses=MeterRow)
    def get(self, request: Request, key: str) -> Response:
        """What it counts."""
        return Response(_meter(_meter_or_404(key)))

    @extend_schema(operation_id="meters_update", request=MeterChanges, responses=MeterRow)
    def patch(self, request: Request, key: str) -> Response:
        """Change it. What gives counted events their meaning is frozen once there are any: 409 `frozen`."""
        meter = _meter_or_404(key)
        changes = _fields(request, MeterChanges, partial=True)
        try:
            meter = services.update_meter(meter=meter, at=now(), **changes)
        except services.MeterIsCounted as error:
            raise invalid(error.field, str(error), "frozen", 409) from error
        return Response(_meter(meter))


def _fields(request: Request, body: type[StrictSerializer], *, partial: bool = False) -> dict[str, Any]:
    fields = read_body(request, body, partial=partial)
    return fields | ({"value": fields["value"] or ""} if "value" in fields else {})


def _meter_or_404(key: str) -> Meter:
    meter = Meter.objects.filter(key=key).first() if is_key(key) else None
    if meter is None:
        raise not_found("meter")
    return meter


def _meter(meter: Meter) -> dict[str, Any]:
    return {
        "key": meter.key,
        "name": meter.name,
        "unit": meter.unit,
        "event_type": meter.event_type,
        "aggregation": meter.aggregation,
        "value": meter.value or None,
        "dimensions": meter.dimensions,
        "filters": meter.filters,
        "created_at": plain_instant(meter.created_at),
        "backfill": _backfill(max(meter.backfills.all(), key=lambda one: one.pk, default=None)),
    }


def _backfill(last: Backfill | None) -> dict[str, Any] | None:
    if last is None:
        return None
    return {
        "percent": last.percent,
        "events": last.events,
        "sees_from": plain_instant(last.sees_from) if last.sees_from else None,
        "started_at": plain_instant(last.started_at),
        "finished_at": plain_instant(last.finished_at) if last.finished_at else None,
    }


urlpatterns = [
    path("meters", MetersView.as_view(), name="api-meters"),
    path("meters/<str:key>", MeterView.as_view(), name="api-meter"),
]
