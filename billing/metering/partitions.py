"""Monthly partitions of the events, made ahead by the owner of the database."""

from datetime import datetime, timedelta

from django.db import connection, connections, transaction

MONTHS_AHEAD = 3

# The application reaches a partition through its parent only, where it may insert and read.
MAKE_PARTITION = """
CREATE OR REPLACE FUNCTION close_usageevent_partition(partition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    role name;
BEGIN
    FOR role IN SELECT DISTINCT grantee FROM information_schema.role_table_grants
                WHERE table_name = partition AND grantee <> current_user LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', partition, role);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION make_usageevent_partition(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'billing_usageevent_' || to_char(month, 'YYYY_MM');
    starts_at timestamptz := month::timestamp AT TIME ZONE 'UTC';
    ends_at timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF billing_usageevent FOR VALUES FROM (%L) TO (%L)',
                   partition, starts_at, ends_at);
    PERFORM close_usageevent_partition(partition);
END $$
"""


def has_partition_ahead(at: datetime) -> bool:
    """Whether events that are recorded next month have a place already."""
    month = (at.replace(day=1) + timedelta(days=32)).strftime("%Y_%m")
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"billing_usageevent_{month}"])
        return bool(cursor.fetchone()[0])


def make_ahead() -> None:
    """Makes this month's partition and the next ones, where they are missing."""
    with transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        # Making one locks the table for a moment: rather try again in an hour than queue every request behind it.
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        cursor.execute(
            "SELECT make_usageevent_partition((date_trunc('month', now()) + month * interval '1 month')::date)"
            " FROM generate_series(0, %s) AS month",
            [MONTHS_AHEAD],
        )
