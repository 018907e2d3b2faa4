"""What load balancers and orchestrators ask."""

from datetime import UTC, datetime

import pytest
from django.db import connection

from billing.credits.models import Settlement
from billing.metering.partitions import has_partitions
from tests.factories import event, ingest, make_meter


def test_a_process_says_that_it_is_there(client):
    assert client.get("/healthz").content == b"ok\n"


@pytest.mark.django_db
def test_a_process_that_can_work_is_ready(client, globex):
    make_meter()
    ingest(event("e1", "globex", tokens=1), at=datetime.now(UTC))
    Settlement.objects.create(customer=globex, parked_reason="BooksDiffer: ...")

    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "checks": {"database": True, "migrations": True, "partitions": True, "broker": True},
        "waiting": 1,
        "parked": 1,
    }


@pytest.mark.django_db
def test_a_process_without_its_broker_is_not_ready(client, settings, caplog):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": True, "migrations": True, "partitions": True, "broker": False}
    assert "Not ready: broker" in caplog.text


@pytest.mark.django_db
def test_a_database_with_a_migration_to_come_is_not_ready(client):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'billing' AND name > '0002'")

    assert client.get("/readyz").json()["checks"]["migrations"] is False


@pytest.mark.django_db
def test_a_month_without_a_place_for_its_events_is_seen():
    assert not has_partitions(datetime(2099, 12, 31, tzinfo=UTC))
