"""An advisory lock marks a request that still runs; a row is written when it has succeeded."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_sign_invitation_links")]

    operations = [migrations.AlterField("idempotentrequest", "status", models.PositiveSmallIntegerField())]
