"""Prices by tiers, packages and percentages. What tiers hold is checked as strictly as amounts in columns are."""

from decimal import Decimal

from django.db import migrations, models

AMOUNT = '"^[0-9]{1,26}([.][0-9]{1,12})?$"'
TIERS = f"""
    jsonb_typeof(tiers) = 'array' AND jsonb_array_length(tiers) = jsonb_array_length(jsonb_path_query_array(tiers,
        '$[*] ? (@.unit_amount like_regex {AMOUNT} && @.flat_amount like_regex {AMOUNT}
                 && (@.up_to == null || @.up_to like_regex {AMOUNT}))'))
"""


def check_tiers(table: str, name: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({TIERS})", f"ALTER TABLE {table} DROP CONSTRAINT {name}"
    )


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0011_settle_in_numbered_postings"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="price",
            name="price_scheme_is_known",
        ),
        migrations.AddField(
            model_name="matchrow",
            name="fixed_amount",
            field=models.DecimalField(
                decimal_places=12, default=0, help_text="Of a percentage price: per event.", max_digits=38
            ),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="included",
            field=models.DecimalField(
                decimal_places=12,
                default=0,
                help_text="Free quantity of this row in each billing period.",
                max_digits=38,
            ),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="maximum_amount",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The most that this row costs in a billing period.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="package_amount",
            field=models.DecimalField(
                decimal_places=12,
                default=0,
                help_text="Of a package price: what each started package costs.",
                max_digits=38,
            ),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="package_size",
            field=models.DecimalField(decimal_places=12, default=1, help_text="Of a package price.", max_digits=38),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="rate",
            field=models.DecimalField(
                decimal_places=12, default=0, help_text="Of a percentage price, in percent.", max_digits=38
            ),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="tiers",
            field=models.JSONField(blank=True, default=list, help_text="Of a graduated or volume price."),
        ),
        migrations.AddField(
            model_name="price",
            name="fixed_amount",
            field=models.DecimalField(
                decimal_places=12, default=0, help_text="Of a percentage price: per event.", max_digits=38
            ),
        ),
        migrations.AddField(
            model_name="price",
            name="maximum_amount",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The most that this row costs in a billing period.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="price",
            name="package_amount",
            field=models.DecimalField(
                decimal_places=12,
                default=0,
                help_text="Of a package price: what each started package costs.",
                max_digits=38,
            ),
        ),
        migrations.AddField(
            model_name="price",
            name="package_size",
            field=models.DecimalField(decimal_places=12, default=1, help_text="Of a package price.", max_digits=38),
        ),
        migrations.AddField(
            model_name="price",
            name="rate",
            field=models.DecimalField(
                decimal_places=12, default=0, help_text="Of a percentage price, in percent.", max_digits=38
            ),
        ),
        migrations.AddField(
            model_name="price",
            name="tiers",
            field=models.JSONField(blank=True, default=list, help_text="Of a graduated or volume price."),
        ),
        migrations.AlterField(
            model_name="matchrow",
            name="unit_amount",
            field=models.DecimalField(decimal_places=12, default=0, help_text="Of a per-unit price.", max_digits=38),
        ),
        migrations.AlterField(
            model_name="price",
            name="included",
            field=models.DecimalField(
                decimal_places=12,
                default=0,
                help_text="Free quantity of this row in each billing period.",
                max_digits=38,
            ),
        ),
        migrations.AlterField(
            model_name="price",
            name="scheme",
            field=models.CharField(
                choices=[
                    ("per_unit", "Per unit"),
                    ("graduated", "Graduated"),
                    ("volume", "Volume"),
                    ("package", "Package"),
                    ("percentage", "Percentage"),
                ],
                default="per_unit",
                max_length=16,
            ),
        ),
        migrations.AlterField(
            model_name="price",
            name="unit_amount",
            field=models.DecimalField(decimal_places=12, default=0, help_text="Of a per-unit price.", max_digits=38),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("package_size__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("package_size__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_package_size_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("package_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("package_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_package_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("rate__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("rate__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_rate_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("fixed_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("fixed_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_fixed_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("included__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("included__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_included_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("maximum_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("maximum_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_maximum_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(("scheme__in", ["per_unit", "graduated", "volume", "package", "percentage"])),
                name="price_scheme_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("package_size__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("package_size__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="price_package_size_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("package_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("package_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="price_package_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("rate__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("rate__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="price_rate_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("fixed_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("fixed_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="price_fixed_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("maximum_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("maximum_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="price_maximum_amount_not_negative",
            ),
        ),
        check_tiers("billing_price", "price_tiers_are_amounts"),
        check_tiers("billing_matchrow", "match_row_tiers_are_amounts"),
    ]
