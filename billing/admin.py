"""Django finds the rooms' admin pages here."""

from billing.metering.admin import ImportRunAdmin, MeterAdmin, RefusedItemsAdmin, UnmatchedEventAdmin
from billing.notifications.admin import OutboxMessageAdmin
from billing.pricing.admin import PlanAdmin, PlanVersionAdmin
from billing.subscriptions.admin import SubscriptionAdmin

__all__ = [
    "ImportRunAdmin",
    "MeterAdmin",
    "OutboxMessageAdmin",
    "PlanAdmin",
    "PlanVersionAdmin",
    "RefusedItemsAdmin",
    "SubscriptionAdmin",
    "UnmatchedEventAdmin",
]
