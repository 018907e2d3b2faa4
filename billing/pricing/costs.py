"""What usage costs the vendor: the cost catalogue. Amounts hold from an instant on and are never rewritten."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

from django.db import transaction

from billing.metering import services as metering
from billing.metering.models import Meter
from billing.money import is_currency
from billing.periods import QUARTER, Interval, quarter_floor
from billing.pricing.models import UnitCost
from billing.pricing.schemes import Dimensions, Row, Terms, normalise_where, select_row
from billing.pricing.services import refusal
from billing.pricing.spec import MatchSpec, PriceSpec, amount_problems
from billing.pricing.validation import Problem
from billing.pricing.where import named_values


@transaction.atomic
def record_cost(
    *,
    meter: Meter,
    where: Mapping[str, Any],
    unit_amount: Decimal,
    per: Decimal = Decimal(1),
    currency: str = "USD",
    effective_at: datetime,
    source: str = "",
    at: datetime,
) -> UnitCost:
    """Say what `per` of the meter's quantity costs where dimensions match (an empty `where`: everything else).

    It replaces what was said of the same `where` from the quarter hour of `effective_at` on. The values that it names
    count by themselves from now on, however many others there are. Raises ValidationError by field.
    """
    cost = UnitCost(
        meter=meter,
        where=where,
        unit_amount=unit_amount,
        per=per,
        currency=currency,
        effective_at=quarter_floor(effective_at),
        source=source,
        created_at=at,
    )
    found = list(_problems(cost))
    if found:
        raise refusal(found)
    cost.save(force_insert=True)
    _name_values(meter)
    return cost


def _name_values(meter: Meter) -> None:
    wheres = UnitCost.objects.filter(meter=meter).values_list("where", flat=True)
    named = {pair for where in wheres for pair in named_values(where) if pair[0] in meter.dimensions}
    namings = [(meter.pk, dimension, value) for dimension, value in named]
    metering.name_values(named_by=f"unit costs of {meter.key}", namings=namings)


def _problems(cost: UnitCost) -> Iterator[Problem]:
    meter = cost.meter
    if not meter.is_additive:
        yield Problem("meter", "not_additive", f"A meter that takes the {meter.aggregation} has no cost per unit.")
    if not is_currency(cost.currency):
        yield Problem("currency", "unknown_currency", "Use the three capital letters of an ISO 4217 currency.")
    others = [other for other in _in_force(meter, cost.effective_at) if other.where and other.where != cost.where]
    rows = tuple(MatchSpec(other.where) for other in others)
    new = (MatchSpec(cost.where, cost.unit_amount),) if cost.where else ()
    spec = PriceSpec("cost", meter.key, cost.currency, cost.unit_amount, cost.per, match=(*rows, *new))
    for problem in amount_problems(spec, meter.dimensions):
        yield Problem(problem.field.removeprefix(f"match.{len(rows)}."), problem.code, problem.detail)


@dataclass(frozen=True, slots=True)
class CostTerms:
    """What a meter's usage costs from an instant on."""

    starts_at: datetime
    terms: Terms
    costs: Sequence[UnitCost | None]  # of each row; None where nothing was said of everything else

    def of(self, dimensions: Dimensions) -> UnitCost | None:
        """None where nobody said what this usage costs."""
        return self.costs[select_row(self.terms, dimensions)]

    @property
    def dimensions(self) -> list[str]:
        """By which costs differ."""
        return sorted({name for row in self.terms.match for name in row.where})


def cost_terms(meter_ids: Collection[int], interval: Interval) -> dict[int, list[CostTerms]]:
    """By meter, in time order: what holds at the interval's start, and every change within it. One query.

    A meter without any costs in it is left out.
    """
    rows = UnitCost.objects.filter(meter__in=meter_ids, effective_at__lt=interval.end)
    by_meter = groupby(rows.order_by("meter", "effective_at", "id"), key=lambda cost: cost.meter_id)
    return {meter_id: cost_phases(costs, interval) for meter_id, costs in by_meter}


def cost_phases(costs: Iterable[UnitCost], interval: Interval) -> list[CostTerms]:
    """What holds in the interval, of the costs of one meter; they come in the order in which they take effect."""
    latest: dict[Hashable, UnitCost] = {}
    found = []
    for starts_at, changed in groupby(costs, key=lambda cost: max(cost.effective_at, interval.start)):
        latest |= {_condition(cost.where): cost for cost in changed}
        found.append(_terms(starts_at, latest.values()))
    return found


def cost_in_force(meter: Meter, where: Mapping[str, Any], at: datetime) -> UnitCost | None:
    """What holds at the quarter hour for exactly this condition."""
    return next((cost for cost in _in_force(meter, at) if _condition(cost.where) == _condition(where)), None)


def _condition(where: Mapping[str, Any]) -> Hashable:
    return frozenset(normalise_where(where).items())


def _terms(starts_at: datetime, costs: Collection[UnitCost]) -> CostTerms:
    general = next((cost for cost in costs if not cost.where), None)
    special = [cost for cost in costs if cost.where]
    rows = tuple(Row(where=normalise_where(cost.where)) for cost in special)
    return CostTerms(starts_at, Terms("cost", "", Row(), rows), [general, *special])


def _in_force(meter: Meter, at: datetime) -> list[UnitCost]:
    found = cost_terms([meter.pk], Interval(at, at + QUARTER)).get(meter.pk)
    return [cost for cost in found[0].costs if cost] if found else []
