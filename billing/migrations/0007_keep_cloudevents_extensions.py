"""CloudEvents may carry attributes of their own: they are kept beside the event."""

from django.db import migrations, models

REASONS = [
    ("unknown_customer", "Unknown customer"),
    ("no_meter", "No meter of this type"),
    ("invalid_value", "A meter that came later cannot take its value"),
]


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_freeze_both_ends_of_a_move")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE billing_usageevent ADD COLUMN extensions jsonb",
            "ALTER TABLE billing_usageevent DROP COLUMN extensions",
        ),
        migrations.AddField(
            model_name="unmatchedevent",
            name="extensions",
            field=models.JSONField(help_text="What a CloudEvent carried beside its event.", null=True),
        ),
        migrations.AlterField(
            model_name="unmatchedevent",
            name="reason",
            field=models.CharField(choices=REASONS, max_length=32),
        ),
    ]
