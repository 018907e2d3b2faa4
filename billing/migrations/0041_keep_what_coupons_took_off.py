"""A coupon for a number of billing periods counts those in which it took something off."""

from decimal import Decimal

import django.db.models.deletion
from django.db import migrations, models

from accounts.rights import append_only


class Migration(migrations.Migration):
    dependencies = [("billing", "0040_find_what_nobody_is_billed_for")]

    operations = [
        migrations.CreateModel(
            name="CouponUse",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "amount",
                    models.DecimalField(decimal_places=12, help_text="In the plan's currency.", max_digits=38),
                ),
                (
                    "period",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="billing.billingperiod"
                    ),
                ),
                (
                    "redemption",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="uses",
                        to="billing.couponredemption",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "constraints": [
                    models.UniqueConstraint(fields=("redemption", "period"), name="coupon_use_once_per_period"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                            ("amount__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                        ),
                        name="coupon_use_amount_positive",
                    ),
                ],
            },
        ),
        append_only("billing_couponuse"),
    ]
