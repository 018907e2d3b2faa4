"""Credits: grants, and the double-entry ledger that says where each went."""

from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import Customer, User
from billing.fields import amount_field, finite, not_negative, ordered, positive
from billing.pricing.models import CreditTerm, Price
from billing.subscriptions.models import BillingPeriod, PlanSegment


class GrantKind(models.TextChoices):
    PAID = "paid", "Paid"
    PROMOTIONAL = "promotional", "Promotional"
    PLAN = "plan", "From the plan"


# Never usable: the plan changed, and what its segment is due now was given instead.
WITHDRAWN: Final = Q(voided_at__lte=F("effective_at"))


class CreditGrant(models.Model):
    """Credits (or money) given to a customer, usable in [effective_at, expires_at)."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "grant"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="credit_grants")
    unit = models.CharField(max_length=32, default="credits", help_text="credits, or a currency for prepaid money.")
    amount = amount_field()
    kind = models.CharField(max_length=16, choices=GrantKind, default=GrantKind.PROMOTIONAL)
    priority = models.PositiveSmallIntegerField(default=50, help_text="Lower is spent first.")
    effective_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, editable=False)
    forfeited = amount_field(default=0, editable=False, help_text="What was left when it was voided.")
    adjusted = amount_field(default=0, editable=False, help_text="What operators added, or took where below zero.")
    rolled_from = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="rolls_into",
        help_text="Whose rest came to this one when it began.",
    )
    rolled_in = amount_field(default=0, editable=False, help_text="What came so far; late usage takes it back.")
    cost_basis = amount_field(null=True, blank=True, help_text="What one unit was sold for, for revenue.")
    meters = ArrayField(
        models.CharField(max_length=128),
        default=list,
        blank=True,
        help_text="Keys of the only meters it pays for.",
    )
    reason = models.CharField(max_length=500, blank=True)
    period = models.ForeignKey(
        BillingPeriod, on_delete=models.PROTECT, null=True, editable=False, related_name="grants"
    )
    term = models.ForeignKey(CreditTerm, on_delete=models.PROTECT, null=True, editable=False, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    rolled_out: Decimal  # what rolled over to the next one; only where booking.with_rolled_out has read it

    class Meta:
        ordering = ["priority", F("expires_at").asc(nulls_last=True), "effective_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["period", "term", "effective_at"],
                condition=Q(voided_at=None) | Q(voided_at__gt=F("effective_at")),
                name="one_plan_grant_per_segment_and_term",
            ),
            models.CheckConstraint(
                condition=Q(kind="plan", period__isnull=False, term__isnull=False) | Q(period=None, term=None),
                name="grant_of_a_period_is_the_plans",
            ),
            positive("amount", "grant_amount_positive"),
            not_negative("cost_basis", "grant_cost_basis_not_negative"),
            not_negative("forfeited", "grant_forfeited_not_negative"),
            not_negative("rolled_in", "grant_rolled_in_not_negative"),
            finite("adjusted", "grant_adjusted_is_finite"),
            models.CheckConstraint(condition=Q(adjusted__gte=-F("amount")), name="grant_adjusted_down_to_nothing"),
            models.CheckConstraint(
                condition=Q(rolled_from__isnull=False) | Q(rolled_in=0), name="grant_rolled_in_from_another"
            ),
            ordered("effective_at", "expires_at", "grant_expires_after_it_begins"),
        ]
        indexes = [models.Index(fields=["customer", "unit"], name="grant_of_customer")]

    def __str__(self) -> str:
        return f"{self.amount.normalize():f} {self.unit} for {self.customer.key}"

    def ended_at(self, at: datetime) -> datetime | None:
        """When it was voided or has expired by then; None while it has not ended."""
        if self.voided_at is not None:
            return self.voided_at
        return self.expires_at if self.expires_at is not None and self.expires_at <= at else None

    def has_ended(self, at: datetime) -> bool:
        """Whether nothing more can be spent of it, whatever is posted."""
        return self.ended_at(at) is not None


class AccountKind(models.TextChoices):
    ISSUED = "issued", "Issued"
    GRANT = "grant", "Grant"
    CONSUMED = "consumed", "Consumed"
    OVERAGE = "overage", "Overage"
    EXPIRED = "expired", "Expired"
    VOIDED = "voided", "Voided"


class LedgerAccount(models.Model):
    """A place where a unit of a customer lies. `debits` and `credits` are the sums of its entries.

    A grant's account has a credit balance: what remains. It can never be overdrawn.
    """

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    unit = models.CharField(max_length=32)
    kind = models.CharField(max_length=16, choices=AccountKind)
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True, related_name="account")
    debits = amount_field(default=0)
    credits = amount_field(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "unit", "kind"],
                condition=~Q(kind="grant"),
                name="one_account_per_kind_and_unit",
            ),
            models.CheckConstraint(condition=Q(kind__in=AccountKind.values), name="account_kind_is_known"),
            models.CheckConstraint(
                condition=Q(kind="grant", grant__isnull=False) | ~Q(kind="grant") & Q(grant=None),
                name="grant_account_has_its_grant",
            ),
            models.CheckConstraint(
                condition=~Q(kind="grant") | Q(credits__gte=F("debits")), name="grant_account_never_overdrawn"
            ),
            not_negative("debits", "account_debits_not_negative"),
            not_negative("credits", "account_credits_not_negative"),
        ]
        indexes = [
            # Due work: grants that ended with something left. Most accounts of old grants are at rest.
            models.Index(
                fields=["grant"],
                condition=Q(kind="grant", credits__gt=F("debits")),
                name="grant_account_with_a_rest",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.customer_id} in {self.unit}"


class TransactionCode(models.TextChoices):
    """Why a transaction was posted."""

    GRANT = "grant", "Grant"
    USAGE = "usage", "Usage"
    EXPIRY = "expiry", "Expiry"
    VOID = "void", "Void"
    ROLLOVER = "rollover", "Rollover"
    ADJUSTMENT = "adjustment", "Adjustment"


class LedgerTransaction(models.Model):
    """Entries that belong together and balance per unit. Append-only."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "txn"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+")
    code = models.CharField(max_length=16, choices=TransactionCode)
    idempotency_key = models.CharField(max_length=255, unique=True)
    effective_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now(), editable=False)
    reason = models.CharField(max_length=500, blank=True, db_default="", help_text="What an operator gave.")
    counted = models.TextField(
        null=True, editable=False, help_text="Of usage: the snapshot of the events that it took into account."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(code__in=TransactionCode.values), name="transaction_code_is_known"),
        ]
        indexes = [
            models.Index(fields=["customer", "-id"], name="transaction_of_customer"),
            # Usage is posted each second; the others are looked for among it.
            models.Index(fields=["customer", "-id"], condition=~Q(code="usage"), name="transaction_other_than_usage"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.public_id}"


class Direction(models.TextChoices):
    DEBIT = "debit", "Debit"
    CREDIT = "credit", "Credit"


class LedgerEntry(models.Model):
    """One side of a transaction: an account, a direction and a positive amount. Append-only.

    `cell` names the line and segment that caused it, where usage did.
    """

    transaction = models.ForeignKey(LedgerTransaction, on_delete=models.PROTECT, related_name="entries")
    account = models.ForeignKey(LedgerAccount, on_delete=models.PROTECT, related_name="entries", db_index=False)
    direction = models.CharField(max_length=8, choices=Direction)
    amount = amount_field()
    cell = models.ForeignKey("AllocationCell", on_delete=models.PROTECT, null=True, related_name="entries")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(direction__in=Direction.values), name="entry_direction_is_known"),
            positive("amount", "entry_amount_positive"),
        ]
        indexes = [models.Index(fields=["account", "-transaction"], name="entry_of_account")]

    def __str__(self) -> str:
        return f"{self.direction} {self.amount}"


class AllocationCell(models.Model):
    """What a grant (or, without one, overage) has paid of a line's segment: the amount posted so far.

    Its entries sum to `posted`; settlement posts the difference to the target and moves it here.
    """

    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="cells")
    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="+")
    row = models.PositiveIntegerField(help_text="0 is the default row, n the n-th match row.")
    segment_starts_at = models.DateTimeField()
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, null=True, related_name="cells")
    unit = models.CharField(max_length=32)
    posted = amount_field(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["period", "price", "row", "segment_starts_at", "grant"],
                nulls_distinct=False,
                name="one_cell_per_line_segment_and_grant",
            ),
            finite("posted", "cell_posted_is_finite"),
        ]

    def __str__(self) -> str:
        return f"{self.posted} {self.unit}"

    @property
    def key(self) -> tuple[int, int, int, datetime, int | None]:
        return self.period_id, self.price_id, self.row, self.segment_starts_at, self.grant_id


class Settlement(models.Model):
    """How far a customer's lines are allocated to grants; why not further, when its books fail a check.

    `settled_through`: everything acknowledged before it is counted and allocated.
    """

    customer = models.OneToOneField(Customer, on_delete=models.CASCADE, primary_key=True, related_name="+")
    settled_through = models.DateTimeField(null=True)
    parked_reason = models.TextField(blank=True)
    failed_check = models.TextField(
        blank=True, db_default="", help_text="What a check of the books found: nothing is settled until it passes."
    )
    resettle_from = models.DateTimeField(null=True, help_text="Usage from here on was counted but is not settled.")
    postings = models.BigIntegerField(default=0, help_text="Numbers the postings, so that none is made twice.")

    def __str__(self) -> str:
        return f"{self.customer_id}: {self.settled_through}"


class LedgerSeal(models.Model):
    """A digest of a customer's transactions up to `through`, chained to the seal before. Append-only."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+", db_index=False)
    number = models.BigIntegerField(help_text="1, 2, 3 ... for each customer.")
    through = models.ForeignKey(
        LedgerTransaction, on_delete=models.PROTECT, related_name="+", db_index=False, help_text="The last one covered."
    )
    transactions = models.PositiveIntegerField(help_text="How many it covers.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the seal before and of what it covers.")
    sealed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "number"], name="one_seal_per_number"),
            models.CheckConstraint(condition=Q(digest__regex="^[0-9a-f]{64}$"), name="seal_digest_is_one"),
            models.CheckConstraint(condition=Q(number__gt=0, transactions__gt=0), name="seal_covers_something"),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id}/{self.number}: {self.digest[:12]}"


class BilledLine(models.Model):
    """What was billed of a line, and in which billing period. Append-only.

    When a period has closed, its lines are billed in it and are frozen. What usage, corrections or grants that come
    later change of them is a late adjustment: another row of the same line, billed in the period that is open by then
    (`period` is null where none is: nobody is billed, until one is opened and takes it over by a row that takes it from
    nobody and one of its own). A line's rows add up to the line as it is now.
    """

    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, null=True, related_name="billed_lines")
    segment = models.ForeignKey(PlanSegment, on_delete=models.PROTECT, related_name="billed_lines")
    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="+")
    row = models.PositiveIntegerField(help_text="0 is the default row, n the n-th match row.")
    unit = models.CharField(max_length=32)
    quantity = amount_field()
    events = models.BigIntegerField()
    amount = amount_field()
    covered = amount_field(help_text="What grants paid of it.")
    beyond = amount_field(help_text="What no grant paid of it.")
    overage = amount_field(help_text="What that costs in the plan's currency, where the line is in credits.")
    recorded_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            finite(name, f"billed_line_{name}_is_finite")
            for name in ("quantity", "amount", "covered", "beyond", "overage")
        ]
        indexes = [models.Index(fields=["segment"], condition=Q(period=None), name="billed_line_to_nobody")]

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"
