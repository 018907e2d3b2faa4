"""May this call run? Holds over HTTP; and the endpoints of earlier rooms that holds change."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.auth import api_key, require_scope
from accounts.models import Customer, Scope
from billing.authorizations import grants, queries, services
from billing.authorizations.decision import REASONS
from billing.authorizations.facts import Amount, UnknownMeter, Usage, Wanted
from billing.authorizations.models import Authorization, EndedBy
from billing.authorizations.services import Allowed, Denied
from billing.budgets.queries import percent_of
from billing.clock import now
from billing.credits.api import CreditsView as LedgerCreditsView
from billing.credits.api import GrantAnswer, GrantBody, shown_grant
from billing.credits.models import CreditGrant
from billing.credits.queries import grant_balance
from billing.http import (
    ApiError,
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    invalid,
    not_found,
    plain_instant,
    read_body,
)
from billing.metering import decoding, limits
from billing.metering.api import EventBody, ExactJSONRenderer, IngestResult
from billing.metering.api import EventsView as MeteringEventsView
from billing.money import ZERO, exact, plain

MOST_USAGE: Final = 50
LONGEST: Final = 86_400  # seconds

# --- shapes -----------------------------------------------------------------------------------------------------


class UsageBody(StrictSerializer):
    """What the call will use of a meter."""

    meter = KeyField()
    quantity = ExactDecimalField(above=ZERO)
    properties = serializers.DictField(required=False, help_text="As the event will have them: they choose the price.")


class AuthorizationBody(StrictSerializer):
    """Send `usage`, which is priced, or `unit` and `amount`, which only budgets without scope judge."""

    customer = KeyField()
    ttl_seconds = serializers.IntegerField(default=300, min_value=1, max_value=LONGEST)
    usage = serializers.ListField(child=UsageBody(), required=False, min_length=1, max_length=MOST_USAGE)
    unit = serializers.CharField(required=False, max_length=32)
    amount = ExactDecimalField(required=False, above=ZERO)


class HeldBody(serializers.Serializer[Any]):
    unit = serializers.CharField()
    amount = ExactDecimalField()
    available_after = ExactDecimalField(allow_null=True)


class AllowBody(serializers.Serializer[Any]):
    """It may run, and what it takes is held until `expires_at`."""

    id = serializers.CharField()
    decision = serializers.ChoiceField(["allow"])
    unit = serializers.CharField(help_text="Of `amount`; see `holds` where usage costs several units.")
    amount = ExactDecimalField()
    available_after = ExactDecimalField(
        allow_null=True, help_text="What is left in the unit for others to hold; null where nothing limits it."
    )
    holds = HeldBody(many=True, help_text="One per unit.")
    expires_at = InstantField()


class StoppingBudget(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    unit = serializers.CharField()
    amount = ExactDecimalField()
    stop_at_percent = ExactDecimalField()
    limit = ExactDecimalField(help_text="What the stop comes to.")
    used = ExactDecimalField()
    reserved = ExactDecimalField()
    used_percent = ExactDecimalField(help_text="Of the amount, without what is reserved.")


class DenyBody(serializers.Serializer[Any]):
    """It may not run, and nothing is held."""

    decision = serializers.ChoiceField(["deny"])
    reason = serializers.ChoiceField(REASONS)
    detail = serializers.CharField()
    budget = StoppingBudget(required=False, help_text="The first one that stops it.")


class CaptureBody(StrictSerializer):
    events = serializers.ListField(child=EventBody(), required=False, min_length=1, max_length=1000)


class EndedBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    customer = KeyField()
    is_open = serializers.BooleanField()
    ended_by = serializers.ChoiceField(EndedBy.choices, allow_null=True)
    ended_at = InstantField(allow_null=True)
    expires_at = InstantField()
    is_reserved = serializers.BooleanField(help_text="Until its event is settled, when an event ended it.")
    created_at = InstantField()


class CapturedBody(EndedBody):
    events = IngestResult(required=False)


# --- views ------------------------------------------------------------------------------------------------------


class AuthorizationsView(ApiView):
    """Ask before a call runs."""

    own_errors = (404,)

    @extend_schema(
        operation_id="authorizations_create", request=AuthorizationBody, responses={201: AllowBody, 402: DenyBody}
    )
    def post(self, request: Request) -> Response:
        """Hold what the call will take of credits and budgets: 201, or 402 and the reason. Never a charge."""
        body = read_body(request, AuthorizationBody)
        try:
            found = services.authorize(
                customer=body["customer"],
                wanted=_wanted(body),
                ttl=timedelta(seconds=body["ttl_seconds"]),
                at=now(),
            )
        except services.UnknownCustomer:
            raise not_found("customer") from None
        except UnknownMeter as unknown:
            raise invalid(f"usage.{unknown.index}.meter", str(unknown)) from None
        if isinstance(found, Denied):
            return Response(_denied(found), status=402)
        return Response(_allowed(found), status=201)


class AuthorizationView(ApiView):
    """One authorization."""

    @extend_schema(operation_id="authorizations_retrieve", responses=EndedBody)
    def get(self, request: Request, public_id: str) -> Response:
        return Response(_shown(_authorization_or_404(public_id)))


class CaptureView(ApiView):
    """End a hold with what was used."""

    renderer_classes = [ExactJSONRenderer]
    own_errors = (409, 413, 429)

    @extend_schema(operation_id="authorizations_capture", request=CaptureBody, responses=CapturedBody)
    def post(self, request: Request, public_id: str) -> Response:
        """With events: record them and end the hold at once, or neither. Without: end it, for usage sent separately."""
        body = request.data
        if not isinstance(body, Mapping):
            raise invalid("", "Send an object.")
        if unknown := body.keys() - {"events"}:
            raise invalid(min(unknown), "This field is not known.", "unknown_field")
        authorization = _authorization_or_404(public_id)
        if "events" not in body:
            return Response(_shown(services.capture(authorization=authorization, at=now(authorization.customer))))
        require_scope(api_key(request), Scope.EVENTS_WRITE)
        events = _events(body["events"], authorization.customer.key)
        try:
            ended, answer = services.capture_with_events(
                authorization=authorization, events=events, api_key=api_key(request), at=now(authorization.customer)
            )
        except decoding.BodyError as error:
            raise ApiError(error.code, error.detail, error.status) from error
        except limits.Limited as error:
            headers = {"Retry-After": str(error.retry_after)}
            raise ApiError(error.code, error.detail, error.status, headers=headers) from error
        except services.Refused as refused:
            raise _refused(refused) from refused
        return Response(_shown(ended) | {"events": answer.as_dict()})


class ReleaseView(ApiView):
    """Give a hold back."""

    own_errors = (409,)

    @extend_schema(operation_id="authorizations_release", request=None, responses=EndedBody)
    def post(self, request: Request, public_id: str) -> Response:
        """The call did not run."""
        authorization = _authorization_or_404(public_id)
        return Response(_shown(services.release(authorization=authorization, at=now(authorization.customer))))


class EventsView(MeteringEventsView):
    """Events in, one by one or up to 1,000 at once, and out again by customer."""

    take = staticmethod(services.take)


class CreditsView(LedgerCreditsView):
    """A customer's balances."""

    balances = staticmethod(queries.balances)


class GrantsView(ApiView):
    """Credits given by the vendor."""

    @extend_schema(operation_id="credit_grants_create", request=GrantBody, responses={201: GrantAnswer})
    def post(self, request: Request) -> Response:
        """Give credits, or prepaid money. What a plan version gives comes by itself."""
        body = read_body(request, GrantBody)
        customer = Customer.objects.filter(key=body.pop("customer")).first()
        if customer is None:
            raise invalid("customer", "There is no such customer. Create it first.")
        grant = grants.grant(customer=customer, at=now(customer), **body)
        return Response(shown_grant(grant_balance(grant, now(customer))), status=201)


class GrantVoidView(ApiView):
    """The end of a grant."""

    @extend_schema(operation_id="credit_grants_void", request=None, responses=GrantAnswer)
    def post(self, request: Request, public_id: str) -> Response:
        """Settle what it has paid for and forfeit the rest. 409 `already_void`, `already_expired`."""
        grant = CreditGrant.objects.select_related("customer__test_clock").filter(public_id=public_id).first()
        if grant is None:
            raise not_found("credit grant")
        voided = grants.void(grant=grant, at=now(grant.customer))
        return Response(shown_grant(grant_balance(voided, now(grant.customer))))


def _authorization_or_404(public_id: str) -> Authorization:
    found = queries.authorization(public_id)
    if found is None:
        raise not_found("authorization")
    return found


def _wanted(body: Mapping[str, Any]) -> Wanted:
    by_amount = "unit" in body or "amount" in body
    if by_amount == ("usage" in body):
        raise invalid("usage", "Send either usage, or unit and amount.")
    if by_amount:
        for name in ("unit", "amount"):
            if name not in body:
                raise invalid(name, "Send unit and amount together.", "missing_field")
        return Amount(body["unit"], body["amount"])
    return [Usage(one["meter"], one["quantity"], one.get("properties", {})) for one in body["usage"]]


def _events(events: Any, customer: str) -> list[Mapping[str, Any]]:
    """Events of the authorization's customer, which they need not name."""
    if not isinstance(events, list) or not events:
        raise invalid("events", "Send a list of events, or leave it out for usage that is sent separately.")
    for index, event in enumerate(events):
        if not isinstance(event, Mapping):
            raise invalid(f"events.{index}", "An event is an object.")
        if event.get("customer", customer) != customer:
            raise invalid(f"events.{index}.customer", f"The authorization is {customer}'s.")
        if "authorization" in event:
            raise invalid(f"events.{index}.authorization", "Leave it out: they end the one in the address.")
    return [{"customer": customer, **event} for event in events]


def _refused(refused: services.Refused) -> ApiError:
    errors = [
        {
            "field": ".".join(filter(None, ["events", str(result["index"]), result.get("field", "")])),
            "code": result.get("code", result["status"]),
            "detail": result["detail"],
        }
        for result in refused.answer.as_dict()["results"]
        if result["status"] in ("rejected", "conflict")
    ]
    detail = "Some events cannot be taken, so none was recorded and the authorization is still open."
    return ApiError("invalid_events", detail, 400, errors=errors)  # type: ignore[arg-type] # written as FieldErrors


def _allowed(found: Allowed) -> dict[str, Any]:
    holds = [
        {"unit": unit, "amount": plain(amount), "available_after": _plain(found.available_after[unit])}
        for unit, amount in found.amounts.items()
    ]
    return {
        "id": found.id,
        "decision": "allow",
        **holds[0],
        "holds": holds,
        "expires_at": plain_instant(found.expires_at),
    }


_WHY: Final = {
    "credit_exhausted": "The credits that are left do not cover it.",
    "budget_stop": "It would go beyond what the budget stops at.",
    "no_subscription": "No subscription of the customer prices it.",
}


@exact()
def _denied(found: Denied) -> dict[str, Any]:
    answer: dict[str, Any] = {"decision": "deny", "reason": found.reason, "detail": _WHY[found.reason]}
    if found.budget is None or found.stop is None:
        return answer
    budget, stop = found.budget, found.stop
    return answer | {
        "budget": {
            "id": budget.public_id,
            "name": budget.name,
            "unit": budget.unit,
            "amount": plain(budget.amount),
            "stop_at_percent": _plain(budget.stop_at_percent),
            "limit": plain(stop.limit),
            "used": plain(stop.used),
            "reserved": plain(stop.reserved),
            "used_percent": plain(percent_of(stop.used, budget.amount)),
        }
    }


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


def _shown(one: Authorization) -> dict[str, Any]:
    return {
        "id": one.public_id,
        "customer": one.customer.key,
        "is_open": one.ended_at is None,
        "ended_by": one.ended_by or None,
        "ended_at": one.ended_at and plain_instant(one.ended_at),
        "expires_at": plain_instant(one.expires_at),
        "is_reserved": one.settled_at is None,
        "created_at": plain_instant(one.created_at),
    }


urlpatterns = [
    path("events", EventsView.as_view(), name="api-events"),
    path("customers/<str:key>/credits", CreditsView.as_view(), name="api-credits"),
    path("credit-grants", GrantsView.as_view(), name="api-credit-grants"),
    path("credit-grants/<id:public_id>/void", GrantVoidView.as_view(), name="api-credit-grant-void"),
    path("authorizations", AuthorizationsView.as_view(), name="api-authorizations"),
    path("authorizations/<id:public_id>", AuthorizationView.as_view(), name="api-authorization"),
    path("authorizations/<id:public_id>/capture", CaptureView.as_view(), name="api-authorization-capture"),
    path("authorizations/<id:public_id>/release", ReleaseView.as_view(), name="api-authorization-release"),
]
