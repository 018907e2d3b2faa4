"""Raw events by month of recording: made ahead, found for as long as they are kept, and detached without a trace in the
counters."""

from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction

from accounts.models import Customer
from billing.clock import now
from billing.errors import Conflict
from billing.metering import corrections, partitions, queries, services, tasks
from billing.metering.correcting import amend_event, void_event
from billing.metering.models import ArchivedMonth, Backfill, EventIdentity, RefusedItems, UsageEvent
from billing.metering.receipts import receipt
from tests.conftest import as_owner
from tests.factories import bearer, event, fold, ingest, make_api_key, make_meter

JANUARY = datetime(2025, 1, 15, 10, tzinfo=UTC)
MARCH = datetime(2025, 3, 15, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def in_default() -> int:
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM billing_usageevent_default")
        return cursor.fetchone()[0]


@pytest.fixture
def globex(committed):
    """Events of January and March 2025, for which no partition existed. Leaves none behind."""
    customer = Customer.objects.create(key="globex", name="Globex")
    yield customer
    connection.close()
    as_owner("DROP TABLE IF EXISTS billing_usageevent_2025_01, billing_usageevent_2025_02, billing_usageevent_2025_03")


def send(event_id, at, customer, **fields):
    ingest(event(event_id, "globex", timestamp=at, **fields), at=at)
    fold(customer, at=at)


def used(customer, meter):
    totals = queries.totals(customer, starts_at=JANUARY - HOUR, ends_at=MARCH + HOUR, meter_ids=[meter.pk])
    return {one.dimensions.get("model"): one.quantity for one in totals}


def archive_january():
    """March and later are kept."""
    return partitions.archive(months_kept=3, at=datetime(2025, 5, 15, tzinfo=UTC))


def test_a_missing_month_loses_nothing_and_takes_over_what_was_caught(globex):
    make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    send("b", MARCH, globex, tokens=2)
    assert in_default() == 2

    for _ in range(2):
        tasks.make_partitions()

    assert in_default() == 0
    months = {one.month.isoformat() for one in partitions.attached()}
    assert {"2025-01-01", "2025-03-01"} < months
    assert [one.event_id for one in UsageEvent.objects.order_by("occurred_at")] == ["a", "b"]
    void_event(source="default", event_id="a", at=now())
    with pytest.raises(Exception, match="append-only"), transaction.atomic(using="owner"):
        connections["owner"].cursor().execute("UPDATE billing_usageevent SET type = 'x'")


def test_events_are_found_after_their_identities_are_forgotten(globex):
    make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    send("b", JANUARY, globex, tokens=2)
    tasks.make_partitions()
    for _ in range(2):
        partitions.index_closed(now())
    services.purge_identities(at=now())
    assert not EventIdentity.objects.exists()

    assert receipt("default", "a").fed[0].quantity == 1
    amend_event(source="default", event_id="a", properties={"tokens": 5}, at=now())
    void_event(source="default", event_id="b", at=now())
    void_event(source="default", event_id="b", at=now())
    fold(globex, at=now())

    assert used(globex, queries.Meter.objects.get()) == {None: 5}
    answer = ingest(event("b", "globex", timestamp=JANUARY, tokens=2), at=now(), backfill=True)
    assert answer.conflict == 1


def test_what_is_back_filled_again_is_a_repeat_after_its_identity_is_forgotten(globex):
    tokens = make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    ingest(event("waits", "nobody", timestamp=JANUARY, tokens=1), at=JANUARY)
    tasks.make_partitions()
    services.purge_identities(at=now())

    sent = [
        event("a", "globex", timestamp=JANUARY, tokens="1.0"),
        event("a", "globex", timestamp=JANUARY, tokens=1),
        event("waits", "nobody", timestamp=JANUARY, tokens=1),
        event("new", "globex", timestamp=JANUARY, tokens=2),
    ]
    first = ingest(*sent[1:], at=now(), backfill=True)
    again = ingest(*sent, at=now(), backfill=True)

    assert (first.accepted, first.duplicate) == (1, 2)
    assert (again.accepted, again.duplicate, again.conflict) == (0, 3, 1)
    fold(globex, at=now())
    assert used(globex, tokens) == {None: 3}


@pytest.mark.parametrize("said", [{"tokens": 2}, {"timestamp": MARCH}, {"timestamp": None}, {"type": "other"}])
def test_another_event_with_a_forgotten_identity_is_in_conflict(globex, said):
    make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    services.purge_identities(at=now())

    answer = ingest(event("a", "globex", **{"timestamp": JANUARY, "tokens": 1, **said}), at=now(), backfill=True)

    assert (answer.accepted, answer.conflict) == (0, 1)


def test_an_archived_month_leaves_its_counters_and_takes_no_correction(globex, client):
    tokens = make_meter("tokens", dimensions=["model"])
    send("a", JANUARY, globex, tokens=1, model="m")
    send("b", MARCH, globex, tokens=2, model="m")
    tasks.make_partitions()

    [gone] = archive_january()

    assert (gone.table, gone.events) == ("billing_usageevent_2025_01", 1)
    assert archive_january() == []
    assert used(globex, tokens) == {"m": 3}
    assert [one.event_id for one in UsageEvent.objects.all()] == ["b"]
    with pytest.raises(corrections.ArchivedEvent):
        receipt("default", "a")
    with pytest.raises(Conflict) as refused:
        void_event(source="default", event_id="a", at=now())
    assert refused.value.code == "too_old"
    _, secret = make_api_key()
    answer = client.get("/api/v1/events/receipt?id=a", **bearer(secret))
    assert (answer.status_code, answer.json()["code"]) == (410, "event_archived")
    void_event(source="default", event_id="b", at=now())
    fold(globex, at=now())
    assert used(globex, tokens) == {"m": 1}


def test_a_meter_that_comes_after_says_what_it_cannot_see(globex, client):
    make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    send("b", MARCH, globex, tokens=2)
    tasks.make_partitions()
    archive_january()

    later = services.create_meter(key="later", event_type="llm.completion", aggregation="sum", value="tokens", at=now())
    while services.backfill(at=now()):
        pass
    fold(globex, at=now())

    assert used(globex, later) == {None: 2}
    _, secret = make_api_key()
    answer = client.get("/api/v1/meters/later", **bearer(secret)).json()["backfill"]
    assert (answer["sees_from"], answer["events"], answer["percent"]) == ("2025-02-01T00:00:00Z", 1, 100)


def test_what_an_archived_event_may_decide_is_not_counted_again(globex):
    peak = make_meter("peak", aggregation="max", value="tokens")
    tokens = make_meter("tokens")
    send("a", JANUARY, globex, tokens=9)
    ingest(event("late", "globex", timestamp=JANUARY, tokens=3), at=MARCH, backfill=True)
    send("b", MARCH, globex, tokens=2)
    tasks.make_partitions()
    archive_january()

    with pytest.raises(Conflict) as refused:
        void_event(source="default", event_id="late", at=now())
    assert refused.value.code == "too_old"
    for meter in (peak, tokens):
        services.update_meter(meter=meter, dimensions=["model"], at=now())
    while services.backfill(at=now()):
        pass
    fold(globex, at=now())

    assert used(globex, peak) == {None: 9}
    assert used(globex, tokens) == {None: 14}
    assert set(Backfill.objects.values_list("sees_from", flat=True)) == {datetime(2025, 2, 1, tzinfo=UTC)}


def test_the_operator_sees_the_months_and_archives_old_ones(globex, capsys):
    make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    tasks.make_partitions()

    call_command("event_partitions", archive=True, keep=3)
    told = capsys.readouterr().out
    assert "Detached 2025-01: billing_usageevent_2025_01 is yours to dump and drop." in told
    assert f"{now():%Y-%m} " in told
    call_command("event_partitions", archive=True)
    assert "No month is older" in capsys.readouterr().out
    with pytest.raises(CommandError, match="at least 3"):
        call_command("event_partitions", keep=1)


def test_the_clock_archives_as_long_as_nothing_is_being_counted(globex, settings, caplog):
    settings.EVENT_MONTHS_KEPT = 3
    tokens = make_meter("tokens")
    send("a", JANUARY, globex, tokens=1)
    tasks.make_partitions()
    services.update_meter(meter=tokens, dimensions=["model"], at=now())
    tasks.archive_events()
    assert not ArchivedMonth.objects.exists()

    while services.backfill(at=now()):
        pass
    for _ in range(2):
        tasks.archive_events()

    assert [str(month) for month in ArchivedMonth.objects.all()] == ["2025-01"]


def test_what_was_refused_long_ago_is_forgotten(acme):
    for at in (now(), now() - timedelta(days=91)):
        ingest({"id": "x"}, at=at)

    for _ in range(2):
        tasks.purge_refused()

    assert RefusedItems.objects.count() == 1


@pytest.mark.usefixtures("committed")
def test_a_month_without_a_place_turns_readiness_red_before_it_begins(client):
    following = partitions.following(partitions.month_of(now()))
    [table] = [one.table for one in partitions.attached() if one.month == following]
    as_owner(f"DROP TABLE {table}")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["partitions"]) == (503, False)

    tasks.make_partitions()

    assert client.get("/readyz").json()["checks"]["partitions"]
