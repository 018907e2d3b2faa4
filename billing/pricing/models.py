"""What it costs: plans, their versions (frozen once published), prices with match rows; and what changes it for one
customer (overrides, coupons). Beside it, what it costs the vendor."""

from decimal import Decimal
from functools import partial
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import KEY_PATTERN, Customer, User, valid_key
from billing.fields import amount_field, not_negative, positive
from billing.metering.models import Meter
from billing.money import counted, plain
from billing.pricing.where import format_where


class Plan(models.Model):
    """A named offer in one currency. What it says lives in its versions."""

    key = models.CharField(max_length=128, unique=True, validators=[valid_key])
    name = models.CharField(max_length=200)
    currency = models.CharField(max_length=3, default="USD", help_text="ISO 4217, in capitals.")
    is_add_on = models.BooleanField(
        "add-on", default=False, help_text="Only sold beside another plan, to whose subscription it is added."
    )
    is_listed = models.BooleanField(
        "listed", default=False, help_text="Customers of other plans may compare it with theirs."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["key"]
        constraints = [
            models.CheckConstraint(condition=Q(key__regex=KEY_PATTERN), name="plan_key_is_a_key"),
            models.CheckConstraint(condition=Q(currency__regex="^[A-Z]{3}$"), name="plan_currency_is_iso"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


class VersionStatus(models.TextChoices):
    DRAFT = "draft", "Draft"
    PUBLISHED = "published", "Published"
    RETIRED = "retired", "Retired"


class CreditEvery(models.TextChoices):
    PERIOD = "period", "Each billing period"
    MONTH = "month", "Each month"


class FeeTiming(models.TextChoices):
    ADVANCE = "advance", "In advance"
    ARREARS = "arrears", "In arrears"


class IntervalUnit(models.TextChoices):
    DAY = "day", "Day"
    WEEK = "week", "Week"
    MONTH = "month", "Month"
    YEAR = "year", "Year"


class PlanVersion(models.Model):
    """One wording of a plan. A draft may change; a published one never does (a trigger guards it)."""

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=VersionStatus, default=VersionStatus.DRAFT, editable=False)
    published_at = models.DateTimeField(null=True, editable=False, help_text="New subscriptions take it from then on.")
    retired_at = models.DateTimeField(null=True, editable=False, help_text="No subscription begins with it since then.")
    interval = models.CharField(max_length=8, choices=IntervalUnit, default=IntervalUnit.MONTH)
    interval_count = models.PositiveSmallIntegerField(default=1)
    base_fee = amount_field(default=0)
    base_fee_timing = models.CharField(max_length=8, choices=FeeTiming, default=FeeTiming.ADVANCE)
    trial_days = models.PositiveSmallIntegerField(
        default=0, help_text="Days in which nothing is charged, before the first paid billing period."
    )
    minimum_spend = amount_field(
        null=True, blank=True, help_text="The least that a billing period costs, in the plan's currency."
    )
    postpaid = models.BooleanField(
        default=True,
        help_text="Usage beyond the grants is invoiced; else it must be covered by prepaid grants.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["plan", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["plan", "number"], name="one_version_per_number"),
            models.CheckConstraint(
                condition=Q(status="draft", published_at=None, retired_at=None)
                | Q(status="published", published_at__isnull=False, retired_at=None)
                | Q(status="retired", published_at__isnull=False, retired_at__isnull=False),
                name="version_published_at_fits_status",
            ),
            models.CheckConstraint(condition=Q(interval_count__gte=1), name="version_interval_is_positive"),
            models.CheckConstraint(condition=Q(interval__in=IntervalUnit.values), name="version_interval_is_known"),
            not_negative("base_fee", "version_base_fee_not_negative"),
            not_negative("minimum_spend", "version_minimum_spend_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.plan.name} v{self.number}"


class CreditTerm(models.Model):
    """Credits that come with the plan again and again; they expire when the next ones come, after moving a rest."""

    version = models.ForeignKey(PlanVersion, on_delete=models.CASCADE, related_name="credits")
    unit = models.CharField(max_length=32, default="credits", help_text="credits, or a currency for prepaid money.")
    amount = amount_field()
    every = models.CharField(max_length=8, choices=CreditEvery, default=CreditEvery.PERIOD)
    rollover_max = amount_field(default=0, help_text="What is left moves to the next ones once, up to this amount.")
    priority = models.PositiveSmallIntegerField(default=10, help_text="Lower is spent first.")

    class Meta:
        ordering = ["id"]
        constraints = [
            positive("amount", "credit_term_amount_positive"),
            not_negative("rollover_max", "credit_term_rollover_max_not_negative"),
            models.CheckConstraint(condition=Q(every__in=CreditEvery.values), name="credit_term_every_is_known"),
        ]

    def __str__(self) -> str:
        return f"{plain(self.amount)} {self.unit}"


class OverageTerm(models.Model):
    """What a credit costs beyond the grants. A unit without a term costs nothing there and is denied."""

    version = models.ForeignKey(PlanVersion, on_delete=models.CASCADE, related_name="overage")
    unit = models.CharField(max_length=32, default="credits")
    unit_amount = amount_field(help_text="In the plan's currency.")

    class Meta:
        ordering = ["unit"]
        constraints = [
            models.UniqueConstraint(fields=["version", "unit"], name="one_overage_term_per_unit"),
            not_negative("unit_amount", "overage_unit_amount_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{plain(self.unit_amount)} per {counted(self.unit, Decimal(1))}"


class Scheme(models.TextChoices):
    PER_UNIT = "per_unit", "Per unit"
    GRADUATED = "graduated", "Graduated"
    VOLUME = "volume", "Volume"
    PACKAGE = "package", "Package"
    PERCENTAGE = "percentage", "Percentage"


class RowAmounts(models.Model):
    """What one row of a price says. Only the fields of its scheme are read.

    `tiers` holds {"up_to", "unit_amount", "flat_amount"} with amounts as strings (a check in the database says so).
    """

    unit_amount = amount_field(default=0, help_text="Of a per-unit price.")
    tiers: "models.JSONField[Any, Any]" = models.JSONField(
        default=list, blank=True, help_text="Of a graduated or volume price."
    )
    package_size = amount_field(default=1, help_text="Of a package price.")
    package_amount = amount_field(default=0, help_text="Of a package price: what each started package costs.")
    rate = amount_field(default=0, help_text="Of a percentage price, in percent.")
    fixed_amount = amount_field(default=0, help_text="Of a percentage price: per event.")
    included = amount_field(default=0, help_text="Free quantity of this row in each billing period.")
    minimum_amount = amount_field(
        null=True, blank=True, help_text="The least that this row costs in a billing period: added at its end."
    )
    maximum_amount = amount_field(null=True, blank=True, help_text="The most that this row costs in a billing period.")

    class Meta:
        abstract = True


def _sound_amounts(model: str) -> list[models.BaseConstraint]:
    names = ("unit_amount", "package_amount", "rate", "fixed_amount", "included", "minimum_amount", "maximum_amount")
    return [
        positive("package_size", f"{model}_package_size_positive"),
        *(not_negative(name, f"{model}_{name}_not_negative") for name in names),
    ]


class Price(RowAmounts):
    """How a meter's quantity becomes an amount. The fields here are the default row; match rows override it."""

    version = models.ForeignKey(PlanVersion, on_delete=models.CASCADE, related_name="prices")
    key = models.CharField(max_length=128, validators=[valid_key])
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="prices")
    unit = models.CharField(max_length=32, help_text="The plan's currency, or credits.")
    scheme = models.CharField(max_length=16, choices=Scheme, default=Scheme.PER_UNIT)
    per = amount_field(default=1, help_text="The quantity that the amount buys, for instance 1000000.")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["version", "key"], name="one_price_per_key"),
            models.UniqueConstraint(fields=["version", "meter"], name="one_price_per_meter"),
            models.CheckConstraint(condition=Q(key__regex=KEY_PATTERN), name="price_key_is_a_key"),
            models.CheckConstraint(condition=Q(scheme__in=Scheme.values), name="price_scheme_is_known"),
            positive("per", "price_per_positive"),
            *_sound_amounts("price"),
        ]

    def __str__(self) -> str:
        return self.key


class MatchRow(RowAmounts):
    """Other amounts for events whose dimensions match `where`: {dimension: value, [values] or null (absent)}."""

    price = models.ForeignKey(Price, on_delete=models.CASCADE, related_name="match")
    where: "models.JSONField[Any, Any]" = models.JSONField()

    class Meta:
        ordering = ["id"]
        constraints = _sound_amounts("match_row")

    def __str__(self) -> str:
        return format_where(self.where)


# --- for one customer -----------------------------------------------------------------------------------------


class PriceOverride(RowAmounts):
    """Other amounts of one row of a price for one customer in [starts_at, ends_at), which lie on quarter hours.

    It replaces all amounts of the row; scheme, `per` and condition stay. Only its end may change (a trigger guards
    it); one that ends where it starts was called off.
    """

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "ovr"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="price_overrides")
    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="overrides")
    row = models.ForeignKey(
        MatchRow, on_delete=models.PROTECT, null=True, blank=True, related_name="overrides", help_text="None: default."
    )
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    carried_from = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        editable=False,
        related_name="+",
        help_text="What it carries on under another plan version: the one that was agreed on.",
    )
    reason = models.CharField(max_length=500, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, editable=False, related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["starts_at", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at=None) | Q(ends_at__gte=models.F("starts_at")), name="override_ends_later"
            ),
            *_sound_amounts("override"),
        ]
        indexes = [models.Index(fields=["customer", "price"], name="override_of_customer")]

    def __str__(self) -> str:
        return f"{self.price.key} of {self.customer.key} since {self.starts_at:%Y-%m-%d}"


class CouponDuration(models.TextChoices):
    ONCE = "once", "Once"
    PERIODS = "periods", "A number of billing periods"
    FOREVER = "forever", "Forever"


class Coupon(models.Model):
    """A discount that subscriptions redeem: a percentage, or an amount of a currency, of each billing period.

    What it gives never changes (a trigger guards it); until when and how often it may be redeemed can.
    """

    key = models.CharField(max_length=128, unique=True, validators=[valid_key])
    name = models.CharField(max_length=200, help_text="As it stands on the invoice.")
    percent = amount_field(null=True, blank=True, help_text="0 to 100; or an amount.")
    amount = amount_field(null=True, blank=True, help_text="Off each billing period.")
    currency = models.CharField(max_length=3, blank=True, help_text="Of the amount.")
    duration = models.CharField(max_length=8, choices=CouponDuration, default=CouponDuration.ONCE)
    periods = models.PositiveSmallIntegerField(null=True, blank=True, help_text="How many billing periods it lasts.")
    redeem_by = models.DateTimeField(null=True, blank=True, help_text="Nobody can redeem it from then on.")
    max_redemptions = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["key"]
        constraints = [
            models.CheckConstraint(condition=Q(key__regex=KEY_PATTERN), name="coupon_key_is_a_key"),
            models.CheckConstraint(
                condition=Q(percent__isnull=False, percent__gt=0, percent__lte=100, amount=None, currency="")
                | Q(percent=None, amount__isnull=False, currency__regex="^[A-Z]{3}$"),
                name="coupon_is_a_percentage_or_an_amount",
            ),
            models.CheckConstraint(
                condition=Q(duration="periods", periods__gte=1) | Q(duration__in=["once", "forever"], periods=None),
                name="coupon_periods_fit_duration",
            ),
            positive("amount", "coupon_amount_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


# --- what it costs the vendor ---------------------------------------------------------------------------------


class UnitCost(models.Model):
    """What `per` of a meter's quantity costs the vendor where dimensions match `where` ({}: everything else), from
    `effective_at` until the next row with the same condition. Append-only; of two at one instant the later row counts.
    """

    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="unit_costs")
    where: "models.JSONField[Any, Any]" = models.JSONField(default=dict, blank=True)
    currency = models.CharField(max_length=3, default="USD", help_text="ISO 4217, in capitals.")
    unit_amount = amount_field()
    per = amount_field(default=1, help_text="The quantity that the amount buys, for instance 1000000.")
    effective_at = models.DateTimeField()
    source = models.CharField(max_length=200, blank=True, help_text="Where the amount comes from.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["meter", "effective_at", "id"]
        constraints = [
            models.CheckConstraint(condition=Q(currency__regex="^[A-Z]{3}$"), name="unit_cost_currency_is_iso"),
            not_negative("unit_amount", "unit_cost_unit_amount_not_negative"),
            positive("per", "unit_cost_per_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.meter.key}: {plain(self.unit_amount)} {self.currency} per {plain(self.per)}"
