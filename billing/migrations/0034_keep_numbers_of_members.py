"""How many members a unique meter has in a period is kept beside its total: counting a million rows takes a second."""

from django.db import migrations, models

COUNT = """
UPDATE billing_periodtotal AS total SET members = counted.members
FROM (
    SELECT period_id, meter_id, dimension_set_id, count(*) FILTER (WHERE events > 0) AS members
    FROM billing_periodmember GROUP BY 1, 2, 3
) AS counted
WHERE (total.period_id, total.meter_id, total.dimension_set_id)
    = (counted.period_id, counted.meter_id, counted.dimension_set_id)
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0033_bill_late_differences")]

    operations = [
        migrations.AddField(
            model_name="periodtotal",
            name="members",
            field=models.BigIntegerField(help_text="Of a unique meter: how many members there are.", null=True),
        ),
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
    ]
