"""Events, and what became of the ones that are not counted."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec
from django.http.request import UnreadablePostError
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.auth import api_key, require_scope
from accounts.models import Customer, Scope
from billing.clock import now
from billing.fields import ExactDecoder
from billing.http import (
    ApiError,
    ApiView,
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
)
from billing.metering import correcting, decoding, ingesting, limits, queries
from billing.metering.corrections import UnknownEvent
from billing.metering.models import (
    CorrectionKind,
    EventCorrection,
    RefusedItems,
    UnmatchedEvent,
    UnmatchedReason,
    UsageEvent,
)


class ExactJSONRenderer(BaseRenderer):
    """Numbers in properties go out as the numbers that came in; what it writes is also written fast."""

    media_type = "application/json"
    format = "json"
    charset = None
    _encoder: ClassVar = msgspec.json.Encoder(decimal_format="number")

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else self._encoder.encode(data)


# --- events -------------------------------------------------------------------------------------------------------


class _WithSource(serializers.Serializer[Any]):
    source = serializers.CharField(max_length=255, default="default")  # type: ignore[assignment] # a field of ours


class EventBody(_WithSource, StrictSerializer):
    """One event. For the schema: `decoding` reads them."""

    id = serializers.CharField(max_length=255)
    type = serializers.CharField(max_length=255)
    customer = KeyField()
    timestamp = InstantField(required=False, help_text="Now when absent. 35 days back, 5 minutes ahead.")
    properties = serializers.DictField(required=False, help_text="Up to 50; an event has up to 8 kB.")
    authorization = serializers.CharField(required=False, help_text="A hold that this event ends.")


class BatchBody(StrictSerializer):
    events = EventBody(many=True)


EVENTS_BODY = PolymorphicProxySerializer(
    component_name="IngestBody",
    serializers=[EventBody, BatchBody, EventBody(many=True)],
    resource_type_field_name=None,
    many=False,
)


class ItemResult(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    id = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(["accepted", "duplicate", "conflict", "unmatched", "rejected"])
    code = serializers.ChoiceField(
        [
            "invalid_field",
            "missing_field",
            "unknown_field",
            "invalid_value",
            "timestamp_in_future",
            "timestamp_too_old",
            "timestamp_without_offset",
            "too_many_properties",
            "too_large",
        ],
        required=False,
        help_text="Why it is rejected.",
    )
    field = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)
    reason = serializers.ChoiceField(UnmatchedReason.choices, required=False, help_text="Why it is unmatched.")
    warning = serializers.ChoiceField(["authorization_not_open"], required=False)


class IngestResult(serializers.Serializer[Any]):
    accepted = serializers.IntegerField()
    duplicate = serializers.IntegerField()
    conflict = serializers.IntegerField()
    unmatched = serializers.IntegerField()
    rejected = serializers.IntegerField()
    results = ItemResult(many=True, help_text="Every item that is not plainly accepted.")


class EventsQuery(StrictSerializer):
    customer = KeyField(required=False, help_text="Needed with an operator key.")
    type = serializers.CharField(required=False)
    to = InstantField(required=False)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": InstantField(required=False)}  # a word of Python


class CorrectionRow(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(CorrectionKind.choices)
    reason = serializers.CharField()
    recorded_at = InstantField()
    properties = serializers.DictField(required=False, help_text="All of them, as amended.")


class EventRow(_WithSource):
    id = serializers.CharField()
    type = serializers.CharField()
    customer = KeyField()
    timestamp = InstantField()
    recorded_at = InstantField()
    properties = serializers.DictField()
    extensions = serializers.DictField(required=False, help_text="Of a CloudEvent.")


class ListedEvent(EventRow):
    """As it was sent. The last correction holds."""

    corrections = CorrectionRow(many=True)


class EventsView(ApiView):
    """Events in, one by one or up to 1,000 at once, and out again by customer."""

    own_errors = (404, 429)
    write_scope = Scope.EVENTS_WRITE
    customer_key_may_read = True
    idempotent = False  # an event carries its identity itself
    renderer_classes = [ExactJSONRenderer]
    take: ClassVar[Callable[..., ingesting.IngestAnswer]] = staticmethod(ingesting.ingest)

    @extend_schema(
        operation_id="events_create",
        request={
            "application/json": EVENTS_BODY,
            "application/cloudevents+json": OpenApiTypes.OBJECT,
            "application/cloudevents-batch+json": OpenApiTypes.OBJECT,
        },
        parameters=[OpenApiParameter("backfill", bool, description="Take events of any age; needs billing:write.")],
        responses=IngestResult,
    )
    def post(self, request: Request) -> Response:
        """Send one event, `{"events": [...]}`, an array, or CloudEvents. Each item is answered on its own."""
        key = api_key(request)
        if backfill := _flag(request, "backfill"):
            require_scope(key, Scope.BILLING_WRITE)
        try:
            body = _body(request)  # read even if it is refused then: its sender would not see why
            with limits.place():
                answer = self.take(
                    body=body,
                    content_type=request.content_type or "",
                    api_key=key,
                    at=now(),
                    backfill=backfill,
                )
        except decoding.BodyError as error:
            raise ApiError(error.code, error.detail, error.status) from error
        except limits.Limited as error:
            headers = {"Retry-After": str(error.retry_after)}
            raise ApiError(error.code, error.detail, error.status, headers=headers) from error
        return Response(answer.as_dict())

    @extend_schema(operation_id="events_list", parameters=[EventsQuery], responses=page_of("EventPage", ListedEvent))
    def get(self, request: Request) -> Response:
        """The events of one customer, the latest first."""
        asked = read_query(request, EventsQuery)
        customer = _customer(request, asked.get("customer"))
        events = queries.events(
            customer, event_type=asked.get("type"), starts_at=asked.get("from"), ends_at=asked.get("to")
        )
        return cursor_page(
            events, request, serialize=lambda event: _listed(event, customer.key), order=("-occurred_at", "-identity")
        )


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false"):
        raise invalid(name, "Send true or false.")
    return text == "true"


def _body(request: Request) -> bytes:
    """The body, decompressed, read up to its limit and no further."""
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise ApiError("unsupported_media_type", "Send the body as it is or with Content-Encoding: gzip.", 415)
    if "HTTP_TRANSFER_ENCODING" in request.META:
        raise ApiError("length_required", "Send the body with a Content-Length, not in chunks.", 411)
    stream = request.stream
    try:
        body: bytes = stream.read(decoding.MAX_BODY_BYTES + 1) if stream else b""
    except UnreadablePostError as error:
        raise ApiError("malformed", "The body was cut off.") from error
    if len(body) > decoding.MAX_BODY_BYTES:
        raise decoding.too_large()
    return decoding.inflate(body) if encoding == "gzip" else body


def _customer(request: Request, key: str | None) -> Customer:
    if key is not None:
        return customer_or_404(request, key)
    own = own_customer(request)
    if own is None:
        raise invalid("customer", "Name the customer.", "missing_field")
    return own


def _event(event: UsageEvent | UnmatchedEvent, customer_key: str) -> dict[str, Any]:
    row = {
        "id": event.event_id,
        "source": event.source,
        "type": event.type,
        "customer": customer_key,
        "timestamp": plain_instant(event.occurred_at),
        "recorded_at": plain_instant(event.recorded_at),
        "properties": event.properties,
    }
    return row | ({"extensions": event.extensions} if event.extensions else {})


def _listed(event: Any, customer_key: str) -> dict[str, Any]:
    return _event(event, customer_key) | {"corrections": [_correction(**said) for said in event.corrections]}


def shown_words(words: Sequence[EventCorrection]) -> list[dict[str, Any]]:
    """Corrections in the contract's shape."""
    return [
        {"kind": word.kind, "reason": word.reason, "recorded_at": plain_instant(word.recorded_at)}
        | ({} if word.properties is None else {"properties": word.properties})
        for word in words
    ]


def _correction(*, kind: str, reason: str, recorded_at: str, properties: str | None) -> dict[str, Any]:
    row = {"kind": kind, "reason": reason, "recorded_at": plain_instant(datetime.fromisoformat(recorded_at))}
    return row if properties is None else row | {"properties": json.loads(properties, cls=ExactDecoder)}


# --- corrections --------------------------------------------------------------------------------------------------


class VoidBody(StrictSerializer):
    source = serializers.CharField(max_length=255, default="default", trim_whitespace=False)  # type: ignore[assignment]
    id = serializers.CharField(max_length=255, trim_whitespace=False)
    reason = serializers.CharField(max_length=1000, required=False, default="", allow_blank=True)


class AmendBody(VoidBody):
    properties = serializers.DictField(help_text="All of them: what is not here is gone.")


class CorrectedEvent(_WithSource):
    id = serializers.CharField()
    status = serializers.ChoiceField(["void", "amended", "unchanged"])
    reason = serializers.CharField()
    recorded_at = InstantField(allow_null=True, help_text="When it was corrected; null when it said this already.")
    properties = serializers.DictField(required=False)


class VoidView(ApiView):
    """Taking an event back."""

    own_errors = (404,)
    renderer_classes = [ExactJSONRenderer]

    @extend_schema(operation_id="events_void", request=VoidBody, responses=CorrectedEvent)
    def post(self, request: Request) -> Response:
        """The event counts for nothing from now on; its id stays taken. Repeating changes nothing. 404 when it is not
        known (any more), 409 `too_old` when it is archived."""
        body = read_body(request, VoidBody)
        event = {"source": body["source"], "event_id": body["id"], "reason": body["reason"]}
        try:
            word = correcting.void_event(**event, api_key=api_key(request), at=now())
        except UnknownEvent:
            raise not_found("event") from None
        return Response(_corrected(body, word))


class AmendView(ApiView):
    """Replacing what an event said."""

    own_errors = (404,)
    renderer_classes = [ExactJSONRenderer]

    @extend_schema(operation_id="events_amend", request=AmendBody, responses=CorrectedEvent)
    def post(self, request: Request) -> Response:
        """The event counts as if it had been sent with these properties. Repeating changes nothing. 409 `event_void`
        for a void event; 404 and 409 `too_old` as for voiding."""
        body = read_body(request, AmendBody)
        event = {"source": body["source"], "event_id": body["id"], "reason": body["reason"]}
        try:
            word = correcting.amend_event(**event, properties=body["properties"], api_key=api_key(request), at=now())
        except UnknownEvent:
            raise not_found("event") from None
        return Response(_corrected(body, word) | {"properties": body["properties"]})


def _corrected(body: Mapping[str, Any], word: EventCorrection | None) -> dict[str, Any]:
    statuses = {None: "unchanged", CorrectionKind.VOID: "void", CorrectionKind.AMEND: "amended"}
    return {
        "source": body["source"],
        "id": body["id"],
        "status": statuses[CorrectionKind(word.kind) if word else None],
        "reason": word.reason if word else "",
        "recorded_at": plain_instant(word.recorded_at) if word else None,
    }


# --- what is not counted ------------------------------------------------------------------------------------------


class UnmatchedQuery(StrictSerializer):
    customer = serializers.CharField(required=False)
    type = serializers.CharField(required=False)
    reason = serializers.ChoiceField(UnmatchedReason.choices, required=False)


class UnmatchedRow(EventRow):
    reason = serializers.ChoiceField(UnmatchedReason.choices)


class UnmatchedView(ApiView):
    """Events that nothing counts yet."""

    renderer_classes = [ExactJSONRenderer]

    @extend_schema(
        operation_id="unmatched_list",
        parameters=[UnmatchedQuery],
        responses=page_of("UnmatchedPage", UnmatchedRow),
    )
    def get(self, request: Request) -> Response:
        """Stored, not counted: they lack their customer or a meter, and are counted once it exists."""
        found = queries.unmatched(**read_query(request, UnmatchedQuery))
        return cursor_page(
            found, request, serialize=lambda event: _event(event, event.customer_key) | {"reason": event.reason}
        )


class RefusedRow(_WithSource):
    code = serializers.CharField()
    api_key = serializers.CharField(allow_null=True, help_text="The id of the key that sent them.")
    count = serializers.IntegerField()
    sample = serializers.CharField(help_text="The latest one, as it was sent.")
    detail = serializers.CharField()
    last_at = InstantField()


class RefusedView(ApiView):
    """Items that were refused."""

    @extend_schema(operation_id="refused_list", responses=page_of("RefusedPage", RefusedRow))
    def get(self, request: Request) -> Response:
        """How many items were refused, by code, key and source, with the latest as a sample."""
        return cursor_page(queries.refused(), request, serialize=_refused, order=("-id",))


def _refused(latest: RefusedItems) -> dict[str, Any]:
    return {
        "code": latest.code,
        "api_key": latest.api_key.public_id if latest.api_key else None,
        "source": latest.source,
        "count": latest.total,  # type: ignore[attr-defined] # annotated by the query
        "sample": latest.sample,
        "detail": latest.detail,
        "last_at": plain_instant(latest.recorded_at),
    }


urlpatterns = [
    path("events/void", VoidView.as_view(), name="api-event-void"),
    path("events/amend", AmendView.as_view(), name="api-event-amend"),
    path("unmatched", UnmatchedView.as_view(), name="api-unmatched"),
    path("refused", RefusedView.as_view(), name="api-refused"),
]
