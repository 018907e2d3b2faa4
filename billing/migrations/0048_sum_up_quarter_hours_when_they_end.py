"""Quarter hours are added to their day once they have ended, not at each fold: until then they are in buckets only."""

from django.db import migrations, models

# So far each day was kept up to date, the current one too.
KEPT = """
UPDATE billing_watermark SET summed_before = (kept.day + 1)::timestamp AT TIME ZONE 'UTC'
FROM (SELECT customer_id, max(day) AS day FROM billing_usageday GROUP BY customer_id) AS kept
WHERE kept.customer_id = billing_watermark.customer_id
"""
NOT_KEPT_YET = """
INSERT INTO billing_usageday AS kept (customer_id, meter_id, day, dimension_set_id, quantity, events, rank)
SELECT customer_id, meter_id, (starts_at AT TIME ZONE 'UTC')::date, dimension_set_id,
       coalesce((max(ARRAY[rank, quantity::text] COLLATE "C") FILTER (WHERE rank IS NOT NULL))[2]::numeric,
                sum(quantity)), sum(events), max(rank)
FROM billing_usagebucket JOIN billing_watermark USING (customer_id)
WHERE starts_at >= coalesce(summed_before, '-infinity') GROUP BY 1, 2, 3, 4
ON CONFLICT (customer_id, meter_id, day, dimension_set_id) DO UPDATE SET
    quantity = CASE WHEN excluded.rank IS NULL THEN kept.quantity + excluded.quantity
                    WHEN kept.rank >= excluded.rank THEN kept.quantity ELSE excluded.quantity END,
    rank = greatest(kept.rank, excluded.rank), events = kept.events + excluded.events;
INSERT INTO billing_daymember AS kept (customer_id, meter_id, day, dimension_set_id, member, events)
SELECT customer_id, meter_id, (starts_at AT TIME ZONE 'UTC')::date, dimension_set_id, member, sum(events)
FROM billing_bucketmember JOIN billing_watermark USING (customer_id)
WHERE starts_at >= coalesce(summed_before, '-infinity') GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (customer_id, meter_id, day, dimension_set_id, member)
DO UPDATE SET events = kept.events + excluded.events;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0047_take_back_changes_of_periods")]

    operations = [
        migrations.AddField(
            model_name="watermark",
            name="summed_before",
            field=models.DateTimeField(
                help_text="Days hold the quarter hours before this one; later ones are in their buckets only.",
                null=True,
            ),
        ),
        migrations.RunSQL(KEPT, NOT_KEPT_YET),
    ]
