"""One row for all the meters that an event changes, where there was one each."""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models

TOGETHER = """
ALTER TABLE billing_usagedelta
    ALTER COLUMN meter_id TYPE bigint[] USING ARRAY[meter_id],
    ALTER COLUMN quantity TYPE numeric(38, 12)[] USING ARRAY[quantity],
    ALTER COLUMN events TYPE bigint[] USING ARRAY[events],
    ALTER COLUMN rank TYPE text[] COLLATE "C" USING CASE WHEN rank IS NOT NULL THEN ARRAY[rank] END,
    ALTER COLUMN member TYPE uuid[] USING CASE WHEN member IS NOT NULL THEN ARRAY[member] END;
ALTER TABLE billing_usagedelta RENAME COLUMN meter_id TO meters;
ALTER TABLE billing_usagedelta RENAME COLUMN quantity TO quantities;
ALTER TABLE billing_usagedelta RENAME COLUMN rank TO ranks;
ALTER TABLE billing_usagedelta RENAME COLUMN member TO members;
"""
APART = """
WITH together AS (
    DELETE FROM billing_usagedelta WHERE cardinality(meters) > 1 RETURNING *
)
INSERT INTO billing_usagedelta (customer_id, starts_at, dimensions, meters, quantities, events, ranks, members)
SELECT customer_id, starts_at, dimensions, ARRAY[meter], ARRAY[quantity], ARRAY[one.events], ARRAY[rank], ARRAY[member]
FROM together, unnest(meters, quantities, together.events, ranks, members)
    AS one (meter, quantity, events, rank, member)
ORDER BY together.id;
ALTER TABLE billing_usagedelta
    ALTER COLUMN meters TYPE bigint USING meters[1],
    ALTER COLUMN quantities TYPE numeric(38, 12) USING quantities[1],
    ALTER COLUMN events TYPE bigint USING events[1],
    ALTER COLUMN ranks TYPE text COLLATE "C" USING ranks[1],
    ALTER COLUMN members TYPE uuid USING members[1];
ALTER TABLE billing_usagedelta RENAME COLUMN meters TO meter_id;
ALTER TABLE billing_usagedelta RENAME COLUMN quantities TO quantity;
ALTER TABLE billing_usagedelta RENAME COLUMN ranks TO rank;
ALTER TABLE billing_usagedelta RENAME COLUMN members TO member;
"""

STATE = [
    migrations.RemoveField(model_name="usagedelta", name="member"),
    migrations.RemoveField(model_name="usagedelta", name="meter"),
    migrations.RemoveField(model_name="usagedelta", name="quantity"),
    migrations.RemoveField(model_name="usagedelta", name="rank"),
    migrations.AddField(
        model_name="usagedelta",
        name="members",
        field=ArrayField(
            base_field=models.UUIDField(null=True),
            help_text="Of unique meters: digests of the values. Null when no meter has one.",
            null=True,
        ),
    ),
    migrations.AddField(
        model_name="usagedelta",
        name="meters",
        field=ArrayField(base_field=models.BigIntegerField(), default=None),
        preserve_default=False,
    ),
    migrations.AddField(
        model_name="usagedelta",
        name="quantities",
        field=ArrayField(base_field=models.DecimalField(decimal_places=12, max_digits=38), default=None),
        preserve_default=False,
    ),
    migrations.AddField(
        model_name="usagedelta",
        name="ranks",
        field=ArrayField(
            base_field=models.TextField(db_collation="C", null=True),
            help_text="Null when no meter has one.",
            null=True,
        ),
    ),
    migrations.AlterField(
        model_name="usagedelta",
        name="dimensions",
        field=models.TextField(help_text="JSON object with sorted keys: the values of the meters' dimensions."),
    ),
    migrations.AlterField(
        model_name="usagedelta", name="events", field=ArrayField(base_field=models.BigIntegerField())
    ),
]


class Migration(migrations.Migration):
    dependencies = [("billing", "0019_price_with_minimums_overrides_and_coupons")]

    operations = [
        migrations.RunSQL(TOGETHER, APART, state_operations=STATE),
    ]
