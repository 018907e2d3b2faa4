"""Questions about budgets: how much is used, what has fired, who is told."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import dropwhile
from typing import Final

from django.db.models import Min, Prefetch, QuerySet

from accounts.models import Customer
from billing import money
from billing.budgets import evaluation
from billing.budgets.evaluation import Direction
from billing.budgets.forecast import Forecast, forecast
from billing.budgets.models import Alert, AlertDirection, Budget, Threshold
from billing.budgets.recipients import addresses
from billing.credits import queries as credits
from billing.metering import queries as metering
from billing.metering.counter_models import DimensionSet
from billing.periods import Interval
from billing.pricing import queries as pricing
from billing.rating.queries import SeriesRow
from billing.subscriptions import queries as subscriptions
from billing.subscriptions.models import BillingPeriod, PeriodStatus

_HOUR: Final = timedelta(hours=1)
_HISTORY: Final = timedelta(weeks=12)
_MOST_SETS: Final = 50  # an alert is written inside the tick, and this many already take seconds

type History = Mapping[int, Collection[tuple[int, Direction]]]
type Histories = Mapping[tuple[int, datetime], History]


@dataclass(frozen=True, slots=True)
class ThresholdStatus:
    """A threshold in one period: what it comes to, and the alert that it gave, if it is still crossed."""

    threshold: Threshold
    level: Decimal
    alert: Alert | None

    @property
    def fired_at(self) -> datetime | None:
        return self.alert.created_at if self.alert else None


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget in the current billing period. `left` is negative once it is exceeded; `percent` may pass 100.
    `thresholds`: lowest level first."""

    budget: Budget
    period: BillingPeriod
    value: Decimal
    left: Decimal
    percent: Decimal
    thresholds: tuple[ThresholdStatus, ...]


@dataclass(frozen=True, slots=True)
class Outlook:
    """The forecast in one unit, and the budgets that it concerns."""

    unit: str
    forecast: Forecast
    budgets: tuple[Budget, ...]


def budgets(customer: Customer) -> QuerySet[Budget]:
    """The customer's budgets in the order they were made."""
    return with_thresholds(Budget.objects.filter(customer=customer))


def with_thresholds(found: QuerySet[Budget]) -> QuerySet[Budget]:
    """Those that are not archived. Their `thresholds.all()` are those that count, in the order they were made."""
    counting = Prefetch("thresholds", Threshold.objects.filter(archived_at=None))
    return found.filter(archived_at=None).select_related("customer").prefetch_related(counting)


def stops(customer: Customer) -> list[Budget]:
    """The budgets that stop, by id."""
    return list(
        Budget.objects.filter(customer=customer, archived_at=None, stop_at_percent__isnull=False).order_by("pk")
    )


def stop_level(budget: Budget) -> Decimal | None:
    """The amount beyond which authorizations are denied; None for a budget that only warns."""
    if budget.stop_at_percent is None:
        return None
    return evaluation.level(budget.amount, percent=budget.stop_at_percent)


def recipients(budget: Budget) -> list[str]:
    """The e-mail addresses that its alerts go to."""
    return addresses(budget.customer, budget.recipients)


def used(customer: Customer, *, unit: str, period: BillingPeriod) -> Decimal:
    """The spend that counts against a budget: gross, before grants, coupons and tax."""
    return credits.spend(customer, unit=unit, interval=Interval(period.starts_at, period.ends_at))


def spend_by(customer: Customer, *, unit: str, period: BillingPeriod, group_by: Sequence[str] = ()) -> list[SeriesRow]:
    """The same spend in its parts, one row for each group."""
    return credits.spend_series(customer, edges=[period.starts_at, period.ends_at], unit=unit, group_by=group_by)


def percent_of(value: Decimal, limit: Decimal) -> Decimal:
    """In tenths of a percent, rounded down: 79.99 % must not look like 80."""
    exact = money.mul_div(value, Decimal(100), limit)
    return exact.quantize(Decimal("0.1"), ROUND_DOWN, context=money.CONTEXT)


def status(customer: Customer, at: datetime) -> list[BudgetStatus]:
    """Each budget in the current billing period; none without a subscription."""
    period = subscriptions.current_period(customer, at)
    found = list(budgets(customer)) if period else []
    if not period or not found:
        return []
    values = {unit: used(customer, unit=unit, period=period) for unit in {budget.unit for budget in found}}
    standing = standing_alerts(customer, period)
    return [_status(budget, period, values[budget.unit], standing) for budget in found]


def outlooks(customer: Customer, at: datetime) -> list[Outlook]:
    """Where the current billing period will end, in the customer's currency and in each unit of a budget."""
    period = subscriptions.current_period(customer, at)
    if period is None:
        return []
    as_of = metering.counted_through(customer)
    mine = list(budgets(customer))
    found = []
    for unit in sorted({customer.currency, *(budget.unit for budget in mine)}):
        spent = used(customer, unit=unit, period=period)
        if ahead := outlook(customer, unit=unit, period=period, spent=spent, as_of=as_of):
            found.append(Outlook(unit, ahead, tuple(budget for budget in mine if budget.unit == unit)))
    return found


def outlook(
    customer: Customer, *, unit: str, period: BillingPeriod, spent: Decimal, as_of: datetime
) -> Forecast | None:
    """Where the period will end, from `spent` so far and the hours of up to twelve weeks.

    None for a period that is not running, and for a customer with so many dimension sets that it would take long.
    """
    sets = DimensionSet.objects.filter(customer=customer)[: _MOST_SETS + 1].count()
    if not period.starts_at <= as_of < period.ends_at or sets > _MOST_SETS:
        return None
    hourly = _hourly(customer, unit, as_of)
    whole = Interval(period.starts_at, period.ends_at)
    return forecast(spent=spent, hourly=hourly, period=whole, now=as_of)


def _hourly(customer: Customer, unit: str, as_of: datetime) -> dict[datetime, Decimal]:
    """Spend by the UTC hour, from the first hour with any to the last whole one."""
    first = BillingPeriod.objects.filter(customer=customer).aggregate(first=Min("starts_at"))["first"]
    end = as_of.replace(minute=0, second=0, microsecond=0)
    start = max(end - _HISTORY, first.replace(minute=0))
    edges = [start + _HOUR * hour for hour in range((end - start) // _HOUR + 1)]
    rows = credits.spend_series(customer, edges=edges, unit=unit) if len(edges) > 1 else []
    return {row.start: row.amount for row in dropwhile(lambda row: not row.amount, rows)}


def alerts(customer: Customer | None = None, *, direction: str | None = None) -> QuerySet[Alert]:
    """Alerts of the customer, or of all, newest first, with what they are about."""
    found = Alert.objects.select_related("threshold__budget", "customer").order_by("-id")
    if customer is not None:
        found = found.filter(customer=customer)
    return found.filter(direction=direction) if direction else found


def budgets_of(customer_ids: Collection[int]) -> dict[int, list[Budget]]:
    """The budgets of those customers that have any, as `budgets`. Two queries."""
    found: dict[int, list[Budget]] = defaultdict(list)
    for budget in with_thresholds(Budget.objects.filter(customer__in=customer_ids)):
        found[budget.customer_id].append(budget)
    return found


def judged_periods(customer_ids: Collection[int], at: datetime) -> list[BillingPeriod]:
    """The periods in which a budget may fire: of each customer the current one, then those before it that are not
    closed yet. Two queries."""
    current = {period.subscription_id: period for period in subscriptions.current_periods(customer_ids, at)}
    siblings = BillingPeriod.objects.filter(subscriptions.NOT_EMPTY, subscription__in=current)
    return [
        period
        for period in siblings.exclude(status=PeriodStatus.CLOSED).order_by("customer_id", "-starts_at")
        if period.starts_at <= current[period.subscription_id].starts_at
    ]


def history(periods: Sequence[BillingPeriod]) -> Histories:
    """By customer and start of a period, and by threshold: the epoch and direction of each of its alerts there."""
    rows = Alert.objects.filter(
        customer__in={period.customer_id for period in periods},
        period_start__in={period.starts_at for period in periods},
    )
    found: dict[tuple[int, datetime], dict[int, list[tuple[int, Direction]]]] = defaultdict(lambda: defaultdict(list))
    for customer, start, threshold, epoch, direction in rows.values_list(
        "customer_id", "period_start", "threshold_id", "epoch", "direction"
    ):
        fired = direction == AlertDirection.FIRED
        found[customer, start][threshold].append((epoch, "fired" if fired else "resolved"))
    return found


def read_spend_ahead(periods: Sequence[BillingPeriod]) -> None:
    """Inside `reads.shared`: read what `used` is going to be asked of these periods. Few queries, however many."""
    ranges = [(period.customer_id, period.starts_at, period.ends_at) for period in periods]
    subscriptions.read_periods_ahead(ranges)
    metering.read_totals_ahead(ranges)
    pricing.read_overrides_ahead({period.customer_id for period in periods})


def level(budget: Budget, threshold: Threshold) -> Decimal:
    """What the threshold comes to, in the budget's unit."""
    return evaluation.level(budget.amount, percent=threshold.percent, amount=threshold.amount)


def standing_alerts(customer: Customer, period: BillingPeriod) -> dict[int, Alert]:
    """By threshold: the alert that fired in this period and has not resolved."""
    standing: dict[int, Alert] = {}
    for alert in Alert.objects.filter(customer=customer, period_start=period.starts_at).order_by("id"):
        if alert.direction == AlertDirection.FIRED:
            standing[alert.threshold_id] = alert
        else:
            standing.pop(alert.threshold_id, None)
    return standing


def _status(budget: Budget, period: BillingPeriod, value: Decimal, standing: Mapping[int, Alert]) -> BudgetStatus:
    thresholds = [
        ThresholdStatus(threshold, level(budget, threshold), standing.get(threshold.pk))
        for threshold in budget.thresholds.all()
    ]
    return BudgetStatus(
        budget=budget,
        period=period,
        value=value,
        left=money.CONTEXT.subtract(budget.amount, value),
        percent=percent_of(value, budget.amount),
        thresholds=tuple(sorted(thresholds, key=lambda one: one.level)),
    )
