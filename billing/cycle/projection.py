"""What a running billing period will come to if usage goes on as the forecast expects: above all how much of a minimum
will still be missing at its end.

The statement itself says what would be due if nothing more were used. Here the usage that the forecast adds is charged
on top, in the plan segment that runs, each line in proportion to what it has cost so far. Prepaid money pays for it as
far as it reaches.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from billing.budgets import queries as budgets
from billing.budgets.forecast import Forecast
from billing.credits.queries import Balance, balances
from billing.credits.statements import Overage, PeriodStatement, RowMinimum, Source, SpendMinimum
from billing.metering.queries import counted_through
from billing.money import CONTEXT, ZERO, mul_div, total
from billing.rating.queries import Line
from billing.rating.statement import Charge, Minimum, Row, Statement, statement
from billing.subscriptions.queries import segments_of


@dataclass(frozen=True, slots=True)
class Projection:
    """The statement at the period's end in the plan's currency: as expected, and at both ends of the forecast."""

    forecast: Forecast
    expected: Statement[Source | None]
    low: Statement[Source | None]
    high: Statement[Source | None]

    def true_up(self, row: Row[Source]) -> Decimal:
        """What is expected to be missing of a minimum."""
        return total(one.amount for one in self.expected.true_up_rows if one.source is row.source)


def projection(found: PeriodStatement) -> Projection | None:
    """None where nothing is projected: the period is over, every minimum is reached, or there is no forecast."""
    if not found.runs or not found.main.true_up_rows:
        return None
    period, unit = found.period, found.main.unit
    as_of = counted_through(period.customer)
    spent = budgets.used(period.customer, unit=unit, period=period)
    forecast = budgets.outlook(period.customer, unit=unit, period=period, spent=spent, as_of=as_of)
    prepaid = prepaid_of(balances(period.customer, found.at), unit)
    return None if forecast is None else projected(found, forecast, prepaid)


def projected(found: PeriodStatement, forecast: Forecast, prepaid: Decimal) -> Projection | None:
    """The same from a forecast of the customer's spend in the plan's currency, and what is left of prepaid money."""
    if forecast.expected is None or forecast.low is None or forecast.high is None:
        return None
    ends = (
        _at_the_end(found, _own(found, CONTEXT.subtract(spend, forecast.spent), forecast.spent), prepaid)
        for spend in (forecast.expected, forecast.low, forecast.high)
    )
    return Projection(forecast, *ends)


def prepaid_of(every: Iterable[Balance], unit: str) -> Decimal:
    """What is left of prepaid money."""
    return max(total(one.available for one in every if one.unit == unit), ZERO)


def _own(found: PeriodStatement, more: Decimal, spent: Decimal) -> Decimal:
    """What of the customer's further spend is this statement's, where another subscription has a part in it."""
    return mul_div(more, min(found.main.usage, spent), spent) if spent > 0 else more


def _at_the_end(found: PeriodStatement, more: Decimal, prepaid: Decimal) -> Statement[Source | None]:
    main, part = found.main, segments_of(found.period)[-1].pk
    usage = [*_charges(main.usage_rows), Charge(None, more, min(more, prepaid), part)]
    return statement(
        main.unit,
        usage=usage,
        fees=_charges(main.fee_rows),
        late=_charges(main.late_rows),
        minimums=_minimums(found, more),
        offers=found.offers,
    )


def _charges(rows: Iterable[Row[Source]]) -> list[Charge[Source | None]]:
    return [Charge(row.source, row.amount, row.credits, row.part) for row in rows]


def _minimums(found: PeriodStatement, more: Decimal) -> Iterator[Minimum[Source | None]]:
    """Those that are not reached yet; usage only adds, so the others stay reached."""
    usage = found.main.usage
    for row in found.main.true_up_rows:
        match row.source:
            case RowMinimum(line=line, minimum=minimum, rate=rate) as source:
                of_line = total(one.amount for one in found.main.usage_rows if _line(one) is line)
                growth = mul_div(more, of_line, usage) if usage else ZERO
                reached = CONTEXT.add(CONTEXT.multiply(line.amount, rate), growth)
                yield Minimum(source, CONTEXT.multiply(minimum, rate), row.part, reached)
            case SpendMinimum(minimum=minimum) as source:
                yield Minimum(source, minimum, row.part)


def _line(row: Row[Source]) -> Line | None:
    source = row.source.line if isinstance(row.source, Overage) else row.source
    return source if isinstance(source, Line) else None
