"""What the pages ask billing about a customer's open period, each question once and all from one state of the database.

All amounts come from the same cumulative rating, cut by days or by groups, so tile, chart, tables and CSV are equal
by construction. The number of queries is fixed: it grows neither with prices, models, keys and days, nor with events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from zoneinfo import ZoneInfo

from django.core.cache import caches

from accounts.models import Customer
from billing import money
from billing.authorizations import queries as holds
from billing.budgets import queries as budgets
from billing.budgets.forecast import Forecast
from billing.budgets.models import Alert, Budget
from billing.credits import queries as credits
from billing.credits.burning import paid_series
from billing.credits.statements import PeriodStatement, Source, closing_statement, period_statement
from billing.cycle.bridge import Bridge, bridges
from billing.cycle.preview import Preview, preview
from billing.cycle.projection import Projection, prepaid_of, projected
from billing.metering import queries as metering
from billing.metering.models import Meter
from billing.periods import QUARTER, Interval, buckets, quarter_floor
from billing.pricing.models import PlanVersion, VersionStatus
from billing.pricing.queries import PriceTerms, listed, spec_of, terms_by_version
from billing.pricing.spec import VersionSpec
from billing.rating.queries import Line, SeriesRow, lines, priced_between
from billing.rating.statement import Statement
from billing.subscriptions import queries as subscriptions
from billing.subscriptions.models import BillingPeriod, PlanSegment

FORECAST_SECONDS = 60
MOST_ALTERNATIVES = 12  # listed plans that are compared
FIRST_DIMENSIONS = ("model", "api_key")  # what people ask for first


@dataclass(frozen=True)
class Reading:
    """A customer at an instant. Attributes are read when they are first asked for, each once.

    Read `freshness` first: a stamp that is older than the numbers promises too little, never too much.
    """

    customer: Customer
    at: datetime
    chosen: BillingPeriod | None = None
    asked: metering.Freshness | None = None  # just before

    @cached_property
    def freshness(self) -> metering.Freshness:
        return self.asked or metering.freshness(self.customer)

    @cached_property
    def period(self) -> BillingPeriod | None:
        """The chosen billing period, else the present one of the oldest active subscription."""
        return self.chosen or subscriptions.present_period(self.customer, self.at)

    @cached_property
    def interval(self) -> Interval:
        """The billing period; the calendar month for a customer without one."""
        if self.period:
            return Interval(self.period.starts_at, self.period.ends_at)
        return subscriptions.default_range(self.customer, self.at)

    @cached_property
    def earlier(self) -> BillingPeriod | None:
        """The billing period before; the last one of who has no subscription any more."""
        if self.period is None:
            return subscriptions.last_period(self.customer, self.at)
        return subscriptions.period_before(self.period)

    @property
    def ended(self) -> bool:
        """Whether the chosen period is past. The present one is not, also until the tick that opens the next."""
        return self.chosen is not None and self.chosen.ends_at <= self.at

    @cached_property
    def timezone(self) -> str:
        return self.period.timezone if self.period else self.customer.timezone

    def local(self, instant: datetime) -> datetime:
        """The instant as the customer's clock shows it."""
        return instant.astimezone(ZoneInfo(self.timezone))

    @cached_property
    def budget(self) -> Budget | None:
        """The budget of the page: the one that was made first."""
        return budgets.budgets(self.customer).first()

    @cached_property
    def standing_alerts(self) -> Mapping[int, Alert]:
        """By threshold: what fired in this period and still holds."""
        return budgets.standing_alerts(self.customer, self.period) if self.period else {}

    @cached_property
    def balances(self) -> Sequence[credits.Balance]:
        """One per unit that has grants or overage."""
        return holds.balances(self.customer, self.at)

    @cached_property
    def unit(self) -> str:
        """What the page counts in: the budget's unit, else the plan's currency, unless nothing is priced in it."""
        if self.budget:
            return self.budget.unit
        if self.period is None:
            return self.customer.currency
        currency = self.period.version.plan.currency
        units = [price.terms.unit for price in self.prices]
        return currency if currency in units or not units else units[0]

    @cached_property
    def prices(self) -> list[PriceTerms]:
        """Every price that holds in the interval."""
        found = subscriptions.segments_between(self.customer, self.interval.start, self.interval.end)
        versions = terms_by_version({segment.version for segment in found})
        return [price for prices in versions.values() for price in prices]

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """What spend is broken down by: two dimensions of the priced meters, model and key where there are such."""
        names = {name for price in self.prices for name in price.meter.dimensions}
        first = [name for name in FIRST_DIMENSIONS if name in names]
        return tuple([*first, *sorted(names - set(first))][:2])

    @cached_property
    def meters(self) -> Mapping[str, Meter]:
        return {price.meter.key: price.meter for price in self.prices}

    @cached_property
    def has_usage(self) -> bool:
        """Whether anything was ever counted, priced or not."""
        return any(day.amount for day in self.days) or metering.has_usage(self.customer)

    @cached_property
    def days(self) -> Sequence[SeriesRow]:
        """Spend of each local day of the interval, those to come included."""
        return self.spend(self._day_edges)

    @cached_property
    def used(self) -> Decimal:
        """Spend of the interval: the number that budgets watch."""
        return money.total(day.amount for day in self.days)

    def used_in(self, unit: str) -> Decimal:
        """The same in another unit; nothing without a billing period."""
        return budgets.used(self.customer, unit=unit, period=self.period) if self.period else Decimal(0)

    @cached_property
    def forecast(self) -> Forecast | None:
        """Where the period will end. Kept for a minute: it reads twelve weeks, and hardly moves in one."""
        if self.period is None or self.ended:
            return None
        key = f"forecast:{self.period.subscription.public_id}:{self.period.pk}:{self.unit}"
        return caches["process"].get_or_set(key, self._outlook, FORECAST_SECONDS)

    def _outlook(self) -> Forecast | None:
        as_of = self.freshness.counted_through
        return budgets.outlook(self.customer, unit=self.unit, period=self.period, spent=self.used, as_of=as_of)

    @cached_property
    def groups(self) -> Sequence[SeriesRow]:
        """Spend of the interval by dimensions, meter and price."""
        return self.spend((self.interval.start, self.interval.end), group_by=(*self.dimensions, "meter", "price"))

    @cached_property
    def groups_by_day(self) -> Sequence[SeriesRow]:
        """The same by day: sums to `days` and to `groups`, to the last place."""
        return self.spend(self._day_edges, group_by=(*self.dimensions, "meter", "price"))

    @property
    def burn_days(self) -> tuple[Interval, ...]:
        """The local days of the interval so far; the last one is still running."""
        found = buckets(self.interval, "day", self.timezone)
        return tuple(Interval(day.start, min(day.end, self._now_edge)) for day in found if day.start < self._now_edge)

    @cached_property
    def burn_edges(self) -> tuple[datetime, ...]:
        """From the interval's start to the present: where days, grants, their expiries and voids lie."""
        start, end = self.interval.start, self._now_edge
        grants = [item.grant for balance in self.balances for item in balance.grants]
        turns = {turn for grant in grants for turn in (grant.effective_at, grant.expires_at, grant.voided_at) if turn}
        inside = {turn for turn in turns | {day.start for day in self.burn_days} if start < turn < end}
        return (start, *sorted(inside), end)

    @cached_property
    def paid(self) -> Sequence[Mapping[int, Decimal]]:
        """By grant, what it paid between the burn edges."""
        return paid_series(self.customer, self.burn_edges)

    @property
    def _now_edge(self) -> datetime:
        return min(quarter_floor(self.at) + QUARTER, self.interval.end)

    @property
    def _day_edges(self) -> tuple[datetime, ...]:
        days = buckets(self.interval, "day", self.timezone)
        return (self.interval.start, *(day.end for day in days))

    def spend(self, edges: Sequence[datetime], *, group_by: Sequence[str] = ()) -> Sequence[SeriesRow]:
        return credits.spend_series(self.customer, edges=edges, unit=self.unit, group_by=group_by)


@dataclass(frozen=True)
class PlanReading(Reading):
    """The same of a customer with a subscription, and what it pays by."""

    @property
    def the_period(self) -> BillingPeriod:
        assert self.period is not None, "without a subscription there is nothing to read"
        return self.period

    @cached_property
    def statement(self) -> PeriodStatement:
        return period_statement(self.the_period, at=self.at)

    @cached_property
    def projection(self) -> Projection | None:
        """Where the statement ends if usage goes on as forecast; None where no minimum is open."""
        found = self.statement
        if not (found.runs and found.main.true_up_rows) or self.unit != found.main.unit or self.forecast is None:
            return None
        return projected(found, self.forecast, prepaid_of(self.balances, self.unit))

    @cached_property
    def closing(self) -> Sequence[Statement[Source]]:
        """What came late of a subscription that has ended, and nobody is billed for."""
        return closing_statement(self.the_period.subscription)

    @cached_property
    def bridges(self) -> Sequence[Bridge]:
        return bridges(self.statement)

    @cached_property
    def lines(self) -> Sequence[Line]:
        rows = [row.source for one in self.statement.units for row in one.usage_rows]
        return [source for source in rows if isinstance(source, Line)]

    @cached_property
    def spec(self) -> VersionSpec:
        """What the plan version says."""
        return spec_of(self.the_period.version)

    @cached_property
    def book(self) -> Mapping[PlanSegment, Sequence[PriceTerms]]:
        """The prices of each plan segment that the statement is about."""
        covered = {period.pk for period in self.statement.covered}
        found: dict[PlanSegment, list[PriceTerms]] = {}
        interval = self.interval
        for segment, item in priced_between(self.customer, starts_at=interval.start, ends_at=interval.end):
            if segment.period_id in covered:
                found.setdefault(segment, []).append(item)
        return found

    @cached_property
    def compared(self) -> BillingPeriod:
        """The last whole billing period, or the present one of who has no other."""
        return subscriptions.period_before(self.the_period) or self.the_period

    @cached_property
    def alternatives(self) -> Sequence[tuple[PlanVersion, Preview]]:
        """What other plans would have charged for the usage of that period; only those that price all of it. A number
        of queries for each listed plan."""
        period = self.compared
        interval = Interval(period.starts_at, period.ends_at)
        used = {line.meter.key for line in lines(period) if line.quantity}
        found = []
        for version in listed(period.version.plan.currency, self.at)[:MOST_ALTERNATIVES]:
            spec = spec_of(version)
            if version.plan_id != period.version.plan_id and used and used <= {price.meter for price in spec.prices}:
                currency = version.plan.currency
                found.append((version, preview(self.customer, spec, currency, interval, under=version, at=self.at)))
        return found

    @property
    def trial_ends_at(self) -> datetime | None:
        """While it lasts."""
        ends_at = self.the_period.subscription.trial_ends_at
        return self.local(ends_at) if ends_at is not None and ends_at > self.at else None

    @cached_property
    def newer(self) -> Sequence[PlanVersion]:
        """Versions of the plan that were published after the customer's, or will be."""
        version = self.the_period.version
        newer = version.plan.versions.filter(status=VersionStatus.PUBLISHED, number__gt=version.number)
        return list(newer.select_related("plan").order_by("published_at", "number"))
