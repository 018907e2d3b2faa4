"""Top-ups: credits that a customer buys, once or whenever few are left."""

from functools import partial

from django.db import models
from django.db.models import Q
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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["unit", "currency"], name="one_top_up_price_per_unit_and_currency"),
            positive("unit_amount", "top_up_price_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.unit_amount.normalize():f} {self.currency} for one of {self.unit}"


class PaymentAccount(models.Model):
    """A customer at the payment provider, and the card that may be charged without them."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    provider = models.CharField(max_length=16)
    reference = models.CharField(max_length=255)
    payment_method = models.CharField(max_length=255)

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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "unit"], name="one_automatic_top_up_per_unit"),
            not_negative("threshold", "automatic_threshold_not_negative"),
            positive("monthly_ceiling", "automatic_ceiling_positive"),
            models.CheckConstraint(condition=Q(target__gt=models.F("threshold")), name="automatic_target_is_higher"),
        ]

    def __str__(self) -> str:
        return f"{self.unit} of {self.customer_id}"


class TopUpStatus(models.TextChoices):
    PENDING = "pending", "Waits for the payment"
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
    reference = models.CharField(max_length=255, blank=True, default="", help_text="The payment's name there.")
    url = models.TextField(blank=True, default="", help_text="Where the customer pays.")
    failure = models.CharField(max_length=500, blank=True, default="")
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            positive("amount", "top_up_amount_positive"),
            positive("charge", "top_up_charge_positive"),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "failed"], grant=None)
                | Q(status__in=["paid", "reversed"], grant__isnull=False),
                name="top_up_is_granted_when_paid",
            ),
            models.UniqueConstraint(
                fields=["customer", "unit"],
                condition=Q(status="pending", is_automatic=True),
                name="one_automatic_top_up_at_a_time",
            ),
            models.UniqueConstraint(
                fields=["provider", "reference"], condition=~Q(reference=""), name="one_top_up_per_payment"
            ),
        ]
        indexes = [models.Index(fields=["customer", "-id"], name="top_up_of_customer")]

    def __str__(self) -> str:
        return self.public_id
