"""Plans that customers may compare with theirs."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0030_watermarks_from_the_start")]

    operations = [
        migrations.AddField(
            "plan",
            "is_listed",
            models.BooleanField(
                default=False,
                help_text="Customers of other plans may compare it with theirs.",
                verbose_name="listed",
            ),
        ),
    ]
