"""Months of events that were detached, and partitions that take over what the default one caught."""

from django.db import migrations, models

from billing.metering.partitions import MAKE_PARTITION


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0023_read_the_ledger_by_account"),
    ]

    operations = [
        migrations.CreateModel(
            name="ArchivedMonth",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField(unique=True)),
                ("table", models.CharField(max_length=63)),
                ("events", models.BigIntegerField()),
                ("archived_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-month"],
            },
        ),
        migrations.AddField(
            model_name="backfill",
            name="sees_from",
            field=models.DateTimeField(
                help_text="Events recorded before then are archived: it misses them.", null=True
            ),
        ),
        migrations.RunSQL(MAKE_PARTITION, migrations.RunSQL.noop),
    ]
