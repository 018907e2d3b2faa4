"""What a billing period comes to, over HTTP: the statement of the open one, and the bridge of any."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Customer
from billing.clock import now
from billing.credits.paid import Applied
from billing.credits.queries import settled_through
from billing.credits.statements import (
    Fee,
    Late,
    Overage,
    PeriodStatement,
    RowMinimum,
    Source,
    closing_statement,
    explanation,
    period_statement,
)
from billing.cycle.bridge import Bridge, bridges
from billing.cycle.projection import Projection, projection
from billing.http import (
    ApiError,
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    customer_or_404,
    invalid,
    not_found,
    plain_instant,
    read_instant,
    read_query,
)
from billing.metering.queries import counted_through
from billing.money import plain
from billing.pricing.coupons import Discount
from billing.pricing.models import FeeTiming, PlanVersion
from billing.pricing.shapes import BreakdownAnswer, shown_rated
from billing.rating.queries import Line
from billing.rating.statement import Row, Statement
from billing.reads import snapshot
from billing.subscriptions.models import BillingPeriod, PeriodStatus, Subscription
from billing.subscriptions.queries import current_period, period_on, subscriptions

_NO_SUBSCRIPTION = "This customer has no active subscription, so nothing is coming up. Name one that has ended."


class UpcomingQuery(StrictSerializer):
    subscription = serializers.CharField(required=False, max_length=40, help_text="The oldest active one when absent.")


class BridgeQuery(UpcomingQuery):
    period = serializers.CharField(
        required=False,
        max_length=40,
        help_text="A day (2026-11-01) or an instant (RFC 3339) of the billing period; the open one when absent.",
    )


class LineAnswer(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(
        ["usage", "overage", "late_adjustment"],
        help_text="overage: credits used beyond the grants. late_adjustment: of an earlier period, which was closed.",
    )
    price = KeyField()
    row = serializers.IntegerField(help_text="0 is the price's default, n its nth match row.")
    meter = KeyField()
    plan = KeyField()
    version = serializers.IntegerField()
    service_start = InstantField()
    service_end = InstantField()
    quantity = ExactDecimalField()
    unit = serializers.CharField()
    amount = ExactDecimalField(help_text="Exact: as in spend, in the CSV and on receipts.")
    rounded = ExactDecimalField(help_text="In whole minor units.")
    credits_applied = ExactDecimalField(help_text="What grants in this unit paid of it.")
    breakdown = BreakdownAnswer(many=True)
    explanation = serializers.CharField(help_text="The arithmetic.")


class FeeAnswer(serializers.Serializer[Any]):
    plan = KeyField()
    version = serializers.IntegerField()
    base_fee_timing = serializers.ChoiceField(FeeTiming.choices)
    service_start = InstantField()
    service_end = InstantField()
    due_at = InstantField()
    amount = ExactDecimalField()
    explanation = serializers.CharField()


class TrueUpAnswer(serializers.Serializer[Any]):
    plan = KeyField()
    version = serializers.IntegerField()
    price = KeyField(allow_null=True, help_text="Null for the minimum spend of the plan version.")
    row = serializers.IntegerField(allow_null=True)
    minimum = ExactDecimalField(help_text="In the price's unit.")
    amount = ExactDecimalField()
    projected = serializers.BooleanField(help_text="The period still runs: what is due if nothing more is used.")
    expected = ExactDecimalField(
        allow_null=True, help_text="What will be due if usage goes on as forecast; null without a forecast."
    )
    explanation = serializers.CharField()


class DiscountAnswer(serializers.Serializer[Any]):
    coupon = KeyField()
    name = serializers.CharField()
    percent = ExactDecimalField(allow_null=True)
    amount = ExactDecimalField(help_text="Of what grants leave to pay.")


class AppliedAnswer(serializers.Serializer[Any]):
    grant = serializers.CharField()
    unit = serializers.CharField()
    amount = ExactDecimalField()


class TotalsAnswer(serializers.Serializer[Any]):
    unit = serializers.CharField()
    usage = ExactDecimalField()
    fees = ExactDecimalField()
    true_ups = ExactDecimalField()
    late_adjustments = ExactDecimalField()
    discounts = ExactDecimalField()
    credits_applied = ExactDecimalField()
    tax = ExactDecimalField()
    rounding = ExactDecimalField()
    amount_due = ExactDecimalField(help_text="In a unit that is no currency: what was used beyond the grants.")


class BridgeRowAnswer(TotalsAnswer):
    unexplained = ExactDecimalField(help_text="amount_due less all the others; anything but 0 is a fault.")


class PeriodAnswer(serializers.Serializer[Any]):
    customer = KeyField()
    subscription = serializers.CharField()
    plan = KeyField()
    version = serializers.IntegerField()
    period_status = serializers.ChoiceField(PeriodStatus.choices)
    period_start = InstantField()
    period_end = InstantField()
    timezone = serializers.CharField()
    as_of = InstantField(help_text="Everything acknowledged before it is counted.")
    settled_through = InstantField(allow_null=True)


class ClosingAnswer(serializers.Serializer[Any]):
    lines = LineAnswer(many=True)
    rounding = ExactDecimalField()
    amount_due = ExactDecimalField()
    totals = TotalsAnswer(many=True, help_text="One per unit.")


class ExpectedAnswer(serializers.Serializer[Any]):
    usage = ExactDecimalField()
    true_ups = ExactDecimalField()
    amount_due = ExactDecimalField()
    low = ExactDecimalField(help_text="Amount due at the low end of the forecast.")
    high = ExactDecimalField(help_text="Amount due at its high end.")
    method = serializers.CharField(help_text="How the forecast was made.")


class UpcomingAnswer(PeriodAnswer):
    unit = serializers.CharField(help_text="The plan's currency; lines and credits may have units of their own.")
    lines = LineAnswer(many=True)
    fees = FeeAnswer(many=True)
    true_ups = TrueUpAnswer(many=True)
    discounts = DiscountAnswer(many=True)
    credits = AppliedAnswer(many=True)
    tax = ExactDecimalField()
    rounding = ExactDecimalField(help_text="What whole minor units add to or take from exact amounts.")
    amount_due = ExactDecimalField()
    totals = TotalsAnswer(many=True, help_text="One per unit; amounts add up to `amount_due`.")
    expected = ExpectedAnswer(
        allow_null=True,
        help_text="At the end of the period if usage goes on as forecast, in its unit. Null where no true-up is "
        "projected, or there is no forecast.",
    )
    closing = ClosingAnswer(
        allow_null=True,
        help_text="Of a subscription that has ended: late adjustments since its last period was closed, which are not "
        "in the amounts above. Another subscription in the currency takes them over.",
    )


class BridgeAnswer(PeriodAnswer):
    data = BridgeRowAnswer(many=True)  # type: ignore[assignment]  # a field hides an attribute of serializers


class UpcomingInvoiceView(ApiView):
    """What the open billing period comes to so far."""

    own_errors = (404,)
    customer_key_may_read = True

    @extend_schema(operation_id="upcoming_invoice_retrieve", parameters=[UpcomingQuery], responses=UpcomingAnswer)
    def get(self, request: Request, key: str) -> Response:
        """The statement of the open period: each line with its arithmetic, fees, projected true-ups, credits applied,
        rounding and the amount due. 404 `no_subscription` for a customer without an active one."""
        customer = customer_or_404(request, key)
        at = now(customer)
        asked = read_query(request, UpcomingQuery)
        with snapshot():
            stamps = _stamps(customer)
            period = _open_period(customer, asked.get("subscription"), at)
            found = period_statement(period, at=at)
            closing = closing_statement(period.subscription)
            ahead = projection(found)
        shown = {**shown_period(period), **stamps, **shown_statement(found, ahead)}
        return Response({**shown, "expected": _shown_expected(ahead), "closing": shown_closing(closing)})


class BridgeView(ApiView):
    """From usage to the amount due."""

    own_errors = (404,)
    customer_key_may_read = True

    @extend_schema(operation_id="bridge_retrieve", parameters=[BridgeQuery], responses=BridgeAnswer)
    def get(self, request: Request, key: str) -> Response:
        """Per unit: usage + fees + true_ups + late_adjustments - discounts - credits_applied + tax + rounding +
        unexplained = amount_due. Usage is read from the series, credits from the ledger, the others from the
        statement; `unexplained` is what they leave open."""
        customer = customer_or_404(request, key)
        at = now(customer)
        asked = read_query(request, BridgeQuery)
        with snapshot():
            stamps = _stamps(customer)
            period = _period(customer, asked.get("subscription"), asked.get("period"), at)
            found = bridges(period_statement(period, at=at))
        return Response({**shown_period(period), **stamps, "data": list(map(shown_bridge, found))})


def _stamps(customer: Customer) -> dict[str, str | None]:
    """Read before the numbers, so that they hold at least what these promise."""
    settled = settled_through(customer)
    return {
        "as_of": plain_instant(counted_through(customer)),
        "settled_through": None if settled is None else plain_instant(settled),
    }


# --- which period -----------------------------------------------------------------------------------------------


def _subscription(customer: Customer, public_id: str | None) -> Subscription | None:
    if public_id is None:
        return None
    found = subscriptions(customer).filter(public_id=public_id).first() if "\0" not in public_id else None
    if found is None:
        raise not_found("subscription")
    return found


def _open_period(customer: Customer, public_id: str | None, at: datetime) -> BillingPeriod:
    period = current_period(customer, at, _subscription(customer, public_id))
    if period is None:
        raise ApiError("no_subscription", _NO_SUBSCRIPTION, 404)
    return period


def _period(customer: Customer, public_id: str | None, when: str | None, at: datetime) -> BillingPeriod:
    if when is None:
        return _open_period(customer, public_id, at)
    period = period_on(customer, _moment(when), _subscription(customer, public_id))
    if period is None:
        raise not_found("billing period")
    return period


def _moment(text: str) -> date | datetime:
    try:
        return date.fromisoformat(text) if len(text) == len("2026-11-01") else read_instant(text)
    except ValueError:
        detail = "Send a day such as 2026-11-01, or an instant with an offset; write + as %2B in an address."
        raise invalid("period", detail) from None


# --- answers ----------------------------------------------------------------------------------------------------


def shown_period(period: BillingPeriod) -> dict[str, Any]:
    return {
        "customer": period.customer.key,
        "subscription": period.subscription.public_id,
        **_shown_version(period.version),
        "period_status": period.status,
        "period_start": plain_instant(period.starts_at),
        "period_end": plain_instant(period.ends_at),
        "timezone": period.timezone,
    }


def _shown_version(version: PlanVersion) -> dict[str, Any]:
    return {"plan": version.plan.key, "version": version.number}


def shown_statement(found: PeriodStatement, ahead: Projection | None = None) -> dict[str, Any]:
    main = found.main
    return {
        "unit": main.unit,
        "lines": [
            *(_shown_line(row) for one in found.units for row in one.usage_rows),
            *(_shown_late(row) for one in found.units for row in one.late_rows),
        ],
        "fees": list(map(_shown_fee, main.fee_rows)),
        "true_ups": [_shown_true_up(row, found.runs, ahead) for row in main.true_up_rows],
        "discounts": list(map(_shown_discount, main.discount_rows)),
        "credits": list(map(_shown_applied, found.applied)),
        "tax": plain(main.tax),
        "rounding": plain(main.rounding),
        "amount_due": plain(main.amount_due),
        "totals": [{"unit": one.unit, **_shown_totals(one)} for one in found.units],
    }


def _shown_expected(ahead: Projection | None) -> dict[str, str] | None:
    if ahead is None:
        return None
    low, high = sorted((ahead.low.amount_due, ahead.high.amount_due))
    return {
        "usage": plain(ahead.expected.usage),
        "true_ups": plain(ahead.expected.true_ups),
        "amount_due": plain(ahead.expected.amount_due),
        "low": plain(low),
        "high": plain(high),
        "method": ahead.forecast.method,
    }


def shown_closing(found: Sequence[Statement[Source]]) -> dict[str, Any] | None:
    if not found:
        return None
    return {
        "lines": [_shown_late(row) for one in found for row in one.late_rows],
        "rounding": plain(found[0].rounding),
        "amount_due": plain(found[0].amount_due),
        "totals": [{"unit": one.unit, **_shown_totals(one)} for one in found],
    }


def _shown_line(row: Row[Source]) -> dict[str, Any]:
    line = row.source.line if isinstance(row.source, Overage) else row.source
    assert isinstance(line, Line)
    return {
        "price": line.price.key,
        "row": line.row,
        "meter": line.meter.key,
        **_shown_version(line.segment.version),
        "service_start": plain_instant(line.segment.starts_at),
        "service_end": plain_instant(line.segment.ends_at),
        **(_shown_overage(row, row.source) if isinstance(row.source, Overage) else _shown_usage(line)),
        "rounded": plain(row.rounded),
        "credits_applied": plain(row.credits),
    }


def _shown_late(row: Row[Source]) -> dict[str, Any]:
    assert isinstance(row.source, Late)
    billed = row.source.billed
    return {
        "kind": "late_adjustment",
        "price": billed.price.key,
        "row": billed.row,
        "meter": billed.price.meter.key,
        **_shown_version(billed.segment.version),
        "service_start": plain_instant(billed.segment.starts_at),
        "service_end": plain_instant(billed.segment.ends_at),
        "quantity": plain(billed.beyond if row.source.is_overage else billed.quantity),
        "unit": billed.segment.version.plan.currency if row.source.is_overage else billed.unit,
        "amount": plain(row.amount),
        "breakdown": [],
        "explanation": explanation(row),
        "rounded": plain(row.rounded),
        "credits_applied": plain(row.credits),
    }


def _shown_usage(line: Line) -> dict[str, Any]:
    return {"kind": "usage", "quantity": plain(line.quantity), **shown_rated(line.rated, line.unit)}


def _shown_overage(row: Row[Source], source: Overage) -> dict[str, Any]:
    return {
        "kind": "overage",
        "quantity": plain(source.credits),
        "unit": source.line.segment.version.plan.currency,
        "amount": plain(row.amount),
        "breakdown": [],
        "explanation": explanation(row),
    }


def _shown_fee(row: Row[Source]) -> dict[str, Any]:
    fee = row.source
    assert isinstance(fee, Fee)
    return {
        **_shown_version(fee.version),
        "base_fee_timing": fee.version.base_fee_timing,
        "service_start": plain_instant(fee.starts_at),
        "service_end": plain_instant(fee.ends_at),
        "due_at": plain_instant(fee.due_at),
        "amount": plain(row.amount),
        "explanation": explanation(row),
    }


def _shown_true_up(row: Row[Source], projected: bool, ahead: Projection | None) -> dict[str, Any]:
    source = row.source
    line = source.line if isinstance(source, RowMinimum) else None
    assert not isinstance(source, Line | Overage | Fee | Late)
    return {
        **_shown_version(source.version),
        "price": line.price.key if line else None,
        "row": line.row if line else None,
        "minimum": plain(source.minimum),
        "amount": plain(row.amount),
        "projected": projected,
        "expected": None if ahead is None else plain(ahead.true_up(row)),
        "explanation": explanation(row),
    }


def _shown_discount(discount: Discount[int]) -> dict[str, Any]:
    offer = discount.offer
    return {
        "coupon": offer.key,
        "name": offer.name,
        "percent": None if offer.percent is None else plain(offer.percent),
        "amount": plain(discount.amount),
    }


def _shown_applied(applied: Applied) -> dict[str, Any]:
    return {"grant": applied.grant.public_id, "unit": applied.grant.unit, "amount": plain(applied.amount)}


def _shown_totals(found: Statement[Source] | Bridge) -> dict[str, str]:
    return {
        "usage": plain(found.usage),
        "fees": plain(found.fees),
        "true_ups": plain(found.true_ups),
        "late_adjustments": plain(found.late_adjustments),
        "discounts": plain(found.discounts),
        "credits_applied": plain(found.credits_applied),
        "tax": plain(found.tax),
        "rounding": plain(found.rounding),
        "amount_due": plain(found.amount_due),
    }


def shown_bridge(found: Bridge) -> dict[str, str]:
    return {"unit": found.unit, **_shown_totals(found), "unexplained": plain(found.unexplained)}


urlpatterns = [
    path("customers/<str:key>/upcoming-invoice", UpcomingInvoiceView.as_view(), name="api-upcoming-invoice"),
    path("customers/<str:key>/bridge", BridgeView.as_view(), name="api-bridge"),
]
