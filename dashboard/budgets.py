"""What the page of budgets shows beside the card of the overview: every budget, and what they told of whom.

Plain values. Instants are aware; the view activates the customer's zone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from billing.budgets import queries as budgets
from billing.budgets.models import Alert, AlertDirection
from billing.notifications import queries as notifications
from billing.notifications.models import OutboxMessage, OutboxStatus
from dashboard.building import view_of_budget
from dashboard.overview import BudgetView
from dashboard.reading import Reading

ALERTS: Final = 50  # that the page lists
FATES: Final[Mapping[str, str]] = {
    OutboxStatus.SENT: "sent to",
    OutboxStatus.QUEUED: "on its way to",
    OutboxStatus.SENDING: "on its way to",
    OutboxStatus.FAILED: "could not be delivered to",
    OutboxStatus.KEPT: "kept in the sandbox, for",
}


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One alert as it was: the budget may have been changed since. `mails`: what became of them, in words."""

    id: str
    budget: str
    unit: str
    resolved: bool
    level: Decimal
    limit: Decimal
    percent: Decimal
    value: Decimal
    fired_at: datetime
    mails: tuple[str, ...]


def every_budget(reading: Reading) -> tuple[BudgetView, ...]:
    """In the order in which they were made."""
    found = list(budgets.budgets(reading.customer))
    used = {unit: reading.used_in(unit) for unit in {budget.unit for budget in found}}
    return tuple(view_of_budget(budget, used[budget.unit], reading.standing_alerts) for budget in found)


def alert_rows(reading: Reading) -> tuple[AlertRow, ...]:
    """The newest alerts of all budgets, the newest first."""
    found = list(budgets.alerts(reading.customer)[:ALERTS])
    told = notifications.by_cause([alert.announcement for alert in found])
    return tuple(_row(alert, told.get(alert.announcement, ())) for alert in found)


def _row(alert: Alert, mails: Sequence[OutboxMessage]) -> AlertRow:
    budget = alert.threshold.budget
    return AlertRow(
        id=alert.public_id,
        budget=budget.name,
        unit=budget.unit,
        resolved=alert.direction == AlertDirection.RESOLVED,
        level=alert.level,
        limit=alert.limit,
        percent=budgets.percent_of(alert.level, alert.limit),
        value=alert.value,
        fired_at=alert.created_at,
        mails=tuple(_fates(mails)),
    )


def _fates(mails: Sequence[OutboxMessage]) -> Iterator[str]:
    """For instance "sent to alice@acme.test, bob@acme.test"."""
    fates = [FATES[mail.status] for mail in mails]
    for fate in dict.fromkeys(FATES.values()):
        if addresses := [mail.recipient for mail, its in zip(mails, fates, strict=True) if its == fate]:
            yield f"{fate} {', '.join(addresses)}"
