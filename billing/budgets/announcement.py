"""What a mail about a budget says: facts as text, frozen when the threshold was crossed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from django.conf import settings

from billing import money
from billing.budgets import queries
from billing.budgets.models import Alert, Budget, Threshold
from billing.subscriptions.models import BillingPeriod

KIND: Final = "budget_threshold"
_TOP: Final = 3
_DIMENSIONS: Final = 2
_DIMENSION_NAMES: Final = {"api_key": "API key"}
_SHOWN: Final = 16  # characters of a key's name: enough for a name, too few for a secret

type Occasion = Literal["crossed", "already_above", "test"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is announced. `alerts`: the highest first; none for a test."""

    occasion: Occasion
    budget: Budget
    period: BillingPeriod
    value: Decimal
    as_of: datetime
    alerts: Sequence[Alert] = ()


def context(facts: Facts) -> dict[str, Any]:
    """The mail's template context, JSON-safe: every value is a string, a list of strings or a boolean."""
    budget, customer, unit = facts.budget, facts.budget.customer, facts.budget.unit
    left = money.CONTEXT.subtract(budget.amount, facts.value)
    levels = [level_text(alert.threshold, unit) for alert in facts.alerts]
    return {
        "customer": customer.name,
        "budget": budget.name,
        "headline": _headline(facts, levels),
        "period": period_text(facts.period),
        "value": money.display(facts.value, unit),
        "limit": money.display(budget.amount, unit),
        "percent": f"{money.plain(queries.percent_of(facts.value, budget.amount))} %",
        "exceeded": left < 0,
        "left": money.display(left.copy_abs(), unit),
        "also": levels[1:],
        "happens": _what_happens(facts),
        "pace": _pace(facts),
        "contributors": _contributors(facts),
        "as_of": instant_text(facts.as_of, facts.period.timezone),
        "alert": facts.alerts[0].public_id if facts.alerts else "",
        "rule": levels[0] if levels else "",
        "url": budget_url(budget),
    }


def _what_happens(facts: Facts) -> str:
    """Whether calls go on."""
    level = queries.stop_level(facts.budget)
    if level is None:
        return "Nothing is stopped: this budget only warns. Calls keep running at 100 % and beyond."
    limit = money.display(level, facts.budget.unit)
    if facts.value >= level:
        return f"The stop at {limit} is reached: calls that ask before they run are denied. What runs is still counted."
    return f"Calls keep running up to the stop at {limit}. Beyond it those that ask before they run are denied."


def _headline(facts: Facts, levels: Sequence[str]) -> str:
    name = f'budget "{facts.budget.name}"'
    match facts.occasion:
        case "crossed":
            return f"{levels[0]} of {name} used"
        case "already_above":
            return f"Already above {levels[0]} of {name}"
        case "test":
            return f"Test of {name}"


def level_text(threshold: Threshold, unit: str) -> str:
    """The threshold as it was given: "80 %", "$1,900.00"."""
    if threshold.percent is not None:
        return f"{money.plain(threshold.percent)} %"
    return money.display(threshold.amount or money.ZERO, unit)


def period_text(period: BillingPeriod) -> str:
    """For instance "1 Nov 2026 to 30 Nov 2026 (Europe/Berlin)": the days that it covers, the last one included."""
    zone = ZoneInfo(period.timezone)
    first, last = period.starts_at.astimezone(zone), (period.ends_at - timedelta(microseconds=1)).astimezone(zone)
    return f"{first:%-d %b %Y} to {last:%-d %b %Y} ({period.timezone})"


def instant_text(at: datetime, zone: str) -> str:
    """For instance "21 Nov 2026, 14:03:12 CET"."""
    return f"{at.astimezone(ZoneInfo(zone)):%-d %b %Y, %H:%M:%S %Z}"


def budget_url(budget: Budget) -> str:
    """Its card on the page of the customer's budgets."""
    return f"{settings.BASE_URL}/c/{budget.customer.key}/budget#{budget.public_id}"


def _pace(facts: Facts) -> str:
    """Where this is heading, for instance "limit reached about Thu 26 Nov; period end about $2,090 to $2,340"."""
    budget, period = facts.budget, facts.period
    ahead = queries.outlook(budget.customer, unit=budget.unit, period=period, spent=facts.value, as_of=facts.as_of)
    if ahead is None or ahead.low is None or ahead.high is None:
        return ""
    low, high = (money.about(_about(amount), budget.unit) for amount in (ahead.low, ahead.high))
    end = f"period end about {low} to {high}" if low != high else f"period end about {low}"
    crosses_at = ahead.crosses_at(budget.amount)
    if facts.value >= budget.amount:
        return end
    if crosses_at is None:
        return f"the budget lasts; {end}"
    return f"limit reached about {crosses_at.astimezone(ZoneInfo(period.timezone)):%a %-d %b}; {end}"


def _about(amount: Decimal) -> Decimal:
    """Three digits: more would promise what a forecast cannot keep."""
    return amount.quantize(Decimal(1).scaleb(amount.adjusted() - 2), context=money.CONTEXT) if amount else amount


def _contributors(facts: Facts) -> list[dict[str, Any]]:
    """For each of two dimensions the three largest parts of the spend, with their share of it."""
    if facts.value <= 0:
        return []
    split = ((dimension, _largest(facts, dimension)) for dimension in _dimensions(facts.period))
    found = islice(((dimension, rows) for dimension, rows in split if rows), _DIMENSIONS)
    return [{"dimension": _DIMENSION_NAMES.get(dimension, dimension), "rows": rows} for dimension, rows in found]


def _dimensions(period: BillingPeriod) -> Iterable[str]:
    """What the priced meters are split by; model and key first, because people ask for them first."""
    split = period.version.prices.values_list("meter__dimensions", flat=True)
    names = {name for dimensions in split for name in dimensions}
    return sorted(names, key=lambda name: (name != "model", name != "api_key", name))


def _largest(facts: Facts, dimension: str) -> list[dict[str, str]]:
    budget = facts.budget
    rows = queries.spend_by(budget.customer, unit=budget.unit, period=facts.period, group_by=(dimension,))
    named = [(name, row.amount) for row in rows if (name := row.group.get(dimension)) is not None and row.amount > 0]
    largest = sorted(named, key=lambda one: (-one[1], one[0]))[:_TOP]
    return [
        {
            "name": _name(dimension, name),
            "amount": money.display(amount, budget.unit),
            "share": f"{money.plain(queries.percent_of(amount, facts.value))} %",
        }
        for name, amount in largest
    ]


def _name(dimension: str, value: str) -> str:
    """The value as shown. A mail carries no secrets, and what a vendor calls a key may be one."""
    hidden = "key" in dimension and len(value) > _SHOWN
    return f"{value[: _SHOWN // 2]}…" if hidden else value
