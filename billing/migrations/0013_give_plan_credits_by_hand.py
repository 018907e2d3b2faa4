"""An operator may give credits of the kind "plan" too: for a plan that is kept elsewhere."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0012_price_by_tiers_packages_and_percentages")]

    operations = [
        migrations.RemoveConstraint(model_name="creditgrant", name="plan_grant_has_its_period"),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind", "plan"), ("period__isnull", False), ("term__isnull", False))
                | models.Q(("period", None), ("term", None)),
                name="grant_of_a_period_is_the_plans",
            ),
        ),
    ]
