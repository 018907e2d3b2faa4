"""Billing periods get plan segments, and subscriptions what changes and cancellations need."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q

# Until now a subscription had one version, and each of its periods counted as a whole one.
FILL = """
UPDATE billing_billingperiod SET whole_starts_at = starts_at, whole_ends_at = ends_at;
UPDATE billing_subscription s SET anchored_on = (s.starts_at AT TIME ZONE coalesce(
    (SELECT p.timezone FROM billing_billingperiod p WHERE p.subscription_id = s.id ORDER BY p.starts_at LIMIT 1),
    'UTC'))::date;
INSERT INTO billing_plansegment (period_id, version_id, starts_at, ends_at, is_trial, created_at)
    SELECT id, version_id, starts_at, ends_at, false, starts_at FROM billing_billingperiod;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0026_seal_and_check_the_books")]

    operations = [
        migrations.AddField(
            "subscription",
            "next_version",
            models.ForeignKey(
                editable=False,
                help_text="Holds from the next billing period.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.planversion",
            ),
        ),
        migrations.AddField("subscription", "trial_ends_at", models.DateTimeField(editable=False, null=True)),
        migrations.AddField("subscription", "anchored_on", models.DateField(editable=False, null=True)),
        migrations.AddField("billingperiod", "whole_starts_at", models.DateTimeField(null=True)),
        migrations.AddField("billingperiod", "whole_ends_at", models.DateTimeField(null=True)),
        migrations.CreateModel(
            "PlanSegment",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("is_trial", models.BooleanField(default=False)),
                (
                    "created_at",
                    models.DateTimeField(help_text="When it was asked for: a change that is undone at once never was."),
                ),
                (
                    "period",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="plan_segments",
                        to="billing.billingperiod",
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.planversion"
                    ),
                ),
            ],
            options={"ordering": ["starts_at"]},
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AlterField("subscription", "anchored_on", models.DateField(editable=False)),
        migrations.AlterField("billingperiod", "whole_starts_at", models.DateTimeField()),
        migrations.AlterField("billingperiod", "whole_ends_at", models.DateTimeField()),
        migrations.RemoveConstraint("billingperiod", "period_is_not_empty"),
        migrations.AddConstraint(
            "billingperiod",
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")) | Q(ends_at=F("starts_at"), status__in=["grace", "closed"]),
                name="period_is_not_empty",
            ),
        ),
        migrations.AddConstraint(
            "billingperiod",
            models.CheckConstraint(
                condition=Q(whole_starts_at__lte=F("starts_at"), whole_ends_at__gte=F("ends_at")),
                name="period_is_part_of_a_whole",
            ),
        ),
        migrations.AddConstraint(
            "plansegment",
            models.UniqueConstraint(fields=["period", "starts_at"], name="one_plan_segment_per_start"),
        ),
        migrations.AddConstraint(
            "plansegment",
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="plan_segment_is_not_empty"),
        ),
        migrations.RemoveConstraint("creditgrant", "one_plan_grant_per_period_and_term"),
        migrations.AddConstraint(
            "creditgrant",
            models.UniqueConstraint(
                fields=["period", "term", "effective_at"],
                condition=Q(voided_at=None) | Q(voided_at__gt=F("effective_at")),
                name="one_plan_grant_per_segment_and_term",
            ),
        ),
    ]
