"""Top-ups: credits that a customer buys, once or whenever few are left."""

from functools import partial

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import Customer, User
from billing.credits.models import CreditGrant
from billing.fields import amount_field, not_negative, positive


class TopUpPrice(models.Model):
    """What one of a unit costs when it is bought. Money costs itself."""

    unit = models.CharField(max_length=32, default="credits")
    currency = models.CharField(max_length=3)
    unit_amount = amount_field()
    least = amount_field(null=True, blank=True, help_text="The smallest purchase, in the unit; empty for any.")
    most = amount_field(null=True, blank=True, help_text="The largest purchase, in the unit; empty for any.")
    choices = ArrayField(models.DecimalField(max_digits=38, decimal_places=12), default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["unit", "currency"], name="one_top_up_price_per_unit_and_currency"),
            positive("unit_amount", "top_up_price_positive"),
            positive("least", "top_up_least_positive"),
            positive("most", "top_up_most_positive"),
            models.CheckConstraint(
                condition=Q(most__gte=F("least")),
                name="top_up_most_is_not_below_least",
                violation_error_message="The largest purchase is smaller than the smallest.",
            ),
            models.CheckConstraint(
                condition=~Q(unit=F("currency")) | Q(unit_amount=1),
                name="top_up_money_costs_itself",
                violation_error_message="Money costs itself: its unit amount is 1.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.unit_amount.normalize():f} {self.currency} for one of {self.unit}"


class PaymentAccount(models.Model):
    """A customer at the payment provider, and the card that may be charged without them."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    provider = models.CharField(max_length=16)
    reference = models.CharField(max_length=255)
    payment_method = models.CharField(max_length=255)
    card = models.CharField(max_length=100, blank=True, default="", help_text="As its owner knows it.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "provider"], name="one_payment_account_per_provider"),
        ]

    def __str__(self) -> str:
        return f"{self.reference} at {self.provider}"


class AutomaticTopUp(models.Model):
    """Buy up to `target` when less than `threshold` is available; at most `monthly_ceiling` a calendar month, and not
    within the cooldown of the last one."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="automatic_top_ups")
    unit = models.CharField(max_length=32, default="credits")
    threshold = amount_field()
    target = amount_field()
    monthly_ceiling = amount_field()
    cooldown_minutes = models.PositiveIntegerField(default=60)
    is_active = models.BooleanField(default=True)
    paused_because = models.CharField(
        max_length=500, blank=True, default="", help_text="Why nothing is bought until an owner has looked at it."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "unit"], name="one_automatic_top_up_per_unit"),
            not_negative("threshold", "automatic_threshold_not_negative"),
            positive("monthly_ceiling", "automatic_ceiling_positive"),
            models.CheckConstraint(condition=Q(target__gt=F("threshold")), name="automatic_target_is_higher"),
        ]

    def __str__(self) -> str:
        return f"{self.unit} of {self.customer_id}"


class TopUpStatus(models.TextChoices):
    PENDING = "pending", "Waits for the payment"
    ACTION_REQUIRED = "action_required", "Waits for you"
    PAID = "paid", "Paid"
    FAILED = "failed", "Failed"
    REVERSED = "reversed", "Paid back"


class TopUp(models.Model):
    """A purchase of so much of a unit. It is granted once, when its payment has succeeded."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "topup"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    unit = models.CharField(max_length=32)
    amount = amount_field()
    currency = models.CharField(max_length=3)
    charge = amount_field(help_text="What is paid for it.")
    status = models.CharField(max_length=16, choices=TopUpStatus, default=TopUpStatus.PENDING)
    is_automatic = models.BooleanField(default=False)
    provider = models.CharField(max_length=16)
    reference = models.CharField(max_length=255, blank=True, default="", help_text="The payment page's name there.")
    payment = models.CharField(max_length=255, blank=True, default="", help_text="The payment's name there.")
    url = models.TextField(blank=True, default="", help_text="Where the customer pays.")
    receipt_url = models.TextField(blank=True, default="")
    failure = models.CharField(max_length=500, blank=True, default="")
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    tried_at = models.DateTimeField(null=True, help_text="When the provider was asked about it last.")
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            positive("amount", "top_up_amount_positive"),
            positive("charge", "top_up_charge_positive"),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "action_required", "failed"], grant=None)
                | Q(status__in=["paid", "reversed"], grant__isnull=False),
                name="top_up_is_granted_when_paid",
            ),
            models.UniqueConstraint(
                fields=["customer", "unit"],
                condition=Q(status__in=["pending", "action_required"], is_automatic=True),
                name="one_automatic_top_up_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["provider", "reference"], condition=~Q(reference=""), name="one_top_up_per_payment_page"
            ),
            models.UniqueConstraint(
                fields=["provider", "payment"], condition=~Q(payment=""), name="one_top_up_per_payment"
            ),
        ]
        indexes = [
            models.Index(fields=["customer", "-id"], name="top_up_of_customer"),
            # The sweeper's question: what has not ended?
            models.Index(fields=["tried_at"], condition=Q(status="pending"), name="top_up_waits"),
        ]

    def __str__(self) -> str:
        return self.public_id


class PaymentNotice(models.Model):
    """What the provider told us, once each: a repeat finds it here, and an operator what fits no top-up."""

    provider = models.CharField(max_length=16)
    reference = models.CharField(max_length=255)
    kind = models.CharField(max_length=100)
    subject = models.CharField(max_length=255, help_text="What it is about, by its name there.")
    top_up = models.ForeignKey(TopUp, on_delete=models.PROTECT, null=True, related_name="+")
    todo = models.CharField(
        max_length=300,
        blank=True,
        default="",
        help_text="What an operator is to do, because nothing follows by itself.",
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["provider", "reference"], name="one_notice_per_name"),
        ]
        indexes = [models.Index(fields=["id"], condition=~models.Q(todo=""), name="notice_to_do")]

    def __str__(self) -> str:
        return f"{self.kind} {self.reference}"
