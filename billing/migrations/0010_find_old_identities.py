"""Purging reads the old identities, not all of them."""

import django.contrib.postgres.indexes
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0009_link_alerts_to_messages")]

    operations = [
        migrations.AddIndex(
            model_name="eventidentity",
            index=django.contrib.postgres.indexes.BrinIndex(
                autosummarize=True, fields=["recorded_at"], name="identity_recorded_at"
            ),
        ),
    ]
