"""What happened: meters, events, and the counters that pages and money are computed from."""

import uuid
from functools import partial
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models.functions import Now

from accounts.ids import new_id
from accounts.models import KEY_PATTERN, ApiKey, Customer, valid_key
from billing.fields import ExactDecoder


class Aggregation(models.TextChoices):
    SUM = "sum", "Sum of a value"
    COUNT = "count", "Number of events"
    MAX = "max", "Greatest value"
    LATEST = "latest", "Value of the latest event"
    UNIQUE = "unique", "Number of different values"


class Meter(models.Model):
    """What is counted: an aggregation over the events of one type that pass its filters."""

    key = models.CharField(max_length=128, unique=True, validators=[valid_key])
    name = models.CharField(max_length=200)
    unit = models.CharField(max_length=32, help_text="What one of it is called, for instance token.")
    event_type = models.CharField(max_length=255)
    aggregation = models.CharField(max_length=16, choices=Aggregation)
    value = models.CharField(max_length=255, blank=True, help_text="Dotted path of the property; none for a count.")
    dimensions = ArrayField(models.CharField(max_length=128), default=list, blank=True)
    filters = models.JSONField(default=list, blank=True)
    revision = models.PositiveIntegerField(
        default=0, editable=False, help_text="The catalogue's number since it counts as it does."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["key"]
        constraints = [
            models.CheckConstraint(condition=models.Q(key__regex=KEY_PATTERN), name="meter_key_is_a_key"),
            models.CheckConstraint(
                condition=models.Q(aggregation__in=Aggregation.values), name="meter_aggregation_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(aggregation="count", value="")
                | ~models.Q(aggregation="count") & ~models.Q(value=""),
                name="meter_value_fits_aggregation",
            ),
        ]
        indexes = [models.Index(fields=["event_type"], name="meter_event_type")]

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"

    @property
    def is_additive(self) -> bool:
        """Whether quantities of parts add up to the quantity of the whole."""
        return self.aggregation in (Aggregation.SUM, Aggregation.COUNT)


class Backfill(models.Model):
    """A meter's way through the events that were stored before it counted as it does, in the order of customer, time
    and identity. What lies behind the cursor is counted."""

    meter = models.ForeignKey(Meter, on_delete=models.CASCADE, related_name="backfills")
    dimensions_before = ArrayField(
        models.CharField(max_length=128), null=True, help_text="As which they were counted; null when they were not."
    )
    customer = models.ForeignKey(
        Customer, on_delete=models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    occurred_at = models.DateTimeField(null=True)
    identity = models.UUIDField(null=True)
    events = models.PositiveBigIntegerField(default=0)
    percent = models.PositiveSmallIntegerField(default=0)
    sees_from = models.DateTimeField(null=True, help_text="Events recorded before then are archived: it misses them.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["meter"], condition=models.Q(finished_at=None), name="one_unfinished_backfill_per_meter"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter_id}: {self.percent} %"


class EventIdentity(models.Model):
    """(source, id) of every event ever acknowledged, as a 128-bit digest, beside a digest of what it said.

    Not partitioned: the same id with another time must meet it. Kept 42 days after `recorded_at`, which is longer
    than the accept window; `permanent` ones (imported, back-filled) for ever.
    """

    digest = models.UUIDField(primary_key=True)
    payload = models.UUIDField()
    recorded_at = models.DateTimeField()
    permanent = models.BooleanField(default=False)

    class Meta:
        # Rows lie in the order they were recorded, so a few pages tell where the old ones are.
        indexes = [BrinIndex(fields=["recorded_at"], name="identity_recorded_at", autosummarize=True)]

    def __str__(self) -> str:
        return str(self.digest)


class ArchivedMonth(models.Model):
    """A month of recording whose events were detached: their table is no part of the events any more."""

    month = models.DateField(unique=True)
    table = models.CharField(max_length=63)
    events = models.BigIntegerField()
    archived_at = models.DateTimeField()

    class Meta:
        ordering = ["-month"]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class EventFields(models.Model):
    """What an event said."""

    identity = models.UUIDField()
    source = models.TextField()
    event_id = models.TextField()
    type = models.TextField()
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField()
    properties = models.JSONField(decoder=ExactDecoder)
    extensions = models.JSONField(null=True, help_text="What a CloudEvent carried beside its event.")

    class Meta:
        abstract = True


class UsageEvent(EventFields):
    """An accepted event. Append-only; partitioned by month of `recorded_at`, so that old months detach.

    The database has no key on it: `EventIdentity` is what makes `identity` unique (see the migration).
    """

    identity = models.UUIDField(primary_key=True, default=uuid.uuid4)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+", db_constraint=False)
    revision = models.IntegerField(default=0, help_text="The highest of the meters that counted it when it came.")

    class Meta:
        managed = False
        db_table = "billing_usageevent"

    def __str__(self) -> str:
        return f"{self.source}/{self.event_id}"


class CorrectionKind(models.TextChoices):
    VOID = "void", "Void"
    AMEND = "amend", "Amended"


class EventCorrection(models.Model):
    """A later word on an event. Appended and never changed: the last one holds, and nothing follows a void."""

    identity = models.UUIDField()
    kind = models.CharField(max_length=8, choices=CorrectionKind)
    properties = models.JSONField(null=True, decoder=ExactDecoder, help_text="All of them, as amended.")
    reason = models.TextField(blank=True)
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.DO_NOTHING, null=True, related_name="+", db_index=False, db_constraint=False
    )
    recorded_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["identity"], condition=models.Q(kind="void"), name="one_void_per_event"),
            models.CheckConstraint(
                condition=models.Q(kind="void", properties__isnull=True)
                | models.Q(kind="amend", properties__isnull=False),
                name="correction_fits_its_kind",
            ),
        ]
        indexes = [models.Index(fields=["identity"], name="correction_identity")]

    def __str__(self) -> str:
        return f"{self.kind} {self.identity}"


class UnmatchedReason(models.TextChoices):
    UNKNOWN_CUSTOMER = "unknown_customer", "Unknown customer"
    NO_METER = "no_meter", "No meter of this type"
    INVALID_VALUE = "invalid_value", "A meter that came later cannot take its value"


class UnmatchedEvent(EventFields):
    """An event that nothing counts yet: stored, visible, and moved to the events when what it lacks appears."""

    customer_key = models.TextField()
    reason = models.CharField(max_length=32, choices=UnmatchedReason)

    class Meta:
        indexes = [
            models.Index(fields=["customer_key"], name="unmatched_customer"),
            models.Index(fields=["type"], name="unmatched_type"),
            models.Index(fields=["identity"], name="unmatched_identity"),
        ]

    def __str__(self) -> str:
        return f"{self.source}/{self.event_id}: {self.reason}"


class RefusedItems(models.Model):
    """Items of one request that were refused for one reason: a count and a sample. Appended, never updated."""

    api_key = models.ForeignKey(ApiKey, on_delete=models.SET_NULL, null=True, related_name="+")
    source = models.TextField(blank=True)
    code = models.CharField(max_length=64)
    items = models.PositiveIntegerField()
    sample = models.TextField()
    detail = models.TextField()
    recorded_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "refused items"
        indexes = [models.Index(fields=["recorded_at"], name="refused_recorded_at")]

    def __str__(self) -> str:
        return f"{self.items} x {self.code}"


def rank_field() -> "models.TextField[Any, Any]":
    """Quantities of max and latest meters are not added: the one with the greatest rank, by bytes, decides."""
    return models.TextField(null=True, db_collation="C")


class UsageDelta(models.Model):
    """Changes of the counters by what occurred in one minute with one dimension set, committed but not yet folded: the
    same place in each list is about the same meter. Also the mark that a customer is dirty. Ingest appends; only
    the fold deletes."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="+", db_constraint=False)
    starts_at = models.DateTimeField(help_text="The minute.")
    dimensions = models.TextField(help_text="JSON object with sorted keys: the values of the meters' dimensions.")
    meters = ArrayField(models.BigIntegerField())
    quantities = ArrayField(models.DecimalField(max_digits=38, decimal_places=12))
    events = ArrayField(models.BigIntegerField())
    ranks = ArrayField(rank_field(), null=True, help_text="Null when no meter has one.")
    members = ArrayField(
        models.UUIDField(null=True),
        null=True,
        help_text="Of unique meters: digests of the values. Null when no meter has one.",
    )

    def __str__(self) -> str:
        return f"{self.quantities} at {self.starts_at}"


class EventEnding(models.Model):
    """A hold that an event ended, for the room that frees it: written with the event, marked by the fold that counts
    it, and taken away with the hold."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    authorization = models.CharField(max_length=40, unique=True)
    is_counted = models.BooleanField(default=False, db_default=False)

    def __str__(self) -> str:
        return self.authorization


class Watermark(models.Model):
    """How far a customer's events are counted. The row is also what a tick claims, so that one works at a time; a
    trigger makes it with the customer.

    `version` grows whenever anything that a page shows has moved.
    """

    customer = models.OneToOneField(Customer, on_delete=models.CASCADE, primary_key=True, related_name="+")
    counted_through = models.DateTimeField(default=None, null=True)
    snapshot = models.TextField(
        null=True, help_text="The database's snapshot in which everything that it shows is counted."
    )
    version = models.BigIntegerField(default=0)
    summed_before = models.DateTimeField(
        null=True, help_text="Days hold the quarter hours before this one; later ones are in their buckets only."
    )

    def __str__(self) -> str:
        return f"{self.customer_id}: {self.counted_through}"


class ImportRun(models.Model):
    """A file that `import_usage` reads, and how far it has come."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "imp"), editable=False)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the file: the source of its events.")
    mapping_digest = models.CharField(max_length=64, help_text="Of the options that give a row its meaning.")
    name = models.CharField(max_length=255)
    next_row = models.PositiveBigIntegerField(default=0)
    accepted = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["digest", "mapping_digest"], name="one_import_per_file_and_mapping"),
        ]

    def __str__(self) -> str:
        return self.name
