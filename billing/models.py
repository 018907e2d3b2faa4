"""Re-exports the rooms' models, because Django looks here."""

from billing.budgets.models import Alert, Budget, Threshold
from billing.credits.models import (
    AllocationCell,
    CreditGrant,
    LedgerAccount,
    LedgerEntry,
    LedgerTransaction,
    Settlement,
)
from billing.metering.models import (
    DimensionSet,
    EventIdentity,
    ImportRun,
    Meter,
    PeriodTotal,
    RefusedItems,
    TrackedPeriod,
    UnmatchedEvent,
    UsageBucket,
    UsageDay,
    UsageDelta,
    UsageEvent,
    Watermark,
)
from billing.notifications.models import OutboxMessage
from billing.pricing.models import CreditTerm, MatchRow, OverageTerm, Plan, PlanVersion, Price
from billing.subscriptions.models import BillingPeriod, Subscription

__all__ = [
    "Alert",
    "AllocationCell",
    "BillingPeriod",
    "Budget",
    "CreditGrant",
    "CreditTerm",
    "DimensionSet",
    "EventIdentity",
    "ImportRun",
    "LedgerAccount",
    "LedgerEntry",
    "LedgerTransaction",
    "MatchRow",
    "Meter",
    "OutboxMessage",
    "OverageTerm",
    "PeriodTotal",
    "Plan",
    "PlanVersion",
    "Price",
    "RefusedItems",
    "Settlement",
    "Subscription",
    "Threshold",
    "TrackedPeriod",
    "UnmatchedEvent",
    "UsageBucket",
    "UsageDay",
    "UsageDelta",
    "UsageEvent",
    "Watermark",
]
