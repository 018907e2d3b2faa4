"""Events: one table, partitioned by month of recording, so that old months detach and the counters stay."""

from django.db import migrations

from accounts.rights import append_only
from billing.metering.partitions import MAKE_PARTITION

EVENTS = """
CREATE TABLE billing_usageevent (
    identity uuid NOT NULL,
    source text NOT NULL,
    event_id text NOT NULL,
    type text NOT NULL,
    customer_id bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    properties jsonb NOT NULL
) PARTITION BY RANGE (recorded_at);
CREATE INDEX usageevent_customer_occurred_at ON billing_usageevent (customer_id, occurred_at, identity);
-- Catches what no month's partition takes, so that a missing one loses nothing.
CREATE TABLE billing_usageevent_default PARTITION OF billing_usageevent DEFAULT;
"""

FIRST_PARTITIONS = """
SELECT close_usageevent_partition('billing_usageevent_default');
SELECT make_usageevent_partition((date_trunc('month', now()) + month * interval '1 month')::date)
FROM generate_series(0, 3) AS month
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_rooms")]

    operations = [
        migrations.RunSQL(EVENTS, "DROP TABLE billing_usageevent"),
        append_only("billing_usageevent"),
        migrations.RunSQL(
            MAKE_PARTITION,
            "DROP FUNCTION make_usageevent_partition; DROP FUNCTION close_usageevent_partition",
        ),
        migrations.RunSQL(FIRST_PARTITIONS, migrations.RunSQL.noop),
    ]
