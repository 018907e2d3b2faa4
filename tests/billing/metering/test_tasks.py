"""Work by the clock, run twice."""

import pytest
from django.db import connections

from billing.metering import tasks
from billing.metering.models import UsageDelta
from tests.billing.metering.test_ingest import AT
from tests.factories import event, ingest, make_meter


@pytest.mark.usefixtures("committed")
def test_partitions_are_made_ahead_and_take_their_months_events():
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT format('billing_usageevent_%s', to_char(now() + interval '2 months', 'YYYY_MM'))")
        (partition,) = cursor.fetchone()
        cursor.execute(f"DROP TABLE {partition}")
    for _ in range(2):
        tasks.make_partitions()
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [partition])
        assert cursor.fetchone() == (True,)


def test_the_sweeper_and_the_purge_may_run_twice(acme):
    ingest(event("a"), at=AT)
    make_meter("calls", aggregation="count")

    for _ in range(2):
        tasks.replay_unmatched()
        tasks.purge_identities()

    assert UsageDelta.objects.get().events == [1]
