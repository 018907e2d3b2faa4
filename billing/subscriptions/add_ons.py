"""What may be added to what: an add-on is a subscription beside another one, with the same billing periods."""

from datetime import datetime

from accounts.models import Customer
from billing.pricing.models import PlanVersion
from billing.subscriptions.models import Subscription, SubscriptionStatus


def add_on_errors(
    customer: Customer, version: PlanVersion, beside: Subscription | None, starts_at: datetime
) -> dict[str, str]:
    """By field: why the version cannot be subscribed to on its own, or beside that subscription."""
    if beside is None:
        only_beside = "This plan is an add-on. Name the subscription of the customer that it is added to."
        return {"beside": only_beside} if version.plan.is_add_on else {}
    if not version.plan.is_add_on:
        return {"plan": "Only an add-on is added to a subscription. Leave out what it is added to, or choose one."}
    return _main_errors(customer, beside, starts_at) or unlike(version, beside.version)


def _main_errors(customer: Customer, beside: Subscription, starts_at: datetime) -> dict[str, str]:
    if beside.customer_id != customer.pk:
        return {"beside": "This subscription belongs to another customer."}
    if beside.status == SubscriptionStatus.ENDED:
        return {"beside": "This subscription has ended."}
    if beside.beside_id is not None:
        return {"beside": "This is an add-on itself. Name the subscription that it is added to."}
    if starts_at < beside.starts_at:
        return {"starts_at": "It begins with the subscription that it is added to, or later."}
    if beside.ends_at is not None and starts_at >= beside.ends_at:
        return {"starts_at": "The subscription that it is added to is cancelled by then."}
    return {}


def unlike(version: PlanVersion, main: PlanVersion) -> dict[str, str]:
    """Why an add-on cannot be billed with a plan version."""
    if version.plan.currency != main.plan.currency:
        return {"plan": f"The subscription is billed in {main.plan.currency}, this add-on in {version.plan.currency}."}
    if not same_periods(version, main):
        return {"plan": "An add-on has billing periods as long as those of the subscription that it is added to."}
    return {}


def same_periods(one: PlanVersion, other: PlanVersion) -> bool:
    """Whether both are billed as often."""
    return (one.interval, one.interval_count) == (other.interval, other.interval_count)
