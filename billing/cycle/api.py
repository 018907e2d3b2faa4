"""The receipt of an event over HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.cycle.receipts import ReceiptLine, receipt_lines
from billing.http import (
    ApiError,
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    not_found,
    own_customer,
    plain_instant,
    read_query,
)
from billing.metering.api import CorrectionRow, EventRow, ExactJSONRenderer, shown_words
from billing.metering.corrections import ArchivedEvent, UnknownEvent
from billing.metering.models import Aggregation
from billing.metering.queries import counted_through
from billing.metering.receipts import EventReceipt, Fed, receipt
from billing.money import plain
from billing.periods import QUARTER
from billing.pricing.shapes import BreakdownAnswer, shown_rated


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
    transactions = serializers.ListField(
        child=serializers.CharField(),
        help_text="Ledger transactions that took the event, or a correction of it, into account.",
    )


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
    invoice = serializers.CharField(allow_null=True, help_text="Null: nothing is invoiced yet.")


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
        "invoice": None,
    }


def _shown_line(part: ReceiptLine) -> dict[str, Any]:
    line, version = part.line, part.line.segment.version
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
]
