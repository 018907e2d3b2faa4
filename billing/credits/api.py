"""Spend, credits, the ledger and grants over HTTP."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.clock import now
from billing.credits import queries
from billing.credits.models import GrantKind, LedgerTransaction, TransactionCode
from billing.credits.queries import Balance, GrantBalance
from billing.http import (
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    page_of,
    plain_instant,
    read_query,
)
from billing.metering.queries import counted_through, dimensions
from billing.money import plain, total
from billing.rating.api import SeriesRowAnswer, shown_rows, shown_selection
from billing.rating.selection import PARAMETERS, read_selection
from billing.reads import snapshot

# --- shapes -------------------------------------------------------------------------------------------------


class SpendAnswer(serializers.Serializer[Any]):
    customer = KeyField()
    unit = serializers.CharField(help_text="Of every amount.")
    as_of = InstantField(help_text="Everything acknowledged before it is counted.")
    settled_through = InstantField(allow_null=True)
    timezone = serializers.CharField()
    to = InstantField()
    additive = serializers.BooleanField(help_text="Whether the rows may be added up.")
    total = ExactDecimalField(help_text="Gross: before grants, fees and tax.")
    series = SeriesRowAnswer(many=True)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": InstantField()}  # a word of Python


class GrantBody(StrictSerializer):
    customer = KeyField()
    unit = serializers.CharField(max_length=32, help_text="credits, or a currency for prepaid money.")
    amount = ExactDecimalField()
    kind = serializers.ChoiceField(GrantKind.values)
    priority = serializers.IntegerField(default=50, min_value=0, max_value=32767, help_text="Lower is spent first.")
    effective_at = InstantField(required=False, help_text="Rounded down to a quarter hour; now when absent.")
    expires_at = InstantField(required=False, allow_null=True, help_text="Rounded up to a quarter hour.")
    cost_basis = ExactDecimalField(required=False, allow_null=True, help_text="What one unit was sold for.")
    meters = serializers.ListField(child=KeyField(), default=list, help_text="The only meters it pays for.")
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)


class GrantAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    customer = KeyField()
    unit = serializers.CharField()
    kind = serializers.ChoiceField(GrantKind.choices)
    priority = serializers.IntegerField()
    amount = ExactDecimalField()
    adjusted = ExactDecimalField(help_text="What the vendor added later, or took where below zero.")
    rolled_in = ExactDecimalField(help_text="What was left of the grant before.")
    rolled_out = ExactDecimalField(help_text="What went to the next grant when this one ended.")
    used = ExactDecimalField()
    expired = ExactDecimalField()
    voided = ExactDecimalField()
    remaining = ExactDecimalField()
    effective_at = InstantField()
    expires_at = InstantField(allow_null=True)
    voided_at = InstantField(allow_null=True)
    cost_basis = ExactDecimalField(allow_null=True)
    meters = serializers.ListField(child=KeyField())
    reason = serializers.CharField()


class BalanceAnswer(serializers.Serializer[Any]):
    unit = serializers.CharField()
    balance = ExactDecimalField(help_text="Posted: what is left of the grants that are usable.")
    reserved = ExactDecimalField(help_text="Held by open authorizations.")
    unsettled = ExactDecimalField(help_text="Counted but not yet allocated to grants.")
    available = ExactDecimalField(help_text="balance - reserved - unsettled")
    overage = ExactDecimalField(help_text="Used beyond the grants in the open period.")
    runs_out_at = InstantField(allow_null=True, help_text="At the pace of the last seven days.")
    settled_through = InstantField(allow_null=True)
    parked_reason = serializers.CharField(help_text="Why settlement waits; empty when it does not.")
    grants = GrantAnswer(many=True)


class EntryAnswer(serializers.Serializer[Any]):
    account = serializers.CharField(help_text="issued, grant, consumed, overage, expired or voided.")
    grant = serializers.CharField(allow_null=True)
    direction = serializers.ChoiceField(["debit", "credit"])
    unit = serializers.CharField()
    amount = ExactDecimalField()
    price = KeyField(allow_null=True, help_text="Whose usage caused it.")
    segment_starts_at = InstantField(allow_null=True)


class TransactionAnswer(serializers.Serializer[Any]):
    id = serializers.CharField()
    code = serializers.ChoiceField(TransactionCode.choices)
    effective_at = InstantField()
    recorded_at = InstantField()
    entries = EntryAnswer(many=True)


class CreditsQuery(StrictSerializer):
    at = InstantField(required=False)


class LedgerQuery(StrictSerializer):
    to = InstantField(required=False)
    code = serializers.ChoiceField(TransactionCode.choices, required=False)

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": InstantField(required=False)}  # a word of Python


# --- views --------------------------------------------------------------------------------------------------


class SpendView(ApiView):
    """What a customer spent."""

    own_errors = (422,)
    customer_key_may_read = True

    @extend_schema(
        operation_id="spend_retrieve",
        parameters=[OpenApiParameter("unit", str, description="Default: the customer's currency."), *PARAMETERS],
        responses=SpendAnswer,
    )
    def get(self, request: Request, key: str) -> Response:
        """Rated usage and credit overage in buckets of the customer's zone; may be grouped by price and meter too."""
        customer = customer_or_404(request, key)
        unit = request.query_params.get("unit") or customer.currency
        chosen = read_selection(
            request,
            customer,
            at=now(customer),
            dimensions=dimensions(),
            names=("price", "meter"),
            own=("unit",),
        )
        with snapshot():
            as_of, settled_through = counted_through(customer), queries.settled_through(customer)
            rows = queries.spend_series(
                customer, edges=chosen.edges, unit=unit, group_by=chosen.group_by, filters=chosen.filters
            )
        return Response(
            {
                "customer": customer.key,
                "unit": unit,
                "as_of": plain_instant(as_of),
                "settled_through": _instant(settled_through),
                **shown_selection(chosen),
                "additive": True,
                "total": plain(total(row.amount for row in rows)),
                "series": shown_rows(rows),
            }
        )


class CreditsView(ApiView):
    """A customer's balances."""

    customer_key_may_read = True
    balances: ClassVar[Callable[..., list[Balance]]] = staticmethod(queries.balances)

    @extend_schema(
        operation_id="credits_retrieve",
        parameters=[
            OpenApiParameter("at", str, description="As the books stood, or will stand, then; now when absent.")
        ],
        responses=inline_serializer("Credits", {"data": BalanceAnswer(many=True)}),
    )
    def get(self, request: Request, key: str) -> Response:
        """One balance per unit; grants in the order in which they are spent."""
        customer = customer_or_404(request, key)
        present = now(customer)
        at = read_query(request, CreditsQuery).get("at", present)
        with snapshot():
            found = self.balances(customer, at, recorded_by=at if at < present else None)
        return Response({"data": [shown_balance(balance) for balance in found]})


class LedgerView(ApiView):
    """A customer's ledger."""

    customer_key_may_read = True

    @extend_schema(
        operation_id="ledger_list",
        parameters=[
            OpenApiParameter("from", str, description="By the time of recording."),
            OpenApiParameter("to", str, description="Exclusive."),
            OpenApiParameter("code", str, enum=TransactionCode.values),
        ],
        responses=page_of("Ledger", TransactionAnswer),
    )
    def get(self, request: Request, key: str) -> Response:
        """Transactions with their entries, newest first."""
        customer = customer_or_404(request, key)
        asked = read_query(request, LedgerQuery)
        found = queries.ledger(customer, starts_at=asked.get("from"), ends_at=asked.get("to"), code=asked.get("code"))
        return cursor_page(found, request, serialize=shown_transaction, order=("-id",))


# --- answers ------------------------------------------------------------------------------------------------


def shown_balance(balance: Balance) -> dict[str, Any]:
    return {
        "unit": balance.unit,
        "balance": plain(balance.balance),
        "reserved": plain(balance.reserved),
        "unsettled": plain(balance.unsettled),
        "available": plain(balance.available),
        "overage": plain(balance.overage),
        "runs_out_at": _instant(balance.runs_out_at),
        "settled_through": _instant(balance.settled_through),
        "parked_reason": balance.parked_reason,
        "grants": [shown_grant(item) for item in balance.grants],
    }


def shown_grant(item: GrantBalance) -> dict[str, Any]:
    grant = item.grant
    return {
        "id": grant.public_id,
        "customer": grant.customer.key,
        "unit": grant.unit,
        "kind": grant.kind,
        "priority": grant.priority,
        "amount": plain(grant.amount),
        "adjusted": plain(grant.adjusted),
        "rolled_in": plain(grant.rolled_in),
        "rolled_out": plain(item.rolled_out),
        "used": plain(item.used),
        "expired": plain(item.expired),
        "voided": plain(item.voided),
        "remaining": plain(item.remaining),
        "effective_at": plain_instant(grant.effective_at),
        "expires_at": _instant(grant.expires_at),
        "voided_at": _instant(grant.voided_at),
        "cost_basis": None if grant.cost_basis is None else plain(grant.cost_basis),
        "meters": grant.meters,
        "reason": grant.reason,
    }


def shown_transaction(transaction: LedgerTransaction) -> dict[str, Any]:
    return {
        "id": transaction.public_id,
        "code": transaction.code,
        "effective_at": plain_instant(transaction.effective_at),
        "recorded_at": plain_instant(transaction.recorded_at),
        "entries": [
            {
                "account": entry.account.kind,
                "grant": entry.account.grant.public_id if entry.account.grant else None,
                "direction": entry.direction,
                "unit": entry.account.unit,
                "amount": plain(entry.amount),
                "price": entry.cell.price.key if entry.cell else None,
                "segment_starts_at": plain_instant(entry.cell.segment_starts_at) if entry.cell else None,
            }
            for entry in transaction.entries.all()
        ],
    }


def _instant(at: Any) -> str | None:
    return None if at is None else plain_instant(at)


urlpatterns = [
    path("customers/<str:key>/spend", SpendView.as_view(), name="api-spend"),
    path("customers/<str:key>/ledger", LedgerView.as_view(), name="api-ledger"),
]
