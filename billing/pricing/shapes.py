"""The shapes of the catalog in JSON: what may be sent, and what is answered."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.http import ExactDecimalField, InstantField, KeyField, StrictSerializer, plain_instant
from billing.money import plain
from billing.pricing import queries
from billing.pricing.models import CreditEvery, FeeTiming, IntervalUnit, Plan, PlanVersion, Scheme, VersionStatus
from billing.pricing.schemes import Breakdown, Rated, Terms, Tier, Usage
from billing.pricing.spec import (
    AMOUNTS_OF,
    ROW_AMOUNTS,
    CreditSpec,
    MatchSpec,
    OverageSpec,
    PriceSpec,
    VersionSpec,
    terms_of,
    tier_as_stored,
)

ONE: Final = Decimal(1)
ZERO: Final = Decimal(0)


@extend_schema_field({"type": "object", "additionalProperties": {}, "example": {"model": ["mini", "nano"]}})
class WhereField(serializers.Field[Any, Any, Any, Any]):
    """{dimension: value, [values] or null (absent)}; what it may say is checked with the price."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError('Send an object such as {"model": "large-2"}.')
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class TierBody(StrictSerializer):
    up_to = ExactDecimalField(allow_null=True, help_text="Cumulative and inclusive; null in the last tier.")
    unit_amount = ExactDecimalField(default=ZERO)
    flat_amount = ExactDecimalField(default=ZERO)


class RowBody(StrictSerializer):
    """A row's amounts: those that its scheme takes."""

    unit_amount = ExactDecimalField(required=False, allow_null=True, help_text="Of per_unit: what `per` costs.")
    tiers = serializers.ListField(  # many=True would let null pass as a tier too
        child=TierBody(), max_length=100, required=False, allow_null=True, help_text="Of graduated and volume."
    )
    package_size = ExactDecimalField(required=False, allow_null=True, help_text="Of package, in steps of `per`.")
    package_amount = ExactDecimalField(required=False, allow_null=True, help_text="Of package: each started one.")
    rate = ExactDecimalField(required=False, allow_null=True, help_text="Of percentage, in percent.")
    fixed_amount = ExactDecimalField(required=False, allow_null=True, help_text="Of percentage: per event.")
    included = ExactDecimalField(default=ZERO, help_text="Free quantity of this row in each billing period.")
    minimum_amount = ExactDecimalField(
        default=None, allow_null=True, help_text="The least this row costs in a period: what lacks is added at its end."
    )
    maximum_amount = ExactDecimalField(default=None, allow_null=True, help_text="The most this row costs in a period.")


class MatchBody(RowBody):
    where = WhereField()


class PricedBody(RowBody):
    """How a quantity becomes an amount."""

    unit = serializers.CharField(max_length=32, help_text="The plan's currency, or a credit unit.")
    scheme = serializers.ChoiceField(Scheme.choices, default="per_unit")
    per = ExactDecimalField(default=ONE, help_text="The quantity that amounts are for.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Every row takes the amounts of the price's scheme and no others."""
        scheme = attrs["scheme"]
        errors: dict[str, Any] = row_errors(scheme, attrs)
        rows = [row_errors(scheme, row) for row in attrs["match"]]
        if any(rows):
            errors["match"] = rows
        if errors:
            raise serializers.ValidationError(errors)
        return attrs


class PriceBody(PricedBody):
    key = KeyField()
    meter = KeyField(help_text="Key of the meter whose quantity is priced.")
    match = MatchBody(many=True, default=list)


OPTIONAL = ("fixed_amount",)


def row_errors(scheme: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row lacks for the scheme, and what it has of another one."""
    takes = AMOUNTS_OF[scheme]
    every = dict.fromkeys(name for names in AMOUNTS_OF.values() for name in names)
    sent = [name for name in every if row.get(name) is not None]
    missing = [name for name in takes if name not in sent and name not in OPTIONAL]
    foreign = [name for name in sent if name not in takes]
    return {
        **{name: [serializers.ErrorDetail(f"{scheme} needs it.", code="required")] for name in missing},
        **{name: [f"{scheme} takes {' and '.join(takes)} instead."] for name in foreign},
    }


class SimulatedPriceBody(PricedBody):
    """A price as in a version; its key and meter are not looked at."""

    key = KeyField(default="price")
    meter = KeyField(default="meter")
    match = MatchBody(many=True, default=list)


class SimulatedUsageBody(StrictSerializer):
    where = serializers.DictField(
        child=serializers.CharField(allow_null=True), default=dict, help_text="Values of dimensions."
    )
    quantity = ExactDecimalField(minimum=ZERO)
    events = serializers.IntegerField(default=0, min_value=0, max_value=10**12)


class SimulationBody(StrictSerializer):
    """`quantity`, of the default row, or `quantities` with dimension values."""

    price = SimulatedPriceBody()
    quantity = ExactDecimalField(minimum=ZERO, required=False)
    prior_quantity = ExactDecimalField(minimum=ZERO, default=ZERO, help_text="Used earlier in the period.")
    events = serializers.IntegerField(default=0, min_value=0, max_value=10**12)
    quantities = SimulatedUsageBody(many=True, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "quantity" not in attrs and "quantities" not in attrs:
            error = serializers.ErrorDetail("Send a quantity, or quantities.", code="required")
            raise serializers.ValidationError({"quantity": [error]})
        alone = [name for name in ("quantity", "prior_quantity", "events") if attrs.get(name)]
        if "quantities" in attrs and alone:
            raise serializers.ValidationError({name: ["Not together with quantities."] for name in alone})
        return attrs


class BreakdownAnswer(serializers.Serializer[Any]):
    where = serializers.DictField()
    tier = serializers.IntegerField(allow_null=True)
    kind = serializers.ChoiceField(["usage", "minimum", "maximum"])
    quantity = ExactDecimalField()
    unit_amount = ExactDecimalField()
    flat_amount = ExactDecimalField()
    amount = ExactDecimalField()


class SimulationAnswer(serializers.Serializer[Any]):
    amount = ExactDecimalField()
    unit = serializers.CharField()
    breakdown = BreakdownAnswer(many=True)
    explanation = serializers.CharField(help_text="The arithmetic.")


class CreditBody(StrictSerializer):
    unit = serializers.CharField(max_length=32, default="credits")
    amount = ExactDecimalField()
    every = serializers.ChoiceField(
        CreditEvery.choices, default="period", help_text="They expire when the next ones come."
    )
    rollover_max = ExactDecimalField(
        default=ZERO, help_text="What is left moves to the next ones once, up to this amount."
    )
    priority = serializers.IntegerField(default=10, help_text="Lower is spent first.")


class OverageBody(StrictSerializer):
    unit = serializers.CharField(max_length=32, default="credits")
    unit_amount = ExactDecimalField(help_text="Of one credit beyond the grants, in the plan's currency.")


class VersionBody(StrictSerializer):
    interval = serializers.ChoiceField(IntervalUnit.choices, default="month")
    interval_count = serializers.IntegerField(default=1)
    base_fee = ExactDecimalField(default=ZERO)
    base_fee_timing = serializers.ChoiceField(FeeTiming.choices, default="advance")
    trial_days = serializers.IntegerField(
        default=0, help_text="Days in which nothing is charged, before the first paid billing period."
    )
    minimum_spend = ExactDecimalField(
        default=None, allow_null=True, help_text="The least a billing period costs, in the plan's currency."
    )
    credits = CreditBody(many=True, default=list)
    prices = PriceBody(many=True, default=list)
    overage = OverageBody(many=True, default=list)
    postpaid = serializers.BooleanField(default=True)


class VersionAnswer(VersionBody):
    plan = KeyField()
    version = serializers.IntegerField(help_text="Counts from 1 within the plan.")
    status = serializers.ChoiceField(VersionStatus.choices)
    published_at = InstantField(allow_null=True, help_text="New subscriptions take it from then on.")
    retired_at = InstantField(allow_null=True, help_text="No subscription begins with it since then.")


class PlanBody(StrictSerializer):
    key = KeyField()
    name = serializers.CharField(max_length=200)
    currency = serializers.CharField(max_length=3, default="USD", help_text="ISO 4217, in capitals.")
    is_add_on = serializers.BooleanField(default=False, help_text="Only sold beside another plan.")
    is_listed = serializers.BooleanField(
        default=False, help_text="Customers of other plans may compare it with theirs."
    )


class PublishBody(StrictSerializer):
    at = InstantField(required=False, help_text="From when new subscriptions take it; now when absent.")


# --- in and out ---------------------------------------------------------------------------------------------


def read_spec(body: Mapping[str, Any]) -> VersionSpec:
    """The validated body as services take it."""
    return VersionSpec(
        interval=body["interval"],
        interval_count=body["interval_count"],
        base_fee=body["base_fee"],
        base_fee_timing=body["base_fee_timing"],
        trial_days=body["trial_days"],
        minimum_spend=body["minimum_spend"],
        postpaid=body["postpaid"],
        credits=tuple(CreditSpec(**item) for item in body["credits"]),
        prices=tuple(map(read_price, body["prices"])),
        overage=tuple(OverageSpec(item["unit"], item["unit_amount"]) for item in body["overage"]),
    )


def read_price(body: Mapping[str, Any]) -> PriceSpec:
    return PriceSpec(
        key=body["key"],
        meter=body["meter"],
        unit=body["unit"],
        scheme=body["scheme"],
        per=body["per"],
        match=tuple(MatchSpec(where=row["where"], **_read_amounts(row)) for row in body["match"]),
        **_read_amounts(body),
    )


def _read_amounts(body: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {name: body[name] for name in ROW_AMOUNTS if body.get(name) is not None}
    return {**amounts, "tiers": tuple(Tier(**tier) for tier in body.get("tiers") or ())}


def shown_plan(plan: Plan) -> dict[str, Any]:
    return {
        "key": plan.key,
        "name": plan.name,
        "currency": plan.currency,
        "is_add_on": plan.is_add_on,
        "is_listed": plan.is_listed,
    }


def shown_version(version: PlanVersion) -> dict[str, Any]:
    return {
        "plan": version.plan.key,
        "version": version.number,
        "status": version.status,
        "published_at": plain_instant(version.published_at) if version.published_at else None,
        "retired_at": plain_instant(version.retired_at) if version.retired_at else None,
        **shown_terms(version),
    }


def shown_terms(version: PlanVersion) -> dict[str, Any]:
    spec = queries.spec_of(version)
    return {
        "interval": spec.interval,
        "interval_count": spec.interval_count,
        "base_fee": plain(spec.base_fee),
        "base_fee_timing": spec.base_fee_timing,
        "trial_days": spec.trial_days,
        "minimum_spend": _shown_limit(spec.minimum_spend),
        "credits": list(map(_shown_credit, spec.credits)),
        "prices": list(map(_shown_price, spec.prices)),
        "overage": [{"unit": term.unit, "unit_amount": plain(term.unit_amount)} for term in spec.overage],
        "postpaid": spec.postpaid,
    }


def _shown_credit(term: CreditSpec) -> dict[str, Any]:
    return {
        "unit": term.unit,
        "amount": plain(term.amount),
        "every": term.every,
        "rollover_max": plain(term.rollover_max),
        "priority": term.priority,
    }


def _shown_price(price: PriceSpec) -> dict[str, Any]:
    return {
        "key": price.key,
        "meter": price.meter,
        "unit": price.unit,
        "scheme": price.scheme,
        "per": plain(price.per),
        **_shown_amounts(price.scheme, price),
        "included": plain(price.included),
        "minimum_amount": _shown_limit(price.minimum_amount),
        "maximum_amount": _shown_limit(price.maximum_amount),
        "match": [_shown_match_row(price.scheme, row) for row in price.match],
    }


def _shown_match_row(scheme: str, row: MatchSpec) -> dict[str, Any]:
    shown = {"where": row.where, **_shown_amounts(scheme, row)}
    if row.included:
        shown["included"] = plain(row.included)
    limits = {name: getattr(row, name) for name in ("minimum_amount", "maximum_amount")}
    return shown | {name: plain(limit) for name, limit in limits.items() if limit is not None}


def _shown_amounts(scheme: str, row: PriceSpec | MatchSpec) -> dict[str, Any]:
    """The amounts of the scheme, and none of the others."""
    return {
        name: list(map(tier_as_stored, row.tiers)) if name == "tiers" else plain(getattr(row, name))
        for name in AMOUNTS_OF[scheme]
    }


def _shown_limit(limit: Decimal | None) -> str | None:
    return None if limit is None else plain(limit)


# --- simulations --------------------------------------------------------------------------------------------


def read_simulation(body: Mapping[str, Any]) -> tuple[Terms, list[Usage], list[Usage]]:
    """The terms, the usage to rate, and the usage before it."""
    terms = terms_of(read_price(body["price"]))
    if "quantities" in body:
        return terms, [Usage(item["quantity"], item["where"], item["events"]) for item in body["quantities"]], []
    return terms, [Usage(body["quantity"], events=body["events"])], [Usage(body["prior_quantity"])]


def shown_rated(rated: Rated, unit: str) -> dict[str, Any]:
    """An amount with its arithmetic."""
    return {
        "amount": plain(rated.amount),
        "unit": unit,
        "breakdown": list(map(_shown_breakdown, rated.breakdown)),
        "explanation": rated.explanation,
    }


def _shown_breakdown(row: Breakdown) -> dict[str, Any]:
    return {
        "where": {name: _shown_values(values) for name, values in row.where.items()},
        "tier": row.tier,
        "kind": row.kind,
        "quantity": plain(row.quantity),
        "unit_amount": plain(row.unit_amount),
        "flat_amount": plain(row.flat_amount),
        "amount": plain(row.amount),
    }


def _shown_values(values: frozenset[str | None]) -> str | list[str | None] | None:
    ordered = sorted(values, key=lambda value: (value is None, value or ""))
    return ordered[0] if len(ordered) == 1 else ordered
