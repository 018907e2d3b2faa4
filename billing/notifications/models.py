"""The outbox: what is to be sent to whom, written in the transaction of its cause."""

from functools import partial

from django.db import models
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import Customer


class OutboxStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    SENDING = "sending", "Sending"
    SENT = "sent", "Sent"
    FAILED = "failed", "Failed"
    KEPT = "kept", "Kept in the sandbox"


class OutboxMessage(models.Model):
    """One message to one recipient. Its context is frozen: a retry says what the first attempt said."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "msg"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, null=True, related_name="+")
    kind = models.CharField(max_length=64, help_text="Names the template.")
    channel = models.CharField(max_length=16, default="email")
    recipient = models.CharField(max_length=320)
    context = models.JSONField(default=dict)
    dedup_key = models.CharField(max_length=400, unique=True)
    cause = models.CharField(max_length=64, blank=True, help_text="What it tells of, in its sender's words.")
    thread = models.CharField(max_length=128, blank=True, help_text="Messages of one thread are shown together.")
    status = models.CharField(max_length=16, choices=OutboxStatus, default=OutboxStatus.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(help_text="Also the end of a lease while it is being sent.")
    sent_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=models.Q(status__in=OutboxStatus.values), name="outbox_status_is_known"),
        ]
        indexes = [
            # The sender's question: what is due?
            models.Index(
                fields=["next_attempt_at"],
                condition=models.Q(status__in=["queued", "sending"]),
                name="outbox_due",
            ),
            # The alerts' question: who was told?
            models.Index(fields=["cause"], condition=~models.Q(cause=""), name="outbox_of_cause"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} to {self.recipient}"
