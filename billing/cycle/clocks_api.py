"""Test clocks over HTTP: a sandbox in which time passes when it is told to."""

from typing import Any, Final

from django.db import transaction
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services as accounts
from accounts.models import TestClock
from billing.clock import now
from billing.cycle import clocks
from billing.cycle.tasks import advance_clock
from billing.http import (
    ApiView,
    InstantField,
    StrictSerializer,
    cursor_page,
    not_found,
    page_of,
    plain_instant,
    read_body,
)
from billing.notifications import mail
from billing.notifications.models import OutboxMessage
from billing.notifications.queries import kept

PATIENCE: Final = 30.0  # seconds that an answer waits for the clock to arrive


class ClockBody(StrictSerializer):
    now = InstantField()


class AdvanceBody(StrictSerializer):
    to = InstantField(help_text="At most 400 days ahead.")


class ClockAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    now = InstantField(help_text="While it is advancing: how far it has come.")
    status = serializers.ChoiceField(["ready", "advancing"])
    advancing_to = InstantField(allow_null=True)


class MessageAnswer(serializers.Serializer[Any]):
    channel = serializers.CharField()
    recipient = serializers.CharField()
    subject = serializers.CharField()
    text = serializers.CharField()
    created_at = InstantField(help_text="By the clock.")


class ClocksView(ApiView):
    """Sandboxes with a time of their own."""

    @extend_schema(operation_id="test_clocks_list", responses=page_of("TestClocks", ClockAnswer))
    def get(self, request: Request) -> Response:
        """Test clocks, oldest first."""
        return cursor_page(TestClock.objects.filter(deleted_at=None), request, serialize=shown_clock)

    @extend_schema(operation_id="test_clocks_create", request=ClockBody, responses={201: ClockAnswer})
    def post(self, request: Request) -> Response:
        """Make a clock. Customers are put on it when they are created."""
        clock = accounts.create_test_clock(now=read_body(request, ClockBody)["now"], at=now())
        return Response(shown_clock(clock), status=201)


class ClockView(ApiView):
    """One test clock."""

    @extend_schema(operation_id="test_clocks_read", responses=ClockAnswer)
    def get(self, request: Request, clock_id: str) -> Response:
        """What it says, and whether it is advancing."""
        return Response(shown_clock(_clock_or_404(clock_id)))

    @extend_schema(operation_id="test_clocks_delete", request=None, responses={204: None})
    def delete(self, request: Request, clock_id: str) -> Response:
        """Stop it for good. Its customers can still be read, but time does not pass for them any more."""
        accounts.delete_test_clock(clock=_clock_or_404(clock_id), at=now())
        return Response(status=204)


class AdvanceView(ApiView):
    """Time passes."""

    @extend_schema(
        operation_id="test_clocks_advance", request=AdvanceBody, responses={200: ClockAnswer, 202: ClockAnswer}
    )
    def post(self, request: Request, clock_id: str) -> Response:
        """Count, settle and run everything that falls due until then, in order. 202 after 30 seconds: it goes on, and
        the clock says when it has arrived. 409 `clock_advancing`."""
        clock = _clock_or_404(clock_id)
        clocks.begin(clock=clock, to=read_body(request, AdvanceBody)["to"])
        arrived = clocks.run(clock_id=clock.pk, seconds=PATIENCE)
        if not arrived:
            transaction.on_commit(lambda: advance_clock.delay(clock.pk))
        return Response(shown_clock(_clock_or_404(clock_id)), status=200 if arrived else 202)


class OutboxView(ApiView):
    """What a test clock's customers would have been sent."""

    @extend_schema(operation_id="test_clocks_outbox", responses=page_of("SandboxOutbox", MessageAnswer))
    def get(self, request: Request, clock_id: str) -> Response:
        """Messages, oldest first. None of them was sent."""
        return cursor_page(kept(_clock_or_404(clock_id)), request, serialize=_shown_message)


def _clock_or_404(public_id: str) -> TestClock:
    found = TestClock.objects.filter(public_id=public_id, deleted_at=None).first()
    if found is None:
        raise not_found("test clock")
    return found


def shown_clock(clock: TestClock) -> dict[str, Any]:
    return {
        "id": clock.public_id,
        "now": plain_instant(clock.now),
        "status": "ready" if clock.advancing_to is None else "advancing",
        "advancing_to": None if clock.advancing_to is None else plain_instant(clock.advancing_to),
    }


def _shown_message(message: OutboxMessage) -> dict[str, Any]:
    return {
        "channel": message.channel,
        "recipient": message.recipient,
        "subject": mail.subject(message),
        "text": mail.text(message),
        "created_at": plain_instant(message.created_at),
    }


urlpatterns = [
    path("test-clocks", ClocksView.as_view(), name="api-test-clocks"),
    path("test-clocks/<id:clock_id>", ClockView.as_view(), name="api-test-clock"),
    path("test-clocks/<id:clock_id>/advance", AdvanceView.as_view(), name="api-test-clock-advance"),
    path("test-clocks/<id:clock_id>/outbox", OutboxView.as_view(), name="api-test-clock-outbox"),
]
