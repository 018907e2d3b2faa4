"""Who was told of what, and did it arrive?"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from django.db.models import QuerySet

from accounts.models import TestClock
from billing.notifications.models import OutboxMessage


def by_cause(causes: Collection[str]) -> Mapping[str, Sequence[OutboxMessage]]:
    """The messages of each cause, oldest first; a cause of which nobody was told has none."""
    messages: dict[str, list[OutboxMessage]] = defaultdict(list)
    for message in OutboxMessage.objects.filter(cause__in=set(causes) - {""}).order_by("id"):
        messages[message.cause].append(message)
    return messages


def kept(clock: TestClock) -> QuerySet[OutboxMessage]:
    """What the customers of a test clock would have been sent, oldest first."""
    return OutboxMessage.objects.filter(customer__test_clock=clock).order_by("id")
