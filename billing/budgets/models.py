"""Budgets, their thresholds, and the alerts that say that one was crossed."""

from functools import partial

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import Customer
from billing.fields import amount_field, finite, positive
from billing.money import plain


class BudgetPeriod(models.TextChoices):
    BILLING_PERIOD = "billing_period", "Billing period"


class BudgetBasis(models.TextChoices):
    SPEND = "spend", "Spend"


class Budget(models.Model):
    """How much a customer means to spend in a period. It warns at its thresholds; `stop_at_percent` also stops.

    `used` is what the last tick counted in the period that began at `used_from`; kept only where it stops something.
    """

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "bud"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="budgets")
    name = models.CharField(max_length=200, default="Budget")
    period = models.CharField(max_length=16, choices=BudgetPeriod, default=BudgetPeriod.BILLING_PERIOD)
    basis = models.CharField(max_length=16, choices=BudgetBasis, default=BudgetBasis.SPEND)
    unit = models.CharField(max_length=32)
    amount = amount_field()
    recipients = ArrayField(
        models.CharField(max_length=320),
        default=list,
        help_text="Roles (owners, billing) or e-mail addresses.",
    )
    stop_at_percent = models.DecimalField(
        max_digits=7,
        decimal_places=2,
        null=True,
        blank=True,
        help_text="Authorizations beyond this share of the amount are denied; none are when empty.",
    )
    used = amount_field(default=0, editable=False)
    used_from = models.DateTimeField(null=True, editable=False)
    levels_since = models.DateTimeField(
        db_default=Now(), editable=False, help_text="When the amount or a threshold last changed."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    archived_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "name"], condition=Q(archived_at=None), name="one_budget_per_name"
            ),
            positive("amount", "budget_amount_positive"),
            positive("stop_at_percent", "budget_stop_positive"),
            finite("used", "budget_used_is_finite"),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.customer_id}"


class ThresholdBasis(models.TextChoices):
    ACTUAL = "actual", "Actual"


class Threshold(models.Model):
    """A share of the budget, or an amount, at which its recipients are told. Edits keep its id."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "thr"), editable=False)
    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="thresholds")
    basis = models.CharField(max_length=16, choices=ThresholdBasis, default=ThresholdBasis.ACTUAL)
    percent = models.DecimalField(max_digits=7, decimal_places=2, null=True, blank=True)
    amount = amount_field(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "basis", "percent", "amount"],
                condition=Q(archived_at=None),
                nulls_distinct=False,
                name="one_threshold_per_level",
            ),
            models.CheckConstraint(
                condition=Q(percent__isnull=False, amount=None) | Q(percent=None, amount__isnull=False),
                name="threshold_is_percent_or_amount",
            ),
            positive("percent", "threshold_percent_positive"),
            positive("amount", "threshold_amount_positive"),
        ]

    def __str__(self) -> str:
        return f"{plain(self.percent)} %" if self.percent is not None else str(self.amount)


class AlertDirection(models.TextChoices):
    FIRED = "fired", "Fired"
    RESOLVED = "resolved", "Resolved"


class Alert(models.Model):
    """A threshold was crossed (or no longer is): once per threshold, period, epoch and direction. Append-only."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "alert"), editable=False)
    threshold = models.ForeignKey(Threshold, on_delete=models.PROTECT, related_name="alerts")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    epoch = models.PositiveIntegerField(help_text="How often the threshold had resolved in the period before.")
    direction = models.CharField(max_length=16, choices=AlertDirection, default=AlertDirection.FIRED)
    value = amount_field()
    limit = amount_field(help_text="The budget's amount at that moment.")
    level = amount_field(help_text="What the threshold came to at that moment.")
    as_of = models.DateTimeField(help_text="The value counts events up to here.")
    announcement = models.CharField(
        max_length=40,
        blank=True,
        default="",
        db_default="",
        help_text="The cause of the outbox messages that told of it; empty if nobody was told.",
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["threshold", "period_start", "epoch", "direction"],
                name="one_alert_per_threshold_and_period",
            ),
            finite("value", "alert_value_is_finite"),
        ]
        indexes = [models.Index(fields=["customer", "-id"], name="alert_of_customer")]

    def __str__(self) -> str:
        return f"{self.direction} {self.threshold_id}"
