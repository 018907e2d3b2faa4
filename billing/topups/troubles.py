"""Mail to the customer's owners when an automatic top-up needs them. What it says is frozen when it happens."""

from datetime import datetime

from billing.budgets.recipients import addresses
from billing.money import display
from billing.notifications.services import enqueue
from billing.topups import queries
from billing.topups.models import TopUp


def tell_of_confirmation(top_up: TopUp, at: datetime) -> None:
    """The bank wants the customer before it pays."""
    _tell(
        top_up,
        at,
        headline="Please confirm a payment",
        text="Your bank did not let it be charged without you. Nothing was charged, and no credits were added. "
        "Nothing is tried again until you have paid it or cancelled it.",
        action="Pay it now",
    )


def tell_of_failure(top_up: TopUp, at: datetime) -> None:
    """The card was not charged, and the rule pauses."""
    _tell(
        top_up,
        at,
        headline="An automatic top-up failed",
        text=f"{top_up.failure} Nothing was charged, and no credits were added. Automatic top-ups are paused until you "
        "leave another card or save the rule again.",
        action="Look at it",
    )


def _tell(top_up: TopUp, at: datetime, **said: str) -> None:
    customer = top_up.customer
    context = {
        **said,
        "customer": customer.name,
        "bought": display(top_up.amount, top_up.unit),
        "charge": display(top_up.charge, top_up.currency),
        "url": queries.page_of(top_up),
    }
    for address in addresses(customer, ["owners"]):
        enqueue(
            kind="top_up",
            recipient=address,
            context=context,
            dedup_key=f"top_up:{top_up.public_id}:{top_up.status}:{address}",
            customer=customer,
            cause=top_up.public_id,
            thread=top_up.public_id,
            at=at,
        )
