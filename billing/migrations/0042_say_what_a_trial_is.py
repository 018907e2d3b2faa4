"""The help of `trial_days` said that usage is charged in a trial."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0041_keep_what_coupons_took_off")]

    operations = [
        migrations.AlterField(
            model_name="planversion",
            name="trial_days",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="Days in which nothing is charged, before the first paid billing period."
            ),
        ),
    ]
