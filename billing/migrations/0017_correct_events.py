"""Corrections of events: appended, never changed. An event is found by its identity and when it was recorded."""

import django.db.models.deletion
from django.db import migrations, models

import billing.fields
from accounts.rights import append_only

# A few pages per instant, and nothing to keep up with while events come in.
FIND_EVENTS = """
CREATE INDEX usageevent_recorded_at ON billing_usageevent
    USING brin (recorded_at timestamptz_minmax_multi_ops) WITH (autosummarize)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keep_only_finished_answers"),
        ("billing", "0016_count_what_does_not_add_up"),
    ]

    operations = [
        migrations.CreateModel(
            name="EventCorrection",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("identity", models.UUIDField()),
                ("kind", models.CharField(choices=[("void", "Void"), ("amend", "Amended")], max_length=8)),
                (
                    "properties",
                    models.JSONField(
                        decoder=billing.fields.ExactDecoder, help_text="All of them, as amended.", null=True
                    ),
                ),
                ("reason", models.TextField(blank=True)),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="accounts.apikey",
                    ),
                ),
                ("recorded_at", models.DateTimeField()),
            ],
            options={
                "indexes": [models.Index(fields=["identity"], name="correction_identity")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("kind", "void")), fields=("identity",), name="one_void_per_event"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("kind", "void"), ("properties__isnull", True))
                        | models.Q(("kind", "amend"), ("properties__isnull", False)),
                        name="correction_fits_its_kind",
                    ),
                ],
            },
        ),
        append_only("billing_eventcorrection"),
        migrations.AddIndex("unmatchedevent", models.Index(fields=["identity"], name="unmatched_identity")),
        migrations.RunSQL(FIND_EVENTS, "DROP INDEX usageevent_recorded_at"),
    ]
