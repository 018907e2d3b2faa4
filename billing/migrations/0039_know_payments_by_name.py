"""Payments are known by their own names, so that none is made twice; what the provider tells is noted."""

from decimal import Decimal

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_give_sandboxes_their_own_time"),
        ("billing", "0038_tell_which_events_a_posting_counted"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="PaymentNotice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("provider", models.CharField(max_length=16)),
                ("reference", models.CharField(max_length=255)),
                ("kind", models.CharField(max_length=100)),
                ("subject", models.CharField(help_text="What it is about, by its name there.", max_length=255)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="topup",
            name="top_up_is_granted_when_paid",
        ),
        migrations.RemoveConstraint(
            model_name="topup",
            name="one_automatic_top_up_at_a_time",
        ),
        migrations.RemoveConstraint(
            model_name="topup",
            name="one_top_up_per_payment",
        ),
        migrations.AddField(
            model_name="automatictopup",
            name="paused_because",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Why nothing is bought until an owner has looked at it.",
                max_length=500,
            ),
        ),
        migrations.AddField(
            model_name="paymentaccount",
            name="card",
            field=models.CharField(blank=True, default="", help_text="As its owner knows it.", max_length=100),
        ),
        migrations.AddField(
            model_name="topup",
            name="payment",
            field=models.CharField(blank=True, default="", help_text="The payment's name there.", max_length=255),
        ),
        migrations.AddField(
            model_name="topup",
            name="receipt_url",
            field=models.TextField(blank=True, default=""),
        ),
        migrations.AddField(
            model_name="topup",
            name="tried_at",
            field=models.DateTimeField(help_text="When the provider was asked about it last.", null=True),
        ),
        migrations.AddField(
            model_name="topupprice",
            name="choices",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.DecimalField(decimal_places=12, max_digits=38),
                blank=True,
                default=list,
            ),
        ),
        migrations.AddField(
            model_name="topupprice",
            name="least",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The smallest purchase, in the unit; empty for any.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="topupprice",
            name="most",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The largest purchase, in the unit; empty for any.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="topup",
            name="reference",
            field=models.CharField(blank=True, default="", help_text="The payment page's name there.", max_length=255),
        ),
        migrations.AlterField(
            model_name="topup",
            name="status",
            field=models.CharField(
                choices=[
                    ("pending", "Waits for the payment"),
                    ("action_required", "Waits for you"),
                    ("paid", "Paid"),
                    ("failed", "Failed"),
                    ("reversed", "Paid back"),
                ],
                default="pending",
                max_length=16,
            ),
        ),
        migrations.AddIndex(
            model_name="topup",
            index=models.Index(condition=models.Q(("status", "pending")), fields=["tried_at"], name="top_up_waits"),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("grant", None), ("status__in", ["pending", "action_required", "failed"])),
                    models.Q(("grant__isnull", False), ("status__in", ["paid", "reversed"])),
                    _connector="OR",
                ),
                name="top_up_is_granted_when_paid",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("is_automatic", True), ("status__in", ["pending", "action_required"])),
                fields=("customer", "unit"),
                name="one_automatic_top_up_at_a_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("reference", ""), _negated=True),
                fields=("provider", "reference"),
                name="one_top_up_per_payment_page",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("payment", ""), _negated=True),
                fields=("provider", "payment"),
                name="one_top_up_per_payment",
            ),
        ),
        migrations.AddConstraint(
            model_name="topupprice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("least__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("least__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="top_up_least_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="topupprice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("most__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("most__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="top_up_most_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="topupprice",
            constraint=models.CheckConstraint(
                condition=models.Q(("most__gte", models.F("least"))),
                name="top_up_most_is_not_below_least",
                violation_error_message="The largest purchase is smaller than the smallest.",
            ),
        ),
        migrations.AddConstraint(
            model_name="topupprice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("unit", models.F("currency")), _negated=True), ("unit_amount", 1), _connector="OR"
                ),
                name="top_up_money_costs_itself",
                violation_error_message="Money costs itself: its unit amount is 1.",
            ),
        ),
        migrations.AddField(
            model_name="paymentnotice",
            name="top_up",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.topup"
            ),
        ),
        migrations.AddConstraint(
            model_name="paymentnotice",
            constraint=models.UniqueConstraint(fields=("provider", "reference"), name="one_notice_per_name"),
        ),
    ]
