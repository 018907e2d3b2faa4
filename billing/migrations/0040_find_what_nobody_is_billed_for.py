"""Late differences that no billing period bills are few, and looked for at each settlement."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0039_know_payments_by_name")]

    operations = [
        migrations.AddIndex(
            model_name="billedline",
            index=models.Index(condition=models.Q(("period", None)), fields=["segment"], name="billed_line_to_nobody"),
        ),
    ]
