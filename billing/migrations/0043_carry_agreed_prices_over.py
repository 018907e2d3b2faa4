"""An agreed price goes on under another plan version as a copy that names it."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0042_say_what_a_trial_is")]

    operations = [
        migrations.AddField(
            model_name="priceoverride",
            name="carried_from",
            field=models.ForeignKey(
                editable=False,
                help_text="What it carries on under another plan version: the one that was agreed on.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.priceoverride",
            ),
        ),
    ]
