"""Usage minute by minute, for two days."""

from decimal import Decimal

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keep_only_finished_answers"),
        ("billing", "0021_cap_dimension_values"),
    ]

    operations = [
        migrations.AlterField(
            model_name="usagedelta",
            name="starts_at",
            field=models.DateTimeField(help_text="The minute."),
        ),
        migrations.CreateModel(
            name="MinuteMember",
            fields=[
                ("starts_at", models.DateTimeField(db_index=True)),
                ("member", models.UUIDField()),
                ("events", models.BigIntegerField()),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "customer",
                        "meter",
                        "starts_at",
                        "member",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.customer",
                    ),
                ),
                (
                    "meter",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.meter",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="UsageMinute",
            fields=[
                ("starts_at", models.DateTimeField(db_index=True)),
                ("quantity", models.DecimalField(decimal_places=12, max_digits=38)),
                ("events", models.BigIntegerField()),
                ("rank", models.TextField(db_collation="C", null=True)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "customer", "meter", "starts_at", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.customer",
                    ),
                ),
                (
                    "meter",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.meter",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("quantity__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                            ("quantity__gt", models.Value(Decimal("-1E+26"), output_field=models.DecimalField())),
                        ),
                        name="minute_quantity_is_finite",
                    )
                ],
            },
        ),
    ]
