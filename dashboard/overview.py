"""What the overview shows: plain values that the view gathers and the template prints. No queries here.

Amounts are exact Decimals in the overview's `unit` unless a field names its own. Instants are aware; the view
activates the customer's zone, because a page prints one zone. Percents are 0-100 and may exceed 100.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Freshness:
    """What was recorded before `data_to` is in the numbers; `delayed`: that is longer ago than promised."""

    data_to: datetime
    delayed: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """One "Alert at" of the budget, as it was set ("80 %" or "$1,900.00"), what percent that is, and since when it is
    crossed in this period."""

    text: str
    percent: Decimal
    fired_at: datetime | None


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget in the present billing period. `left` is negative when the budget is exceeded."""

    id: str
    name: str
    unit: str
    amount: Decimal
    used: Decimal
    left: Decimal
    percent: Decimal
    thresholds: tuple[Threshold, ...]
    stop_at: str  # in words; empty where it only warns
    recipients: tuple[str, ...]

    @property
    def distance(self) -> Decimal:
        """How far from the budget, above or below: the sign is said in words."""
        return abs(self.left)

    @property
    def marks(self) -> list[Decimal]:
        return [threshold.percent for threshold in self.thresholds]

    @property
    def near(self) -> bool:
        return any(threshold.fired_at for threshold in self.thresholds)


@dataclass(frozen=True, slots=True)
class AlertView:
    """A threshold that was crossed in this period. `limit` is the budget's amount at that moment."""

    id: str
    budget: str
    text: str
    value: Decimal
    limit: Decimal
    fired_at: datetime


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where the period will end: the 80 % range. `crosses_at` is when the budget would be reached, if it would."""

    low: Decimal
    high: Decimal
    crosses_at: datetime | None


@dataclass(frozen=True, slots=True)
class GrantView:
    """`usable_from` only while that is to come."""

    name: str
    amount: Decimal
    remaining: Decimal
    usable_from: datetime | None
    expires_at: datetime | None

    @property
    def percent(self) -> Decimal:
        return self.remaining * 100 / self.amount if self.amount else Decimal(0)

    @property
    def last_moment(self) -> datetime | None:
        """The end of its last day, so that what lapses at midnight is dated as the billing period is."""
        return self.expires_at and self.expires_at - timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class CreditsView:
    """What can still be drawn in one unit, what was used beyond it (`overage`), and when it is gone at the
    pace of the last days, with what comes by then if it `grows`. `grants` in burn order; `next_expiry` is the first to
    lapse."""

    unit: str
    available: Decimal
    overage: Decimal
    runs_out_at: datetime | None
    grows: bool
    grants: tuple[GrantView, ...]

    @property
    def next_expiry(self) -> GrantView | None:
        lapsing = [grant for grant in self.grants if grant.expires_at and grant.remaining > 0]
        return min(lapsing, key=lambda grant: grant.expires_at, default=None)


@dataclass(frozen=True, slots=True)
class DayRow:
    """One day of the period, in the customer's zone; the last one is still running."""

    start: datetime
    amount: Decimal
    cumulative: Decimal


@dataclass(frozen=True, slots=True)
class Quantity:
    amount: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class ShareRow:
    """One model or key. `name` is None where events carried no such property."""

    name: str | None
    amount: Decimal
    percent: Decimal
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """`rows` by amount, largest first; `rest` sums the others; both together equal `total`."""

    title: str
    label: str
    rows: tuple[ShareRow, ...]
    rest: ShareRow | None
    total: Decimal


@dataclass(frozen=True, slots=True)
class Overview:
    """One reading of one customer's billing period; every part was read under the same watermark (`version`).

    `ended`: the period is past, so nothing is expected of it any more.
    """

    version: str
    freshness: Freshness
    unit: str
    timezone: str
    period_start: datetime
    period_end: datetime
    ended: bool
    plan: str | None
    used: Decimal
    budget: BudgetView | None
    alerts: tuple[AlertView, ...]
    forecast: Forecast | None
    credits: tuple[CreditsView, ...]
    days: tuple[DayRow, ...]
    breakdowns: tuple[Breakdown, ...]

    @property
    def has_usage(self) -> bool:
        return bool(self.days) or self.used != 0
