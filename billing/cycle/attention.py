"""The operator's first page: what needs somebody, each with the way to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse

from billing.budgets.models import Alert, AlertDirection
from billing.clock import now
from billing.credits.billed import unbilled
from billing.credits.models import Settlement
from billing.cycle.models import BooksCheck
from billing.metering import intake
from billing.metering.models import UnmatchedEvent
from billing.notifications.models import OutboxMessage, OutboxStatus
from billing.topups.models import AutomaticTopUp, TopUp, TopUpStatus

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Item:
    """So many of something that whoever may see this model finds at the address. `words`: of one, and of many."""

    count: int
    words: tuple[str, str]
    model: str
    address: str

    @property
    def text(self) -> str:
        return self.words[self.count != 1]


def front_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the admin's index shows besides its lists: only what there is, and what its reader may see."""
    at = now()
    found = [item for item in needs(at) if item.count and request.user.has_perm(f"billing.view_{item.model}")]
    return {**context, "needs": found, "at": at}


def needs(at: datetime) -> Iterator[Item]:
    """The most pressing first: what is not counted right, what is not billed, who waits."""
    yield from _books()
    yield from _uncounted(at)
    yield from _waiting()
    alerts = Alert.objects.filter(direction=AlertDirection.FIRED, created_at__gte=at - _DAY).count()
    yield _of(alerts, "budget alert in the last day", "budget alerts in the last day", "alert")


def _of(count: int, one: str, many: str, model: str, query: str = "") -> Item:
    """Found in the model's list."""
    address = reverse(f"admin:billing_{model}_changelist")
    return Item(count, (one, many), model, f"{address}?{query}" if query else address)


def _books() -> Iterator[Item]:
    parked = Settlement.objects.exclude(parked_reason="").count()
    one, many = "customer is parked: its grants pay nothing now", "customers are parked: their grants pay nothing now"
    yield _of(parked, one, many, "settlement")
    differences = BooksCheck.objects.values_list("differences", flat=True).first() or 0
    checked = "in the last check of the books"
    yield _of(differences, f"number did not agree {checked}", f"numbers did not agree {checked}", "bookscheck")


def _uncounted(at: datetime) -> Iterator[Item]:
    came_in = reverse("admin:billing_intake")
    words = ("event is counted by nothing, and billed to nobody", "events are counted by nothing, and billed to nobody")
    yield Item(UnmatchedEvent.objects.count(), words, "unmatchedevent", came_in)
    words = ("item was refused in the last day", "items were refused in the last day")
    yield Item(intake.refused_since(at - _DAY), words, "refuseditems", came_in)
    late = {row.segment.period.subscription_id for row in unbilled(Q(segment__period__customer__test_clock=None))}
    words = (
        "ended subscription has late usage, billed to nobody",
        "ended subscriptions have late usage, billed to nobody",
    )
    yield Item(len(late), words, "billedline", reverse("admin:billing_billedline_to_nobody"))


def _waiting() -> Iterator[Item]:
    failed = OutboxMessage.objects.filter(status=OutboxStatus.FAILED).count()
    yield _of(
        failed, "mail could not be delivered", "mails could not be delivered", "outboxmessage", "status__exact=failed"
    )
    for status, one, many in (
        (TopUpStatus.PENDING, "top-up waits to be paid", "top-ups wait to be paid"),
        (TopUpStatus.ACTION_REQUIRED, "top-up waits for a bank's question", "top-ups wait for a bank's question"),
    ):
        yield _of(TopUp.objects.filter(status=status).count(), one, many, "topup", f"status__exact={status}")
    paused = AutomaticTopUp.objects.filter(is_active=True).exclude(paused_because="").count()
    yield _of(paused, "automatic top-up is paused", "automatic top-ups are paused", "automatictopup")
