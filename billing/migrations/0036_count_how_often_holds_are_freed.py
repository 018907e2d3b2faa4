"""What was read without a lock may be old once a hold was freed: its usage may have come since."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0035_top_up_credits"),
    ]

    operations = [
        migrations.AddField(
            model_name="holdaccount",
            name="frees",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
