"""From a reading to what the page shows: pure arithmetic and choice of words."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from zoneinfo import ZoneInfo

from billing import money
from billing.budgets import models as budget_models
from billing.budgets import queries as budgets
from billing.credits.queries import Balance, GrantBalance
from billing.metering import queries as metering
from billing.rating.queries import SeriesRow
from dashboard.overview import (
    AlertView,
    Breakdown,
    BudgetView,
    CreditsView,
    DayRow,
    Forecast,
    Freshness,
    GrantView,
    Overview,
    Quantity,
    ShareRow,
    Threshold,
)
from dashboard.reading import Reading

LATE = timedelta(seconds=10)  # events are counted within two seconds; beyond this the page says that they are not
SHOWN = 8  # rows of a breakdown; the others are summed
LABELS = {"api_key": "key"}

OVERAGE = "overage:"  # begins the `price` of rows that are credit overage

_HUNDRED = Decimal(100)


def overview(reading: Reading) -> Overview:
    """Everything that the page shows."""
    freshness = freshness_view(reading.freshness, reading.timezone)
    return Overview(
        version=version_of(reading.freshness),
        freshness=freshness,
        unit=reading.unit,
        timezone=reading.timezone,
        period_start=reading.local(reading.interval.start),
        period_end=reading.local(reading.interval.end),
        ended=reading.ended,
        plan=reading.period.version.plan.name if reading.period else None,
        used=reading.used,
        budget=budget_view(reading),
        alerts=_alerts(reading),
        forecast=_forecast(reading),
        credits=tuple(_credits(reading, balance) for balance in reading.balances if is_prepaid(balance)),
        days=_days(reading, freshness.data_to) if reading.has_usage else (),
        breakdowns=tuple(_breakdown(reading, dimension) for dimension in reading.dimensions),
    )


# --- freshness ------------------------------------------------------------------------------------------------------


def version_of(freshness: metering.Freshness) -> str:
    """What an open page sends to ask whether it is current. Moves each hour too, for what depends on time alone."""
    return f"{freshness.version}.{freshness.asked_at:%Y%m%d%H}"


def freshness_view(found: metering.Freshness, timezone: str) -> Freshness:
    return Freshness(
        data_to=found.counted_through.astimezone(ZoneInfo(timezone)),
        delayed=found.asked_at - found.counted_through > LATE,
    )


# --- budget and alerts ----------------------------------------------------------------------------------------------


def budget_view(reading: Reading) -> BudgetView | None:
    """The page's budget."""
    budget = reading.budget
    return None if budget is None else view_of_budget(budget, reading.used, reading.standing_alerts)


def view_of_budget(
    budget: budget_models.Budget, used: Decimal, alerts: Mapping[int, budget_models.Alert]
) -> BudgetView:
    """`alerts`: those that stand, by threshold."""
    return BudgetView(
        id=budget.public_id,
        name=budget.name,
        unit=budget.unit,
        amount=budget.amount,
        used=used,
        left=money.CONTEXT.subtract(budget.amount, used),
        percent=budgets.percent_of(used, budget.amount),
        thresholds=_thresholds(budget, alerts),
        stop_at=_stop_text(budget),
        recipients=tuple(budget.recipients),
    )


def _thresholds(budget: budget_models.Budget, alerts: Mapping[int, budget_models.Alert]) -> tuple[Threshold, ...]:
    """Lowest level first."""
    found = [
        Threshold(
            text=_level_text(threshold, budget.unit),
            percent=budgets.percent_of(budgets.level(budget, threshold), budget.amount),
            fired_at=alerts[threshold.pk].created_at if threshold.pk in alerts else None,
        )
        for threshold in budget.thresholds.all()
    ]
    return tuple(sorted(found, key=lambda threshold: threshold.percent))


def _stop_text(budget: budget_models.Budget) -> str:
    level = budgets.stop_level(budget)
    if level is None or budget.stop_at_percent is None:
        return ""
    return f"{money.plain(budget.stop_at_percent)}\N{NO-BREAK SPACE}% ({money.display(level, budget.unit)})"


def _level_text(threshold: budget_models.Threshold, unit: str) -> str:
    """The threshold as it was set."""
    if threshold.percent is not None:
        return f"{money.plain(threshold.percent)}\N{NO-BREAK SPACE}%"
    return money.display(threshold.amount, unit)


def _alerts(reading: Reading) -> tuple[AlertView, ...]:
    """Of the page's budget, the highest level first."""
    budget = reading.budget
    if budget is None:
        return ()
    thresholds = {threshold.pk: threshold for threshold in budget.thresholds.all()}
    standing = [alert for alert in reading.standing_alerts.values() if alert.threshold_id in thresholds]
    return tuple(
        AlertView(
            id=alert.public_id,
            budget=budget.name,
            text=_level_text(thresholds[alert.threshold_id], budget.unit),
            value=alert.value,
            limit=alert.limit,
            fired_at=alert.created_at,
        )
        for alert in sorted(standing, key=lambda alert: (-alert.level, alert.pk))
    )


# --- credits --------------------------------------------------------------------------------------------------------


def is_prepaid(balance: Balance) -> bool:
    """Money that is spent without any grant in it is simply what the invoice will say."""
    return bool(balance.grants) or not money.is_currency(balance.unit)


def _credits(reading: Reading, balance: Balance) -> CreditsView:
    """Grants that have ended are history: the ledger tells of them, this page does not."""
    standing = [each for each in balance.grants if not each.grant.has_ended(reading.at)]
    return CreditsView(
        unit=balance.unit,
        available=balance.available,
        overage=balance.overage,
        runs_out_at=balance.runs_out_at,
        grows=balance.outlook is not None and balance.outlook.grows,
        grants=tuple(_grant(reading, each) for each in standing),
    )


def _grant(reading: Reading, balance: GrantBalance) -> GrantView:
    grant = balance.grant
    return GrantView(
        name=grant.reason or grant.get_kind_display(),
        amount=grant.amount,
        remaining=balance.remaining,
        usable_from=grant.effective_at if grant.effective_at > reading.at else None,
        expires_at=grant.expires_at,
    )


# --- forecast -------------------------------------------------------------------------------------------------------


def _forecast(reading: Reading) -> Forecast | None:
    """The 80 % range, never below what is used by now, and when the expected path reaches the budget."""
    found = reading.forecast
    if found is None or found.low is None or found.high is None:
        return None
    budget = reading.budget
    ahead = budget is not None and reading.used < budget.amount
    return Forecast(
        low=max(found.low, reading.used),
        high=max(found.high, reading.used),
        crosses_at=found.crosses_at(budget.amount) if ahead else None,
    )


# --- spend by day and by dimension ----------------------------------------------------------------------------------


def _days(reading: Reading, data_to: datetime) -> tuple[DayRow, ...]:
    """The days so far. A sender's clock may run ahead: a day to come that has usage is shown as well."""
    cumulative = accumulate((day.amount for day in reading.days), money.CONTEXT.add)
    return tuple(
        DayRow(start=reading.local(day.start), amount=day.amount, cumulative=reached)
        for day, reached in zip(reading.days, cumulative, strict=True)
        if day.start <= data_to or day.amount
    )


def _breakdown(reading: Reading, dimension: str) -> Breakdown:
    """Spend by the values of one dimension: the largest ones, and the others as one row."""
    named: dict[str | None, list[SeriesRow]] = defaultdict(list)
    for row in reading.groups:
        named[_name(row, dimension)].append(row)
    total = money.total(row.amount for row in reading.groups)
    rows = sorted((_share(reading, name, parts, total) for name, parts in named.items()), key=_by_amount)
    label = LABELS.get(dimension, dimension.replace("_", " "))
    shown = len(rows) if len(rows) <= SHOWN + 1 else SHOWN  # a row that says "1 other" would hide for nothing
    rest = [part for row in rows[shown:] for part in named[row.name]]
    return Breakdown(
        title=f"By {label}",
        label=label.capitalize(),
        rows=tuple(rows[:shown]),
        rest=_share(reading, f"{len(rows) - shown} others", rest, total) if rest else None,
        total=total,
    )


def _name(row: SeriesRow, dimension: str) -> str | None:
    """The dimension's value. Credits that were used beyond the grants are charged as a whole and have none."""
    price = row.group["price"] or ""
    return f"{price.removeprefix(OVERAGE)} beyond the grants" if price.startswith(OVERAGE) else row.group[dimension]


def _by_amount(row: ShareRow) -> tuple[Decimal, str]:
    return -row.amount, row.name or ""


def _share(reading: Reading, name: str | None, parts: Sequence[SeriesRow], total: Decimal) -> ShareRow:
    amount = money.total(part.amount for part in parts)
    return ShareRow(
        name=name,
        amount=amount,
        percent=money.mul_div(amount, _HUNDRED, total) if total else Decimal(0),
        quantities=tuple(_quantities(reading, parts)),
    )


def _quantities(reading: Reading, parts: Iterable[SeriesRow]) -> Iterable[Quantity]:
    """What was used, added up by unit: input and output tokens are both tokens."""
    amounts: dict[str, Decimal] = {}
    for part in parts:
        if part.quantity is None:  # overage: its quantity is on the line that used the credits
            continue
        unit = reading.meters[part.group["meter"]].unit
        amounts[unit] = money.CONTEXT.add(amounts.get(unit, Decimal(0)), part.quantity)
    return [Quantity(amount, unit) for unit, amount in amounts.items() if amount]
