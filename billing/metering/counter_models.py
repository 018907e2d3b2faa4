"""The tables of the counters: usage in quarter hours, days, minutes and periods, by meter and dimension set."""

from typing import Any, Final

from django.db import models

from accounts.models import Customer
from billing.fields import amount_field, finite
from billing.metering.models import Meter, rank_field


class DimensionSet(models.Model):
    """A combination of dimension values that a customer used, stored once."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_index=False)
    digest = models.UUIDField()
    values = models.JSONField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "digest"], name="one_row_per_dimension_set"),
        ]

    def __str__(self) -> str:
        return str(self.values)


class NamedValue(models.Model):
    """A dimension value that a price, unit cost or budget names: it counts by itself however many others there are, and
    its dimension stays. Later rooms write what they name through `services.name_values`."""

    named_by = models.CharField(max_length=255, help_text="Which plan version, unit costs or budget.")
    meter = models.ForeignKey(Meter, on_delete=models.CASCADE, related_name="named_values")
    dimension = models.CharField(max_length=128)
    value = models.TextField(null=True, help_text="Null: events without the dimension.")
    digest = models.UUIDField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["named_by", "meter", "dimension", "digest"], nulls_distinct=False, name="one_row_per_naming"
            ),
        ]
        indexes = [models.Index(fields=["dimension", "digest"], name="named_dimension_value")]

    def __str__(self) -> str:
        return f"{self.dimension} = {self.value}"


class DimensionValue(models.Model):
    """A value of a dimension that counts by itself in a month (UTC), from the quarter hour `since` on."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_index=False)
    month = models.DateField()
    dimension = models.CharField(max_length=128)
    digest = models.UUIDField(help_text="Of the value.")
    since = models.DateTimeField()
    pk = models.CompositePrimaryKey("customer", "month", "dimension", "digest")

    def __str__(self) -> str:
        return f"{self.dimension}: {self.digest}"


class DimensionUse(models.Model):
    """How many values of a dimension a customer uses in a month (UTC), each counted by itself."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_index=False)
    month = models.DateField()
    dimension = models.CharField(max_length=128)
    values = models.PositiveIntegerField()
    capped_at = models.DateTimeField(null=True, help_text="Since when further values count under (other).")
    spilled_through = models.DateTimeField(null=True, help_text="The last quarter hour that has usage under (other).")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "month", "dimension"], name="one_row_per_dimension_use"),
        ]

    def __str__(self) -> str:
        return f"{self.dimension} in {self.month:%Y-%m}"


# Only the fold writes counters, with ids that it has just read: to check each reference again, row by row, took as long
# as writing them. The key of each table begins with the customer or period.
UNCHECKED: Final[dict[str, Any]] = {"db_index": False, "db_constraint": False}


class Counter(models.Model):
    """A quantity and a number of events per customer, meter and dimension set."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+", **UNCHECKED)
    dimension_set = models.ForeignKey(DimensionSet, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    quantity = amount_field(help_text="0 for a unique meter, whose members are counted instead.")
    events = models.BigIntegerField()
    rank = rank_field()

    class Meta:
        abstract = True


class UsageBucket(Counter):
    """Usage of one quarter hour (UTC)."""

    starts_at = models.DateTimeField()
    pk = models.CompositePrimaryKey("customer", "meter", "starts_at", "dimension_set")

    class Meta:
        constraints = [finite("quantity", "bucket_quantity_is_finite")]

    def __str__(self) -> str:
        return f"{self.quantity} in {self.starts_at}"


class UsageDay(Counter):
    """Usage of one UTC day before `Watermark.summed_before`, so that long ranges read few rows."""

    day = models.DateField()
    pk = models.CompositePrimaryKey("customer", "meter", "day", "dimension_set")

    class Meta:
        constraints = [finite("quantity", "day_quantity_is_finite")]

    def __str__(self) -> str:
        return f"{self.quantity} in {self.day}"


class UsageMinute(models.Model):
    """Usage of one minute, of all dimension sets together. Kept for two days: see `minutes`."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+", **UNCHECKED)
    starts_at = models.DateTimeField(db_index=True)
    quantity = amount_field()
    events = models.BigIntegerField()
    rank = rank_field()
    pk = models.CompositePrimaryKey("customer", "meter", "starts_at")

    class Meta:
        constraints = [finite("quantity", "minute_quantity_is_finite")]

    def __str__(self) -> str:
        return f"{self.quantity} in {self.starts_at}"


class TrackedPeriod(models.Model):
    """A range of a customer whose totals the fold keeps. Later rooms open one for each billing period."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["customer", "starts_at", "ends_at"], name="one_row_per_tracked_period"),
            models.CheckConstraint(
                condition=models.Q(ends_at__gt=models.F("starts_at")), name="tracked_period_is_not_empty"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.starts_at} to {self.ends_at}"


class PeriodTotal(models.Model):
    """Usage of a tracked period so far."""

    period = models.ForeignKey(TrackedPeriod, on_delete=models.CASCADE, related_name="totals", **UNCHECKED)
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+", **UNCHECKED)
    dimension_set = models.ForeignKey(DimensionSet, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    quantity = amount_field()
    events = models.BigIntegerField()
    rank = rank_field()
    members = models.BigIntegerField(null=True, help_text="Of a unique meter: how many members there are.")
    pk = models.CompositePrimaryKey("period", "meter", "dimension_set")

    class Meta:
        constraints = [finite("quantity", "period_total_is_finite")]

    def __str__(self) -> str:
        return f"{self.quantity} in {self.period_id}"


class Member(models.Model):
    """A value of a unique meter, as a 128-bit digest, and how many events had it: it counts while there are any."""

    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+", **UNCHECKED)
    dimension_set = models.ForeignKey(DimensionSet, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    member = models.UUIDField()
    events = models.BigIntegerField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return str(self.member)


class BucketMember(Member):
    """In one quarter hour (UTC)."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    starts_at = models.DateTimeField()
    pk = models.CompositePrimaryKey("customer", "meter", "starts_at", "dimension_set", "member")


class MinuteMember(models.Model):
    """A value of a unique meter in one minute, whatever its dimensions: it counts while there are any events."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="+", **UNCHECKED)
    starts_at = models.DateTimeField(db_index=True)
    member = models.UUIDField()
    events = models.BigIntegerField()
    pk = models.CompositePrimaryKey("customer", "meter", "starts_at", "member")

    def __str__(self) -> str:
        return str(self.member)


class DayMember(Member):
    """In one UTC day, as in `UsageDay`."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", **UNCHECKED)
    day = models.DateField()
    pk = models.CompositePrimaryKey("customer", "meter", "day", "dimension_set", "member")


class PeriodMember(Member):
    """In a tracked period so far."""

    period = models.ForeignKey(TrackedPeriod, on_delete=models.CASCADE, related_name="members", **UNCHECKED)
    pk = models.CompositePrimaryKey("period", "meter", "dimension_set", "member")
