"""A period that has ended is judged only by levels that held when it ended; epochs are counted from the alerts."""

from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_keep_cloudevents_extensions")]

    operations = [
        migrations.RemoveField(model_name="budget", name="epoch"),
        migrations.AddField(
            model_name="budget",
            name="levels_since",
            field=models.DateTimeField(
                db_default=Now(), editable=False, help_text="When the amount or a threshold last changed."
            ),
        ),
    ]
