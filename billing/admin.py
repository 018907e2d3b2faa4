"""Django finds the rooms' admin pages here."""

from billing.authorizations.admin import AuthorizationAdmin
from billing.authorizations.grants_admin import CreditGrantAdmin
from billing.budgets.admin import AlertAdmin, BudgetAdmin
from billing.credits.admin import LedgerSealAdmin, LedgerTransactionAdmin, SettlementAdmin
from billing.credits.billed_admin import BilledLineAdmin
from billing.cycle.admin import BooksCheckAdmin
from billing.cycle.agreements_admin import CouponAdmin, PriceOverrideAdmin, UnitCostAdmin
from billing.cycle.plans_admin import PlanVersionAdmin
from billing.cycle.subscriptions_admin import SubscriptionAdmin
from billing.metering.admin import (
    DimensionUseAdmin,
    EventCorrectionAdmin,
    ImportRunAdmin,
    MeterAdmin,
    RefusedItemsAdmin,
    UnmatchedEventAdmin,
)
from billing.notifications.admin import OutboxMessageAdmin
from billing.pricing.admin import PlanAdmin
from billing.topups.admin import AutomaticTopUpAdmin, PaymentNoticeAdmin, TopUpAdmin, TopUpPriceAdmin

__all__ = [
    "AlertAdmin",
    "AuthorizationAdmin",
    "AutomaticTopUpAdmin",
    "BilledLineAdmin",
    "BooksCheckAdmin",
    "BudgetAdmin",
    "CouponAdmin",
    "CreditGrantAdmin",
    "DimensionUseAdmin",
    "EventCorrectionAdmin",
    "ImportRunAdmin",
    "LedgerSealAdmin",
    "LedgerTransactionAdmin",
    "MeterAdmin",
    "OutboxMessageAdmin",
    "PaymentNoticeAdmin",
    "PlanAdmin",
    "PlanVersionAdmin",
    "PriceOverrideAdmin",
    "RefusedItemsAdmin",
    "SettlementAdmin",
    "SubscriptionAdmin",
    "TopUpAdmin",
    "TopUpPriceAdmin",
    "UnitCostAdmin",
    "UnmatchedEventAdmin",
]
