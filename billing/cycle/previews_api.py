"""What a plan version would have charged for usage that really happened, over HTTP."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Customer, Scope
from billing.clock import now
from billing.cycle.preview import Charged, Everyone, Preview, percent, preview, preview_everyone
from billing.http import (
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    invalid,
    plain_instant,
    read_body,
)
from billing.money import CONTEXT, plain
from billing.periods import Interval
from billing.pricing import queries
from billing.pricing.api import version_or_404
from billing.pricing.models import PlanVersion
from billing.pricing.shapes import BreakdownAnswer, shown_rated
from billing.rating.queries import Line

LONGEST_DAYS = 1100  # a billing period of three years


class PreviewBody(StrictSerializer):
    customer = KeyField()
    to = InstantField(required=False, help_text="Rounded up to a quarter hour.")

    def get_fields(self) -> dict[str, Any]:
        asked = InstantField(required=False, help_text="Rounded down; the current billing period when both are absent.")
        return {**super().get_fields(), "from": asked}  # a word of Python


class EveryoneBody(StrictSerializer):
    version = serializers.IntegerField(required=False, help_text="On which customers are; the one before when absent.")


class PreviewLineAnswer(serializers.Serializer[Any]):
    price = KeyField()
    row = serializers.IntegerField(help_text="0 is the price's default, n its nth match row.")
    quantity = ExactDecimalField()
    amount = ExactDecimalField()
    unit = serializers.CharField()
    breakdown = BreakdownAnswer(many=True)
    explanation = serializers.CharField()


class ChargedAnswer(serializers.Serializer[Any]):
    usage = ExactDecimalField(help_text="With credits beyond those of the plan at their rate.")
    fees = ExactDecimalField()
    true_ups = ExactDecimalField()
    amount = ExactDecimalField(help_text="Due: rounded, less prepaid money that comes with the plan.")
    lines = PreviewLineAnswer(many=True)


class ChangeAnswer(serializers.Serializer[Any]):
    unit = serializers.CharField(help_text="The plan's currency.")
    amount = ExactDecimalField(help_text="What the version would have charged.")
    now = ExactDecimalField(allow_null=True, help_text="What the present version asks for the same.")
    difference = ExactDecimalField(allow_null=True)
    percent = ExactDecimalField(allow_null=True)


class PreviewAnswer(ChangeAnswer):
    customer = KeyField()
    to = InstantField()
    then_charged = ChargedAnswer()
    now_charged = ChargedAnswer(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": InstantField()}


class EveryoneRow(ChangeAnswer):
    customer = KeyField()


class EveryoneAnswer(ChangeAnswer):
    version = serializers.IntegerField(help_text="On which these customers are.")
    customers = EveryoneRow(many=True, help_text="Those for whom most would change first.")


class PreviewView(ApiView):
    """What a version would have charged, a draft as well as a published one."""

    own_errors = (404,)
    write_scope = Scope.BILLING_READ  # it only calculates

    @extend_schema(operation_id="plan_versions_preview", request=PreviewBody, responses=PreviewAnswer)
    def post(self, request: Request, key: str, number: int) -> Response:
        """Rate a customer's real usage by this version, beside what the present one asks for it.

        By default that of the current billing period so far. Credits count as far as they come with the plan; other
        grants, coupons and tax are left out of both.
        """
        version = version_or_404(key, number)
        body = read_body(request, PreviewBody)
        customer = Customer.objects.select_related("test_clock").filter(key=body["customer"]).first()
        if customer is None:
            raise invalid("customer", "There is no such customer.")
        spec, currency = queries.spec_of(version), version.plan.currency
        found = preview(customer, spec, currency, _interval(body), under=version, at=now(customer))
        return Response(_shown(found, currency))

    @extend_schema(operation_id="plan_versions_preview_everyone", request=EveryoneBody, responses=EveryoneAnswer)
    def put(self, request: Request, key: str, number: int) -> Response:
        """The same for everyone who is on another version of the plan, in their open billing periods."""
        version = version_or_404(key, number)
        other = _other(version, read_body(request, EveryoneBody).get("version"))
        found = preview_everyone(queries.spec_of(version), version.plan.currency, other, under=version)
        return Response(_shown_everyone(found, version.plan.currency, other))


def _interval(body: dict[str, Any]) -> Interval | None:
    start: datetime | None = body.get("from")
    end: datetime | None = body.get("to")
    if start is None and end is None:
        return None
    if start is None or end is None:
        raise invalid("to" if end is None else "from", "Send both ends of the range, or none.")
    if end <= start:
        raise invalid("to", "The range ends after it begins.")
    if (end - start).days > LONGEST_DAYS:
        raise invalid("from", f"Ask for at most {LONGEST_DAYS} days.")
    return Interval(start, end)


def _other(version: PlanVersion, number: int | None) -> PlanVersion:
    if number is not None:
        return version_or_404(version.plan.key, number)
    found = queries.version_before(version)
    if found is None:
        raise invalid("version", "This is the plan's first version. Name the one whose customers you mean.")
    return found


def _shown(found: Preview, currency: str) -> dict[str, Any]:
    return {
        "customer": found.customer.key,
        "from": plain_instant(found.interval.start),
        "to": plain_instant(found.interval.end),
        **_change(currency, found.amount_now, found.then.amount),
        "then_charged": _charged(found.then),
        "now_charged": None if found.now is None else _charged(found.now),
    }


def _shown_everyone(found: Everyone, currency: str, other: PlanVersion) -> dict[str, Any]:
    rows = [
        {"customer": one.customer.key, **_change(currency, one.amount_now, one.then.amount)} for one in found.previews
    ]
    return {"version": other.number, **_change(currency, found.now, found.then), "customers": rows}


def _change(unit: str, before: Decimal | None, then: Decimal) -> dict[str, Any]:
    share = None if before is None else percent(before, then)
    return {
        "unit": unit,
        "amount": plain(then),
        "now": None if before is None else plain(before),
        "difference": None if before is None else plain(CONTEXT.subtract(then, before)),
        "percent": None if share is None else plain(share),
    }


def _charged(charged: Charged) -> dict[str, Any]:
    said = charged.statement
    return {
        "usage": plain(said.usage),
        "fees": plain(said.fees),
        "true_ups": plain(said.true_ups),
        "amount": plain(charged.amount),
        "lines": list(map(_line, charged.lines)),
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "price": line.price.key,
        "row": line.row,
        "quantity": plain(line.quantity),
        **shown_rated(line.rated, line.unit),
    }


urlpatterns = [
    path("plans/<str:key>/versions/<int:number>/preview", PreviewView.as_view(), name="api-plan-version-preview")
]
