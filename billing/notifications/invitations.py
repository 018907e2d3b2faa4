"""The mail of an invitation. `accounts` writes the row and knows no outbox; here it is found."""

from datetime import UTC, datetime
from typing import Final

from django.db.models import Exists, OuterRef, Value
from django.db.models.functions import Concat
from django.utils.formats import date_format

from accounts.models import Invitation
from billing.notifications.models import OutboxMessage
from billing.notifications.services import enqueue

MOST: Final = 100  # of one run; the next one takes the rest


def announce(*, at: datetime) -> int:
    """Queue the mail of every open invitation that has none yet. Returns how many.

    The message names the invitation; its link is signed when the mail is written, so that no table holds it.
    """
    told = OutboxMessage.objects.filter(dedup_key=Concat(Value("invitation:"), OuterRef("public_id")))
    open_ones = Invitation.objects.filter(accepted_at=None, revoked_at=None, expires_at__gt=at)
    waiting = open_ones.exclude(Exists(told)).select_related("customer", "invited_by").order_by("id")[:MOST]
    for invitation in waiting:
        enqueue(
            kind="invitation",
            recipient=invitation.email,
            context=_context(invitation),
            dedup_key=f"invitation:{invitation.public_id}",
            customer=invitation.customer,
            at=at,
        )
    return len(waiting)


def _context(invitation: Invitation) -> dict[str, str]:
    inviter = invitation.invited_by
    return {
        "invitation": invitation.public_id,
        "customer": invitation.customer.name,
        "role": invitation.get_role_display().lower(),
        "inviter": inviter.get_short_name() if inviter else "",
        "until": date_format(invitation.expires_at.astimezone(UTC), "j F Y, H:i") + " UTC",
    }
