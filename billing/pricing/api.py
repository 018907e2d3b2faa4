"""Plans and their versions."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.clock import now
from billing.http import (
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    is_key,
    not_found,
    page_of,
    plain_instant,
    read_body,
)
from billing.money import parse_decimal, plain
from billing.pricing import queries, services
from billing.pricing.models import FeeTiming, IntervalUnit, Plan, PlanVersion
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec, VersionSpec

ONE, ZERO = Decimal(1), Decimal(0)


@extend_schema_field(OpenApiTypes.STR)
class NotYetField(serializers.Field[Any, Any, Any, Any]):
    """A field of the contract that can only have its neutral value so far."""

    def __init__(self, neutral: str | int | None = None, **options: Any) -> None:
        self.neutral = neutral
        shown = "null" if neutral is None else str(neutral)
        self.sentence = f"Other values are not available yet. Leave it out or send {shown}."
        super().__init__(required=False, allow_null=neutral is None, help_text=f"{shown} so far.", **options)

    def to_internal_value(self, data: Any) -> Any:
        if not self._is_neutral(data):
            raise serializers.ValidationError(self.sentence)
        return self.neutral

    def to_representation(self, value: Any) -> Any:
        return value

    def _is_neutral(self, data: Any) -> bool:
        try:
            return self.neutral is not None and parse_decimal(data) == parse_decimal(self.neutral)
        except ValueError:
            return False


class OnlyField(serializers.ChoiceField):
    """A choice of which only one is available so far."""

    def __init__(self, only: str, **options: Any) -> None:
        sentence = f'Only "{only}" is available yet.'
        super().__init__([only], default=only, error_messages={"invalid_choice": sentence}, **options)


@extend_schema_field({"type": "object", "additionalProperties": {}, "example": {"model": ["mini", "nano"]}})
class WhereField(serializers.Field[Any, Any, Any, Any]):
    """{dimension: value, [values] or null (absent)}; what it may say is checked with the price."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError('Send an object such as {"model": "large-2"}.')
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class MatchBody(StrictSerializer):
    where = WhereField()
    unit_amount = ExactDecimalField()
    included = NotYetField("0", write_only=True)
    minimum_amount = NotYetField(write_only=True)
    maximum_amount = NotYetField(write_only=True)
    tiers = NotYetField(write_only=True)


class PriceBody(StrictSerializer):
    key = KeyField()
    meter = KeyField(help_text="Key of the meter whose quantity is priced.")
    unit = serializers.CharField(max_length=32, help_text="The plan's currency, or a credit unit.")
    scheme = OnlyField("per_unit")
    per = ExactDecimalField(default=ONE, help_text="The quantity that unit_amount buys.")
    unit_amount = ExactDecimalField()
    included = ExactDecimalField(default=ZERO, help_text="Free quantity of the default row in each billing period.")
    minimum_amount = NotYetField()
    maximum_amount = NotYetField()
    tiers = NotYetField(write_only=True)
    package_size = NotYetField(write_only=True)
    package_amount = NotYetField(write_only=True)
    rate = NotYetField(write_only=True)
    fixed_amount = NotYetField(write_only=True)
    match = MatchBody(many=True, default=list)


class CreditBody(StrictSerializer):
    unit = serializers.CharField(max_length=32, default="credits")
    amount = ExactDecimalField()
    every = OnlyField("period")
    rollover_max = NotYetField("0")
    priority = serializers.IntegerField(default=10, help_text="Lower is spent first.")


class OverageBody(StrictSerializer):
    unit = serializers.CharField(max_length=32, default="credits")
    unit_amount = ExactDecimalField(help_text="Of one credit beyond the grants, in the plan's currency.")


class VersionBody(StrictSerializer):
    interval = serializers.ChoiceField(IntervalUnit.choices, default="month")
    interval_count = serializers.IntegerField(default=1)
    base_fee = ExactDecimalField(default=ZERO)
    base_fee_timing = serializers.ChoiceField(FeeTiming.choices, default="advance")
    trial_days = NotYetField(0)
    minimum_spend = NotYetField()
    credits = CreditBody(many=True, default=list)
    prices = PriceBody(many=True, default=list)
    overage = OverageBody(many=True, default=list)
    postpaid = serializers.BooleanField(default=True)


class VersionAnswer(VersionBody):
    plan = KeyField()
    version = serializers.IntegerField(help_text="Counts from 1 within the plan.")
    status = serializers.ChoiceField(["draft", "published"])
    published_at = InstantField(allow_null=True)


class PlanBody(StrictSerializer):
    key = KeyField()
    name = serializers.CharField(max_length=200)
    currency = serializers.CharField(max_length=3, default="USD", help_text="ISO 4217, in capitals.")


class PublishBody(StrictSerializer):
    at = InstantField(required=False, help_text="From when new subscriptions take it; now when absent.")


# --- views --------------------------------------------------------------------------------------------------


class PlansView(ApiView):
    """Plans: a key, a name and a currency. What a plan says lives in its versions."""

    @extend_schema(operation_id="plans_list", responses=page_of("Plans", PlanBody))
    def get(self, request: Request) -> Response:
        """Every plan, by key."""
        return cursor_page(queries.plans(), request, serialize=shown_plan, order=("key",))

    @extend_schema(operation_id="plans_create", request=PlanBody, responses={201: PlanBody})
    def post(self, request: Request) -> Response:
        """Make a plan. 409 `key_taken` when the key exists."""
        plan = services.create_plan(**read_body(request, PlanBody), at=now())
        return Response(shown_plan(plan), status=201)


class VersionsView(ApiView):
    """The versions of a plan. A draft may change; a published one never does."""

    @extend_schema(operation_id="plan_versions_list", responses=page_of("PlanVersions", VersionAnswer))
    def get(self, request: Request, key: str) -> Response:
        """Every version, newest first."""
        return cursor_page(queries.versions(plan_or_404(key)), request, serialize=shown_version, order=("-number",))

    @extend_schema(operation_id="plan_versions_create", request=VersionBody, responses={201: VersionAnswer})
    def post(self, request: Request, key: str) -> Response:
        """Draft the next version."""
        spec = read_spec(read_body(request, VersionBody))
        version = services.create_version(plan=plan_or_404(key), spec=spec, at=now())
        return Response(shown_version(version), status=201)


class VersionView(ApiView):
    """One version of a plan."""

    @extend_schema(operation_id="plan_versions_retrieve", responses=VersionAnswer)
    def get(self, request: Request, key: str, number: int) -> Response:
        """What the version says."""
        return Response(shown_version(version_or_404(key, number)))

    @extend_schema(operation_id="plan_versions_update", request=VersionBody, responses=VersionAnswer)
    def patch(self, request: Request, key: str, number: int) -> Response:
        """Change a draft: a field that is sent replaces what the draft said there, lists as a whole.

        409 `version_published` once it is published.
        """
        version = version_or_404(key, number)
        reader = VersionBody(data=_merged(version, request.data))
        reader.is_valid(raise_exception=True)
        version = services.update_draft(version=version, spec=read_spec(reader.validated_data), at=now())
        return Response(shown_version(version))


class PublishView(ApiView):
    """Publication of a draft."""

    @extend_schema(operation_id="plan_versions_publish", request=PublishBody, responses=VersionAnswer)
    def post(self, request: Request, key: str, number: int) -> Response:
        """Publish the draft, which freezes it. 409 `version_published` when it is published already."""
        published_at = read_body(request, PublishBody).get("at")
        version = services.publish(version=version_or_404(key, number), published_at=published_at, at=now())
        return Response(shown_version(version))


def plan_or_404(key: str) -> Plan:
    plan = queries.plans().filter(key=key).first() if is_key(key) else None
    if plan is None:
        raise not_found("plan")
    return plan


def version_or_404(key: str, number: int) -> PlanVersion:
    version = queries.versions(plan_or_404(key)).filter(number=number).first()
    if version is None:
        raise not_found("version of this plan")
    return version


# --- in and out ---------------------------------------------------------------------------------------------


def read_spec(body: Mapping[str, Any]) -> VersionSpec:
    """The validated body as services take it."""
    return VersionSpec(
        interval=body["interval"],
        interval_count=body["interval_count"],
        base_fee=body["base_fee"],
        base_fee_timing=body["base_fee_timing"],
        postpaid=body["postpaid"],
        credits=tuple(CreditSpec(item["unit"], item["amount"], item["priority"]) for item in body["credits"]),
        prices=tuple(map(_read_price, body["prices"])),
        overage=tuple(OverageSpec(item["unit"], item["unit_amount"]) for item in body["overage"]),
    )


def _read_price(body: Mapping[str, Any]) -> PriceSpec:
    return PriceSpec(
        key=body["key"],
        meter=body["meter"],
        unit=body["unit"],
        unit_amount=body["unit_amount"],
        per=body["per"],
        included=body["included"],
        match=tuple(MatchSpec(row["where"], row["unit_amount"]) for row in body["match"]),
    )


def _merged(version: PlanVersion, body: Any) -> Any:
    """What the draft would say: the whole of it is checked, not only what is sent."""
    return {**_shown_terms(version), **body} if isinstance(body, dict) else body


def shown_plan(plan: Plan) -> dict[str, Any]:
    return {"key": plan.key, "name": plan.name, "currency": plan.currency}


def shown_version(version: PlanVersion) -> dict[str, Any]:
    return {
        "plan": version.plan.key,
        "version": version.number,
        "status": version.status,
        "published_at": plain_instant(version.published_at) if version.published_at else None,
        **_shown_terms(version),
    }


def _shown_terms(version: PlanVersion) -> dict[str, Any]:
    spec = queries.spec_of(version)
    return {
        "interval": spec.interval,
        "interval_count": spec.interval_count,
        "base_fee": plain(spec.base_fee),
        "base_fee_timing": spec.base_fee_timing,
        "trial_days": 0,
        "minimum_spend": None,
        "credits": list(map(_shown_credit, spec.credits)),
        "prices": list(map(_shown_price, spec.prices)),
        "overage": [{"unit": term.unit, "unit_amount": plain(term.unit_amount)} for term in spec.overage],
        "postpaid": spec.postpaid,
    }


def _shown_credit(term: CreditSpec) -> dict[str, Any]:
    return {
        "unit": term.unit,
        "amount": plain(term.amount),
        "every": "period",
        "rollover_max": "0",
        "priority": term.priority,
    }


def _shown_price(price: PriceSpec) -> dict[str, Any]:
    return {
        "key": price.key,
        "meter": price.meter,
        "unit": price.unit,
        "scheme": "per_unit",
        "per": plain(price.per),
        "unit_amount": plain(price.unit_amount),
        "included": plain(price.included),
        "minimum_amount": None,
        "maximum_amount": None,
        "match": [{"where": row.where, "unit_amount": plain(row.unit_amount)} for row in price.match],
    }


urlpatterns = [
    path("plans", PlansView.as_view(), name="api-plans"),
    path("plans/<str:key>/versions", VersionsView.as_view(), name="api-plan-versions"),
    path("plans/<str:key>/versions/<int:number>", VersionView.as_view(), name="api-plan-version"),
    path("plans/<str:key>/versions/<int:number>/publish", PublishView.as_view(), name="api-plan-version-publish"),
]
