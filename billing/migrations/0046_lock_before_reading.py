"""Authorizations lock accounts before they read, so nothing needs to count how often holds were freed."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0045_trust_the_ids_of_counters"),
    ]

    operations = [
        migrations.RemoveField(model_name="holdaccount", name="frees"),
        migrations.AddIndex(
            model_name="authorization",
            index=models.Index(
                fields=["customer"],
                condition=Q(settled_at=None, ended_at__isnull=False),
                name="authorization_ended",
            ),
        ),
    ]
