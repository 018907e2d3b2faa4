"""The tick asks each second which ended grants have something left: an index of those that have."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0013_give_plan_credits_by_hand")]

    operations = [
        migrations.AddIndex(
            model_name="ledgeraccount",
            index=models.Index(
                condition=models.Q(("credits__gt", models.F("debits")), ("kind", "grant")),
                fields=["grant"],
                name="grant_account_with_a_rest",
            ),
        ),
    ]
