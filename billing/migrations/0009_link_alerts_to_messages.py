"""Several alerts may share one mail: an alert names the messages that told of it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_date_budget_levels")]

    operations = [
        migrations.AddField(
            model_name="alert",
            name="announcement",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="The cause of the outbox messages that told of it; empty if nobody was told.",
                max_length=40,
            ),
        ),
        migrations.AlterField(
            model_name="alert",
            name="epoch",
            field=models.PositiveIntegerField(help_text="How often the threshold had resolved in the period before."),
        ),
    ]
