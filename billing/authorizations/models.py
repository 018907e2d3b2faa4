"""Authorizations: holds on credits and on the budgets that stop, before a call runs."""

from functools import partial

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import Customer
from billing.budgets.models import Budget
from billing.fields import amount_field, not_negative, positive


class HoldAccount(models.Model):
    """What is held of a customer's unit, or of one of its budgets. Who reserves locks the customer's rows, by id.

    `reserved` is the sum of its holds that are not settled.
    """

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_index=False)
    unit = models.CharField(max_length=32)
    budget = models.OneToOneField(Budget, on_delete=models.CASCADE, null=True, related_name="+")
    reserved = amount_field(default=0, db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "unit"], condition=Q(budget=None), name="one_hold_account_per_unit"
            ),
            not_negative("reserved", "reserved_not_negative"),
        ]
        indexes = [models.Index(fields=["customer", "id"], name="hold_account_of_customer")]

    def __str__(self) -> str:
        return f"{self.reserved} {self.unit} of {self.customer_id}"


class EndedBy(models.TextChoices):
    """What ended an authorization."""

    EVENT = "event", "An event"
    CAPTURE = "capture", "Capture"
    RELEASE = "release", "Release"
    EXPIRY = "expiry", "Expiry"


class Authorization(models.Model):
    """A hold until `expires_at`, ended once. One that an event ended stays reserved until `settled_at`: the tick that
    counts the event."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "auth"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_index=False)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=16, choices=EndedBy, blank=True, default="", db_default="")
    settled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(ended_at=None, ended_by="") | Q(ended_at__isnull=False, ended_by__in=EndedBy.values),
                name="authorization_ends_by_something",
            ),
            models.CheckConstraint(
                condition=Q(settled_at=None) | Q(ended_at__isnull=False), name="authorization_settles_after_its_end"
            ),
        ]
        indexes = [
            models.Index(
                fields=["customer", "expires_at"], condition=Q(settled_at=None), name="authorization_reserved"
            ),
            # What events ended and no tick has settled yet: few, and each question reads them.
            models.Index(
                fields=["customer"],
                condition=Q(settled_at=None, ended_at__isnull=False),
                name="authorization_ended",
            ),
            models.Index(fields=["settled_at"], name="authorization_settled_at"),
        ]

    def __str__(self) -> str:
        return self.public_id


class Hold(models.Model):
    """What an authorization reserves of one account. `meter`: what it is for, where grants are for certain meters."""

    authorization = models.ForeignKey(Authorization, on_delete=models.CASCADE, related_name="holds")
    account = models.ForeignKey(HoldAccount, on_delete=models.CASCADE, related_name="+", db_index=False)
    meter = models.CharField(max_length=128, blank=True, default="", db_default="")
    amount = amount_field()

    class Meta:
        constraints = [positive("amount", "hold_amount_positive")]

    def __str__(self) -> str:
        return str(self.amount)
