"""The link of an invitation is signed, so the table needs no digest of a secret."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.RemoveField("invitation", "secret_digest"),
        migrations.AlterField(
            "invitation",
            "invited_by",
            models.ForeignKey(
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField("invitation", "expires_at", models.DateTimeField(editable=False)),
    ]
