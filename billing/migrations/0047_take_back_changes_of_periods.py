"""What a subscription and its period were before a change to other billing periods, so that it can be taken back."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0046_lock_before_reading"),
    ]

    operations = [
        migrations.CreateModel(
            name="PeriodChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("ends_at", models.DateTimeField()),
                ("whole_starts_at", models.DateTimeField()),
                ("whole_ends_at", models.DateTimeField()),
                ("anchored_on", models.DateField()),
                ("anchor_day", models.PositiveSmallIntegerField()),
                ("anchor_month", models.PositiveSmallIntegerField(null=True)),
                ("asked_at", models.DateTimeField()),
                (
                    "period",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="billing.billingperiod"
                    ),
                ),
                (
                    "subscription",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="period_changes",
                        to="billing.subscription",
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.planversion"
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
            },
        ),
    ]
