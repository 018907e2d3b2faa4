"""The catalogue's numbers come from a sequence: that of a deleted meter, which events may carry, never comes again."""

from django.db import migrations

# Looks at each stored event once: some may carry the number of a meter that was deleted before. Locks nothing.
SEQUENCE = """
CREATE SEQUENCE billing_meter_revision AS integer;
SELECT setval('billing_meter_revision', 1 + coalesce(greatest(
    (SELECT max(revision) FROM billing_meter), (SELECT max(revision) FROM billing_usageevent)), 0), false);
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0049_say_what_to_do_about_notices")]

    operations = [migrations.RunSQL(SEQUENCE, "DROP SEQUENCE billing_meter_revision")]
