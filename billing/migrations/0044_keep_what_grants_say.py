"""Of a grant and of a cell the application changes only what moves: what was given, to whom and until when stays."""

from django.db import migrations

from accounts.rights import changed_only_in


class Migration(migrations.Migration):
    dependencies = [("billing", "0043_carry_agreed_prices_over")]

    operations = [
        changed_only_in(
            "billing_creditgrant",
            "voided_at",
            "forfeited",
            "adjusted",
            "rolled_in",
            "reason",
            "created_by_id",  # when the user is deleted
        ),
        changed_only_in("billing_allocationcell", "posted"),
    ]
