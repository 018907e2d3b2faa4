"""Each event and correction says which database transaction wrote it, and each posting what the fold before it saw.
Together they tell exactly which events a posting took into account. Ingest does not know of it."""

from django.db import migrations, models

# What is there already was written before any posting that says what it counted. The index is as good as free while
# events come in, because they lie in this order.
WRITTEN_IN = """
ALTER TABLE billing_usageevent ADD COLUMN written_in bigint NOT NULL DEFAULT 0;
ALTER TABLE billing_usageevent ALTER COLUMN written_in SET DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX usageevent_written_in ON billing_usageevent USING brin (written_in int8_minmax_multi_ops)
    WITH (autosummarize);
ALTER TABLE billing_eventcorrection ADD COLUMN written_in bigint NOT NULL DEFAULT 0;
ALTER TABLE billing_eventcorrection ALTER COLUMN written_in SET DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX correction_written_in ON billing_eventcorrection (written_in)
"""
NOT_WRITTEN_IN = """
ALTER TABLE billing_usageevent DROP COLUMN written_in;
ALTER TABLE billing_eventcorrection DROP COLUMN written_in
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0037_name_what_unit_costs_name"),
    ]

    operations = [
        migrations.RunSQL(WRITTEN_IN, NOT_WRITTEN_IN),
        migrations.AddField(
            model_name="watermark",
            name="snapshot",
            field=models.TextField(
                help_text="The database's snapshot in which everything that it shows is counted.", null=True
            ),
        ),
        migrations.AddField(
            model_name="ledgertransaction",
            name="counted",
            field=models.TextField(
                editable=False, help_text="Of usage: the snapshot of the events that it took into account.", null=True
            ),
        ),
    ]
