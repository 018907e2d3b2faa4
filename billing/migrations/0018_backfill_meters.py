"""Meters that come, or get another dimension, after events were stored: which events counted as what, and how far a
meter's way through the older ones has come."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keep_only_finished_answers"),
        ("billing", "0017_correct_events"),
    ]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE billing_usageevent ADD COLUMN revision integer NOT NULL DEFAULT 0",
            "ALTER TABLE billing_usageevent DROP COLUMN revision",
        ),
        migrations.AddField(
            model_name="meter",
            name="revision",
            field=models.PositiveIntegerField(
                default=0, editable=False, help_text="The catalogue's number since it counts as it does."
            ),
        ),
        migrations.CreateModel(
            name="Backfill",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "dimensions_before",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=128),
                        help_text="As which they were counted; null when they were not.",
                        null=True,
                    ),
                ),
                ("occurred_at", models.DateTimeField(null=True)),
                ("identity", models.UUIDField(null=True)),
                ("events", models.PositiveBigIntegerField(default=0)),
                ("percent", models.PositiveSmallIntegerField(default=0)),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "customer",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.customer",
                    ),
                ),
                (
                    "meter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="backfills", to="billing.meter"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("finished_at", None)),
                        fields=("meter",),
                        name="one_unfinished_backfill_per_meter",
                    )
                ],
            },
        ),
    ]
