"""What usage costs the vendor: the cost catalogue. Amounts hold from an instant on and are never rewritten."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

from billing.metering.models import Meter
from billing.money import is_currency, mul_div
from billing.periods import QUARTER, Interval, quarter_floor
from billing.pricing.models import UnitCost
from billing.pricing.schemes import Dimensions, Row, Terms, normalise_where, select_row
from billing.pricing.services import refusal
from billing.pricing.spec import MatchSpec, PriceSpec, amount_problems
from billing.pricing.validation import Problem


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

    It replaces what was said of the same `where` from the quarter hour of `effective_at` on. Raises ValidationError by
    field.
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
    return cost


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

    def of(self, quantity: Decimal, dimensions: Dimensions) -> tuple[str, Decimal] | None:
        """Currency and amount; None where nobody said what this usage costs."""
        cost = self.costs[select_row(self.terms, dimensions)]
        return None if cost is None else (cost.currency, mul_div(quantity, cost.unit_amount, cost.per))


def cost_terms(meter_ids: Collection[int], interval: Interval) -> dict[int, list[CostTerms]]:
    """By meter, in time order: what holds at the interval's start, and every change within it. One query.

    A meter without any costs in it is left out.
    """
    rows = UnitCost.objects.filter(meter__in=meter_ids, effective_at__lt=interval.end).order_by("effective_at", "id")
    found: dict[int, list[CostTerms]] = {}
    for meter_id, costs in groupby(sorted(rows, key=lambda cost: cost.meter_id), key=lambda cost: cost.meter_id):
        latest: dict[Hashable, UnitCost] = {}
        phases: dict[datetime, CostTerms] = {}
        for cost in costs:
            latest[_condition(cost)] = cost
            starts_at = max(cost.effective_at, interval.start)
            phases[starts_at] = _terms(starts_at, latest.values())
        found[meter_id] = list(phases.values())
    return found


def _condition(cost: UnitCost) -> Hashable:
    return frozenset(normalise_where(cost.where).items())


def _terms(starts_at: datetime, costs: Iterable[UnitCost]) -> CostTerms:
    general = next((cost for cost in costs if not cost.where), None)
    special = [cost for cost in costs if cost.where]
    rows = tuple(Row(where=normalise_where(cost.where)) for cost in special)
    return CostTerms(starts_at, Terms("cost", "", Row(), rows), [general, *special])


def _in_force(meter: Meter, at: datetime) -> list[UnitCost]:
    found = cost_terms([meter.pk], Interval(at, at + QUARTER)).get(meter.pk)
    return [cost for cost in found[0].costs if cost] if found else []
