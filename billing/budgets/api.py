"""Budgets and alerts over HTTP.

What the contract names but does not exist yet (other periods and bases, scopes, stops, forecasts, balance rules) is
refused by name, never ignored: a budget that is not watched as asked would be worse than none.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Customer
from billing import clock, money
from billing.budgets import queries, services
from billing.budgets.models import Alert, AlertDirection, Budget, Threshold
from billing.budgets.validation import ThresholdSpec
from billing.http import (
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    documents_only,
    invalid,
    not_found,
    own_customer,
    page_of,
    plain_instant,
    read_body,
    read_query,
    within_reach,
)
from billing.notifications import queries as notifications
from billing.notifications.models import OutboxMessage

DEFAULT_THRESHOLDS: Final = ("50", "80", "100")


class LaterField(serializers.Field[Any, Any, Any, Any]):
    """A field of which only what is neutral works so far; `later` are those of the contract that will."""

    def __init__(self, *neutral: object, later: Collection[str] = (), **options: Any) -> None:
        super().__init__(required=False, allow_null=None in neutral, **options)
        self.neutral, self.later = neutral, later
        documents_only(self, *neutral)

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        if data is None and None not in self.neutral:
            return False, data  # null is a value like any other
        return super().validate_empty_values(data)

    def to_internal_value(self, data: Any) -> Any:
        if data in self.neutral:
            return data
        remedy = f"Send {json.dumps(self.neutral[0])}, or leave it out."
        if not self.later or (isinstance(data, str) and data in self.later):
            raise serializers.ValidationError(f"This is not available yet. {remedy}")
        raise serializers.ValidationError(remedy)

    def to_representation(self, value: Any) -> Any:
        return value


class ThresholdBody(StrictSerializer):
    """At which share of the budget, or at which amount, its recipients are told."""

    id = serializers.CharField(required=False, help_text="Of a threshold that exists, to keep what it has fired.")
    basis = LaterField("actual", later=["forecast"])
    percent = ExactDecimalField(required=False)
    amount = ExactDecimalField(required=False)
    below = LaterField(None)
    below_percent = LaterField(None)
    days_left = LaterField(None)
    expiring_days = LaterField(None)
    spike = LaterField(None)


class BudgetBody(StrictSerializer):
    """How much a customer means to spend in a billing period, and who is told when."""

    id = serializers.CharField(read_only=True)
    customer = KeyField()
    name = serializers.CharField(default="Budget")
    period = LaterField("billing_period", later=["day", "week", "month"])
    basis = LaterField("spend", later=["quantity", "credits", "credit_balance"])
    unit = serializers.CharField(required=False, help_text="The customer's currency unless given.")
    amount = ExactDecimalField()
    scope = LaterField({}, {"where": {}})
    stop_at_percent = ExactDecimalField(
        required=False,
        allow_null=True,
        help_text="Authorizations beyond this share of the amount are denied; null for a budget that only warns.",
    )
    thresholds = ThresholdBody(
        many=True, required=False, help_text=f"{', '.join(DEFAULT_THRESHOLDS)} percent unless given."
    )
    recipients = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="owners, billing, or e-mail addresses."
    )
    created_at = InstantField(read_only=True)


class BudgetQuery(StrictSerializer):
    customer = KeyField(required=False)


class AlertQuery(StrictSerializer):
    customer = KeyField(required=False)
    state = serializers.ChoiceField(AlertDirection.values, required=False)


class DeliveryBody(serializers.Serializer[Any]):
    channel = serializers.CharField()
    recipient = serializers.CharField()
    status = serializers.CharField()
    sent_at = InstantField(allow_null=True)


class AlertBody(serializers.Serializer[Any]):
    """That a threshold was crossed (fired), or is no longer (resolved)."""

    id = serializers.CharField()
    customer = KeyField()
    budget = serializers.CharField(help_text="The budget's id.")
    threshold = ThresholdBody()
    direction = serializers.ChoiceField(AlertDirection.values)
    period_start = InstantField()
    period_end = InstantField()
    value = ExactDecimalField()
    limit = ExactDecimalField(help_text="The budget's amount at that moment.")
    as_of = InstantField(help_text="The value counts events up to here.")
    created_at = InstantField()
    deliveries = DeliveryBody(many=True)


class CrossingBody(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The budget's id.")
    crosses_at = InstantField(allow_null=True, help_text="When it is reached; null if not in this period.")


class ForecastBody(serializers.Serializer[Any]):
    """Where the billing period will end, with the range in which four of five forecasts hold."""

    unit = serializers.CharField()
    expected = ExactDecimalField(
        allow_null=True, help_text="Spend: minimums that it does not reach are `expected` of the upcoming invoice."
    )
    low = ExactDecimalField(allow_null=True)
    high = ExactDecimalField(allow_null=True)
    method = serializers.CharField(help_text="How it was made, or what is missing.")
    enough_data = serializers.BooleanField()
    budgets = CrossingBody(many=True)


class ToldBody(serializers.Serializer[Any]):
    """Who was sent the mail."""

    recipients = serializers.ListField(child=serializers.EmailField())


def forecast_answer(one: queries.Outlook) -> dict[str, Any]:
    """A forecast as the API writes it."""
    found = one.forecast
    crossings = [(budget.public_id, found.crosses_at(budget.amount)) for budget in one.budgets]
    return {
        "unit": one.unit,
        "expected": _plain(found.expected),
        "low": _plain(found.low),
        "high": _plain(found.high),
        "method": found.method,
        "enough_data": found.enough_data,
        "budgets": [{"id": budget, "crosses_at": _instant(at)} for budget, at in crossings],
    }


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else money.plain(amount)


def _instant(at: datetime | None) -> str | None:
    return None if at is None else plain_instant(at)


def budget_answer(budget: Budget) -> dict[str, Any]:
    """A budget as the API writes it."""
    return {
        "id": budget.public_id,
        "customer": budget.customer.key,
        "name": budget.name,
        "period": budget.period,
        "basis": budget.basis,
        "unit": budget.unit,
        "amount": money.plain(budget.amount),
        "scope": {},
        "stop_at_percent": _plain(budget.stop_at_percent),
        "thresholds": [threshold_answer(threshold) for threshold in budget.thresholds.all()],
        "recipients": budget.recipients,
        "created_at": plain_instant(budget.created_at),
    }


def threshold_answer(threshold: Threshold) -> dict[str, str]:
    """As it was given, with its id."""
    answer = {"id": threshold.public_id, "basis": str(threshold.basis)}
    if threshold.percent is not None:
        answer["percent"] = money.plain(threshold.percent)
    if threshold.amount is not None:
        answer["amount"] = money.plain(threshold.amount)
    return answer


def alert_answers(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """Alerts as the API writes them, with who was told: one query for all of them."""
    messages = notifications.by_cause({alert.announcement for alert in alerts})
    return [_alert_answer(alert, messages.get(alert.announcement, ())) for alert in alerts]


def _alert_answer(alert: Alert, messages: Sequence[OutboxMessage]) -> dict[str, Any]:
    return {
        "id": alert.public_id,
        "customer": alert.customer.key,
        "budget": alert.threshold.budget.public_id,
        "threshold": threshold_answer(alert.threshold),
        "direction": alert.direction,
        "period_start": plain_instant(alert.period_start),
        "period_end": plain_instant(alert.period_end),
        "value": money.plain(alert.value),
        "limit": money.plain(alert.limit),
        "as_of": plain_instant(alert.as_of),
        "created_at": plain_instant(alert.created_at),
        "deliveries": [_delivery_answer(message) for message in messages],
    }


def _delivery_answer(message: OutboxMessage) -> dict[str, Any]:
    return {
        "channel": message.channel,
        "recipient": message.recipient,
        "status": message.status,
        "sent_at": _instant(message.sent_at),
    }


class Budgets(ApiView):
    """Make and list budgets."""

    own_errors = (404,)
    customer_key_may_read = customer_key_may_write = True

    @extend_schema(operation_id="budgets_list", parameters=[BudgetQuery], responses=page_of("Budgets", BudgetBody))
    def get(self, request: Request) -> Response:
        found = queries.with_thresholds(Budget.objects.all())
        if customer := _asked_customer(request, read_query(request, BudgetQuery)):
            found = queries.budgets(customer)
        return cursor_page(found, request, serialize=budget_answer)

    @extend_schema(operation_id="budgets_create", request=BudgetBody, responses={201: BudgetBody})
    def post(self, request: Request) -> Response:
        body = read_body(request, BudgetBody)
        customer = customer_or_404(request, body["customer"])
        budget = services.create_budget(
            customer=customer,
            name=body["name"],
            unit=body.get("unit") or customer.currency,
            amount=body["amount"],
            thresholds=_specs(
                body.get("thresholds", [{"percent": money.parse_decimal(p)} for p in DEFAULT_THRESHOLDS])
            ),
            recipients=body.get("recipients", ["owners"]),
            stop_at_percent=body.get("stop_at_percent"),
            at=clock.now(customer),
            trusted=own_customer(request) is None,
        )
        return Response(budget_answer(budget), status=201)


class OneBudget(ApiView):
    """Read, change and archive a budget."""

    customer_key_may_read = customer_key_may_write = True

    @extend_schema(operation_id="budgets_retrieve", responses=BudgetBody)
    def get(self, request: Request, budget_id: str) -> Response:
        return Response(budget_answer(_budget_or_404(request, budget_id)))

    @extend_schema(operation_id="budgets_update", request=BudgetBody, responses=BudgetBody)
    def patch(self, request: Request, budget_id: str) -> Response:
        budget = _budget_or_404(request, budget_id)
        body = read_body(request, BudgetBody, partial=True)
        _refuse_moves(budget, body)
        changed = services.update_budget(
            budget=budget,
            at=clock.now(budget.customer),
            name=body.get("name"),
            amount=body.get("amount"),
            thresholds=_specs(body["thresholds"]) if "thresholds" in body else None,
            recipients=body.get("recipients"),
            stop_at_percent=body.get("stop_at_percent", services.UNCHANGED),
            trusted=own_customer(request) is None,
        )
        return Response(budget_answer(changed))

    @extend_schema(operation_id="budgets_archive", responses={204: OpenApiResponse(description="It is archived.")})
    def delete(self, request: Request, budget_id: str) -> Response:
        budget = _budget_or_404(request, budget_id)
        services.archive_budget(budget=budget, at=clock.now(budget.customer))
        return Response(status=204)


class BudgetTest(ApiView):
    """Send every recipient a mail that looks like an alert and says that it is a test."""

    customer_key_may_write = True

    @extend_schema(operation_id="budgets_test", request=None, responses={202: ToldBody})
    def post(self, request: Request, budget_id: str) -> Response:
        budget = _budget_or_404(request, budget_id)
        addresses = services.send_test(budget=budget, at=clock.now(budget.customer))
        return Response({"recipients": addresses}, status=202)


class Alerts(ApiView):
    """What has fired and resolved, newest first, and who was told."""

    own_errors = (404,)
    customer_key_may_read = True

    @extend_schema(operation_id="alerts_list", parameters=[AlertQuery], responses=page_of("Alerts", AlertBody))
    def get(self, request: Request) -> Response:
        query = read_query(request, AlertQuery)
        found = queries.alerts(_asked_customer(request, query), direction=query.get("state"))
        page = cursor_page(found, request, serialize=lambda alert: alert, order=("-id",))
        return Response({**page.data, "data": alert_answers(page.data["data"])})


class ForecastView(ApiView):
    """Where the billing period will end, in each unit of a budget and in the customer's currency."""

    customer_key_may_read = True

    @extend_schema(
        operation_id="customers_forecast",
        responses=inline_serializer("Forecasts", {"data": ForecastBody(many=True)}),
    )
    def get(self, request: Request, key: str) -> Response:
        customer = customer_or_404(request, key)
        return Response({"data": [forecast_answer(one) for one in queries.outlooks(customer, clock.now(customer))]})


def _asked_customer(request: Request, query: Mapping[str, Any]) -> Customer | None:
    """The customer that the query names, else the key's own, else None for all."""
    if key := query.get("customer"):
        return customer_or_404(request, key)
    return own_customer(request)


def _budget_or_404(request: Request, budget_id: str) -> Budget:
    found = queries.with_thresholds(within_reach(Budget.objects.all(), request))
    budget = found.filter(public_id=budget_id).first()
    if budget is None:
        raise not_found("budget")
    return budget


def _refuse_moves(budget: Budget, body: Mapping[str, Any]) -> None:
    if body.get("customer", budget.customer.key) != budget.customer.key:
        raise invalid("customer", "A budget stays with its customer. Make another one there.")
    if body.get("unit", budget.unit) != budget.unit:
        raise invalid("unit", "A budget keeps its unit. Make another one in the other unit.")


def _specs(thresholds: Sequence[Mapping[str, Any]]) -> list[ThresholdSpec]:
    return [ThresholdSpec(one.get("percent"), one.get("amount"), one.get("id")) for one in thresholds]


urlpatterns = [
    path("budgets", Budgets.as_view(), name="api-budgets"),
    path("budgets/<id:budget_id>", OneBudget.as_view(), name="api-budget"),
    path("budgets/<id:budget_id>/test", BudgetTest.as_view(), name="api-budget-test"),
    path("customers/<str:key>/forecast", ForecastView.as_view(), name="api-forecast"),
    path("alerts", Alerts.as_view(), name="api-alerts"),
]
