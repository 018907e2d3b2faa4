"""At most so many values of a dimension, customer and month: which count by themselves, and which prices name."""

import django.db.models.deletion
from django.db import migrations, models

# What is counted so far counts by itself.
COUNTED = """
INSERT INTO billing_dimensionvalue (customer_id, month, dimension, digest, since)
SELECT DISTINCT day.customer_id, date_trunc('month', day)::date, dimension,
       substr(encode(sha256(convert_to(value, 'UTF8')), 'hex'), 1, 32)::uuid,
       date_trunc('month', day::timestamp) AT TIME ZONE 'UTC'
FROM billing_usageday AS day JOIN billing_dimensionset AS dimension_set ON dimension_set.id = dimension_set_id,
     jsonb_each_text("values") AS each (dimension, value);
INSERT INTO billing_dimensionuse (customer_id, month, dimension, "values")
SELECT customer_id, month, dimension, count(*) FROM billing_dimensionvalue GROUP BY customer_id, month, dimension
"""
NAMED = """
INSERT INTO billing_namedvalue (named_by, meter_id, dimension, value, digest)
SELECT DISTINCT 'plan ' || plan.key || ' version ' || version.number, price.meter_id, dimension, value,
       substr(encode(sha256(convert_to(value, 'UTF8')), 'hex'), 1, 32)::uuid
FROM billing_matchrow AS match
JOIN billing_price AS price ON price.id = match.price_id
JOIN billing_planversion AS version ON version.id = price.version_id AND version.status <> 'draft'
JOIN billing_plan AS plan ON plan.id = version.plan_id,
     jsonb_each(match."where") AS each (dimension, wanted),
     jsonb_array_elements_text(
        CASE jsonb_typeof(wanted) WHEN 'array' THEN wanted ELSE jsonb_build_array(wanted) END) AS one (value)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keep_only_finished_answers"),
        ("billing", "0020_change_meters_together"),
    ]

    operations = [
        migrations.CreateModel(
            name="DimensionValue",
            fields=[
                ("month", models.DateField()),
                ("dimension", models.CharField(max_length=128)),
                ("digest", models.UUIDField(help_text="Of the value.")),
                ("since", models.DateTimeField()),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "customer",
                        "month",
                        "dimension",
                        "digest",
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
            ],
        ),
        migrations.CreateModel(
            name="DimensionUse",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField()),
                ("dimension", models.CharField(max_length=128)),
                ("values", models.PositiveIntegerField()),
                (
                    "capped_at",
                    models.DateTimeField(help_text="Since when further values count under (other).", null=True),
                ),
                (
                    "spilled_through",
                    models.DateTimeField(help_text="The last quarter hour that has usage under (other).", null=True),
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
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("customer", "month", "dimension"), name="one_row_per_dimension_use")
                ],
            },
        ),
        migrations.CreateModel(
            name="NamedValue",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("named_by", models.CharField(help_text="Which price or budget.", max_length=255)),
                ("dimension", models.CharField(max_length=128)),
                ("value", models.TextField(help_text="Null: events without the dimension.", null=True)),
                ("digest", models.UUIDField(null=True)),
                (
                    "meter",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="named_values", to="billing.meter"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["dimension", "digest"], name="named_dimension_value")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("named_by", "meter", "dimension", "digest"),
                        name="one_row_per_naming",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        migrations.RunSQL(COUNTED, migrations.RunSQL.noop),
        migrations.RunSQL(NAMED, migrations.RunSQL.noop),
    ]
