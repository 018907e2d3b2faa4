"""Real commits and real threads: what two do at once is what one does after the other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest
from django.db import connection, transaction

from accounts.models import Customer
from billing.errors import Conflict
from billing.metering import queries, services, store
from billing.metering.models import Meter, UnmatchedEvent, UsageDelta, UsageEvent
from tests.factories import bearer, event, fold, ingest, make_api_key, make_meter

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)

CUT = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def customer(committed):
    return Customer.objects.create(key="acme", name="Acme")


def at_once(*acts):
    """Run them in threads that start together; their results in order."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        try:
            barrier.wait(10)
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(60) for future in [pool.submit(run, act) for act in acts]]


def test_small_requests_at_once_are_each_answered_as_if_alone(customer):
    meter = make_meter()
    sent = [event(f"e{n // 2}", tokens=1) for n in range(40)]  # each id twice
    sent += [event("e0", tokens=2), event("bad", tokens=-1), event("lost", "nobody")]

    answers = at_once(*(partial(ingest, one, at=AT) for one in sent))

    assert sum(answer.accepted for answer in answers[:41]) == 20
    assert sum(answer.duplicate + answer.conflict for answer in answers[:41]) == 21
    assert answers[41].results[0] | {"detail": ""} == {
        "index": 0,
        "id": "bad",
        "status": "rejected",
        "code": "invalid_value",
        "field": "properties",
        "detail": "",
    }
    assert answers[42].results == [{"index": 0, "id": "lost", "status": "unmatched", "reason": "unknown_customer"}]
    assert UsageEvent.objects.count() == 20
    quantity, events = counted(customer, meter)
    assert events == 20
    assert quantity in (20, 21)


def counted(customer, meter):
    fold(customer, at=AT)
    (total,) = queries.totals(customer, starts_at=AT, ends_at=AT.replace(hour=11), meter_ids=[meter.pk])
    return total.quantity, total.events


def test_a_thousand_events_five_times_two_at_once_count_once(customer):
    meter = make_meter()
    batch = [event(f"e{n}", tokens=n) for n in range(1000)]

    answers = at_once(lambda: ingest(*batch, at=AT), lambda: ingest(*reversed(batch), at=AT))
    answers += [ingest(*batch, at=AT) for _ in range(3)]

    assert sum(answer.accepted for answer in answers) == 1000
    assert sum(answer.duplicate for answer in answers) == 4000
    assert UsageEvent.objects.count() == 1000
    assert counted(customer, meter) == (499_500, 1000)


@pytest.mark.parametrize("size", [1, 50])
def test_of_two_payloads_at_once_one_is_stored_and_the_other_a_conflict(customer, size):
    meter = make_meter()
    for race in range(20):
        ids = [f"{race}-{n}" for n in range(size)]
        one, other = at_once(
            lambda ids=ids: ingest(*(event(i, tokens=1) for i in ids), at=AT),
            lambda ids=ids: ingest(*(event(i, tokens=2) for i in reversed(ids)), at=AT),
        )
        assert one.accepted + other.accepted == one.conflict + other.conflict == size
        assert one.accepted in {0, size}
    stored = sum(found.properties["tokens"] for found in UsageEvent.objects.all())
    assert counted(customer, meter) == (stored, 20 * size)


def test_a_meter_made_while_events_come_misses_none(customer):
    batches = [[event(f"{n}-{m}") for m in range(30)] for n in range(10)]

    def send(mine):
        return sum(ingest(*batch, at=AT).rejected for batch in mine)

    def make():
        return services.create_meter(key="calls", event_type="llm.completion", aggregation="count", at=AT)

    *_, meter = at_once(lambda: send(batches[:5]), lambda: send(batches[5:]), make)

    assert not UnmatchedEvent.objects.exists()
    assert counted(customer, meter) == (300, 300)


def test_a_meter_deleted_while_its_first_events_come_counts_all_or_none(customer):
    meter = make_meter()

    def delete():
        try:
            services.delete_meter(meter=meter)
        except Conflict:
            return True
        return False

    answer, stays = at_once(lambda: ingest(event("a", tokens=1), at=AT), delete)

    assert (answer.accepted, Meter.objects.exists()) == (stays, stays)
    assert UsageDelta.objects.exists() == stays
    assert UnmatchedEvent.objects.exists() != stays


def test_a_customer_made_while_events_come_misses_none(committed):
    make_meter("calls", aggregation="count")

    def make():
        with transaction.atomic():
            made = Customer.objects.create(key="acme", name="Acme")
            services.replay_unmatched(customer_keys=["acme"], at=AT)
            return made

    *_, customer = at_once(
        lambda: [ingest(event(f"a{n}"), at=AT) for n in range(40)],
        lambda: [ingest(*(event(f"b{n}-{m}") for m in range(30)), at=AT) for n in range(8)],
        make,
    )

    assert not UnmatchedEvent.objects.exists()
    assert UsageEvent.objects.filter(customer=customer).count() == 280


def test_sweepers_at_once_replay_each_event_once(customer):
    ingest(*(event(f"e{n}") for n in range(200)), at=AT)
    meter = make_meter("calls", aggregation="count")

    moved = at_once(*[lambda: services.replay_unmatched(at=AT)] * 3)

    assert sum(moved) == 200
    assert counted(customer, meter) == (200, 200)


def test_folds_at_once_while_events_come_count_each_once(customer):
    meter = make_meter()
    done = threading.Event()

    def send():
        try:
            return [ingest(*(event(f"{n}-{m}", tokens=1) for m in range(25)), at=AT).accepted for n in range(20)]
        finally:
            done.set()

    def fold_on():
        while not done.is_set():
            fold(customer, at=AT)

    at_once(send, fold_on, fold_on)

    assert counted(customer, meter) == (500, 500)
    assert not UsageDelta.objects.exists()


def test_a_claimed_customer_is_passed_over(customer):
    make_meter()
    ingest(event("a", tokens=1), at=AT)
    claimed, checked = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            services.claim(customer_id=customer.pk)
            claimed.set()
            checked.wait(10)

    def look():
        claimed.wait(10)
        with transaction.atomic():
            found = services.claim_next(skip=[], most=9)
        checked.set()
        return found

    assert at_once(hold, look) == [None, []]
    with transaction.atomic():
        assert services.claim_next(skip=[], most=9) == [customer.pk]


def test_a_connection_that_is_cut_answers_503_and_the_repeat_counts_once(client, customer):
    make_meter()
    key = bearer(make_api_key()[1])
    waiting = threading.Event()

    def post():
        try:
            return client.post("/api/v1/events", event("a", tokens=1), content_type="application/json", **key)
        finally:
            connection.close()

    def hold_and_cut():
        with transaction.atomic():
            store.change_catalogue()
            waiting.set()
            with connection.cursor() as cursor:
                while True:
                    cursor.execute(CUT)
                    if cursor.fetchall():
                        return

    def post_when_held():
        waiting.wait(10)
        return post()

    _, cut = at_once(hold_and_cut, post_when_held)

    assert (cut.status_code, cut.headers["Retry-After"], cut.json()["code"]) == (503, "1", "unavailable")
    assert not UsageEvent.objects.exists()
    assert post().json()["accepted"] == 1
