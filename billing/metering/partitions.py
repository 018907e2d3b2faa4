"""Monthly partitions of the events: made ahead, indexed when their month is over, and detached when it is long past.
All by the owner of the database, a step at a time; a step that finds the table busy is taken an hour later."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from django.db import connection, connections, transaction

from billing.metering import store
from billing.metering.models import ArchivedMonth, Backfill

MONTHS_AHEAD: Final = 3
FEWEST_MONTHS_KEPT: Final = 3  # events come 35 days late, and their identities are kept for 42

# The application reaches a partition through its parent only, where it may insert and read. A month that was missing
# takes over what the default partition caught meanwhile; only then do requests wait for the table.
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
    EXECUTE format('CREATE TABLE %I (LIKE billing_usageevent INCLUDING DEFAULTS)', partition);
    LOCK TABLE billing_usageevent_default IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM billing_usageevent_default WHERE recorded_at >= starts_at AND recorded_at < ends_at) THEN
        ALTER TABLE billing_usageevent_default DISABLE TRIGGER append_only;
        EXECUTE format(
            'WITH moved AS (DELETE FROM billing_usageevent_default WHERE recorded_at >= %L AND recorded_at < %L'
            ' RETURNING *) INSERT INTO %I SELECT * FROM moved', starts_at, ends_at, partition);
        ALTER TABLE billing_usageevent_default ENABLE TRIGGER append_only;
    END IF;
    EXECUTE format('ALTER TABLE billing_usageevent ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   partition, starts_at, ends_at);
    PERFORM close_usageevent_partition(partition);
END $$
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """A month's events. Sizes are what the database knows without counting."""

    month: date
    table: str
    rows: int
    size_bytes: int


class BackfillRuns(Exception):  # noqa: N818 -- a state
    """Stored events are being counted: none may go now."""


def attached() -> list[Partition]:
    """The months whose events the application sees, in order."""
    with connection.cursor() as cursor:
        cursor.execute(_ATTACHED)
        return [Partition(*row) for row in cursor.fetchall()]


def has_partitions(at: datetime) -> bool:
    """Whether events that are recorded in this month and the next have their places already."""
    months = {one.month for one in attached()}
    return {month_of(at), following(month_of(at))} <= months


def archived_through() -> datetime | None:
    """Events that were recorded before this instant may lie in an archive; None while there is none."""
    last = ArchivedMonth.objects.order_by("month").values_list("month", flat=True).last()
    return _instant(following(last)) if last else None


def make_ahead() -> None:
    """Makes this month's partition, the next ones and those of what the default partition caught, where missing."""
    with _owner() as cursor:
        cursor.execute(_MISSING, [MONTHS_AHEAD])
        missing = [month for (month,) in cursor.fetchall()]
    for month in missing:
        with _owner() as cursor:
            cursor.execute("SELECT make_usageevent_partition(%s)", [month])


def index_closed(at: datetime) -> None:
    """Months that take no more events get an index by identity, which outlives the table of identities. It is built
    while events come."""
    for one in attached():
        if one.month < month_of(at):
            with connections["owner"].cursor() as cursor:
                cursor.execute(_DROP_HALF_BUILT, [f"{one.table}_identity"])
                for (index,) in cursor.fetchall():
                    cursor.execute(f"DROP INDEX CONCURRENTLY {index}")
                cursor.execute(
                    f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {one.table}_identity ON {one.table} (identity)"
                )


def archive(*, months_kept: int, at: datetime) -> list[ArchivedMonth]:
    """Detach the months before the last `months_kept` whole ones, the oldest first. Their tables stay, for the operator
    to dump and drop; counters and money stay as they are. Raises BackfillRuns."""
    first_kept = month_of(at)
    for _ in range(max(months_kept, FEWEST_MONTHS_KEPT)):
        first_kept = month_of(_instant(first_kept) - timedelta(days=1))
    return [_detach(one, at) for one in attached() if one.month < first_kept]


def _detach(partition: Partition, at: datetime) -> ArchivedMonth:
    with connections["owner"].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {partition.table}")  # noqa: S608 -- a name of ours; may take its time
        (events,) = cursor.fetchone()
    with _owner() as cursor:
        store.change_catalogue(using="owner")  # no backfill begins meanwhile
        if Backfill.objects.using("owner").filter(finished_at=None).exists():
            raise BackfillRuns
        cursor.execute(f"ALTER TABLE billing_usageevent DETACH PARTITION {partition.table}")
        return ArchivedMonth.objects.using("owner").create(
            month=partition.month, table=partition.table, events=events, archived_at=at
        )


@contextmanager
def _owner() -> Iterator[Any]:
    """Steps lock the table for a moment: rather give up than queue every request behind one."""
    with transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '2s'")
        yield cursor


def month_of(at: datetime) -> date:
    return at.astimezone(UTC).date().replace(day=1)


def following(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _instant(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)


_ATTACHED: Final = """
SELECT to_date(right(relname, 7), 'YYYY_MM') AS month, relname, greatest(reltuples, 0)::bigint,
       pg_total_relation_size(oid)
FROM pg_inherits JOIN pg_class ON oid = inhrelid
WHERE inhparent = 'billing_usageevent'::regclass AND relname ~ '_[0-9]{4}_[0-9]{2}$'
ORDER BY month
"""
_MISSING: Final = """
SELECT month FROM (
    SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month')::date AS month
    FROM generate_series(0, %s) AS n
    UNION
    SELECT DISTINCT date_trunc('month', recorded_at AT TIME ZONE 'UTC')::date FROM billing_usageevent_default
) AS wanted
WHERE to_regclass('billing_usageevent_' || to_char(month, 'YYYY_MM')) IS NULL ORDER BY month
"""
_DROP_HALF_BUILT: Final = """
SELECT indexrelid::regclass::text FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid
"""
