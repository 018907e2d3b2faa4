"""The client and a real server that is killed, is away, and comes back: nothing lost, nothing doubled."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from headroom_client import Client, Rejection

from accounts.models import Scope
from billing import clock
from billing.metering.models import Meter, UsageEvent
from billing.metering.queries import totals
from tests.clients.programs import end, program
from tests.factories import fold, make_api_key, make_meter
from tests.processes import Web, running, web

pytestmark = pytest.mark.servers


UNTIL = """
n = 0
while not os.path.exists("{stop}"):
    record(str(n))
    n += 1
    time.sleep(0.002)
with open("{count}", "w") as file:
    file.write(str(n))
"""


@pytest.fixture(scope="module")
def site(django_db_setup) -> Iterator[Web]:
    site = web("client-web")
    with running(site):
        yield site


@pytest.fixture
def db(committed) -> None:
    """The web process must see what a test writes, so everything that asks for the database gets real commits."""


@pytest.fixture
def key(acme) -> str:
    make_meter("tokens")
    return make_api_key(Scope.EVENTS_WRITE)[1]


def stored() -> list[str]:
    return list(UsageEvent.objects.values_list("event_id", flat=True))


def test_each_answer_is_counted_and_refusals_are_told(site, key):
    rejections: list[Rejection] = []
    with Client(site.url, key, proxies={}, on_rejected=rejections.append, max_age=60) as client:
        for event_id, customer, fields in [
            ("plain", "acme", {"properties": {"tokens": 5}}),
            ("unmatched", "nobody", {"properties": {"tokens": 5}}),
            ("no number", "acme", {"properties": {"tokens": "many"}}),
            ("early", "acme", {"timestamp": clock.now() + timedelta(hours=1)}),
            ("naive", "acme", {"timestamp": "2026-11-23T10:00:00"}),
            ("no key", "no such key!", {}),
            ("surrogate", "acme", {"properties": {"text": "\ud800"}}),
        ]:
            client.record(id=event_id, type="llm.completion", customer=customer, **fields)
        assert client.flush(20)
        client.record(id="plain", type="llm.completion", customer="acme", properties={"tokens": 6})
        assert client.flush(20)

    stats = client.stats()
    assert (stats.accepted, stats.unmatched, stats.rejected, stats.conflict, stats.pending) == (1, 1, 5, 1, 0)
    assert {rejection.event["id"]: rejection.code for rejection in rejections} == {
        "no number": "invalid_value",
        "early": "timestamp_in_future",
        "naive": "timestamp_without_offset",
        "no key": "invalid_field",
        "surrogate": "invalid_field",
        "plain": "conflict",
    }
    assert stored() == ["plain"]


def test_an_event_that_spoils_its_batch_is_refused_alone(site, key):
    deep: dict[str, object] = {}
    for _ in range(40):
        deep = {"deeper": deep}
    rejections: list[Rejection] = []
    with Client(site.url, key, proxies={}, on_rejected=rejections.append, max_age=60) as client:
        for number in range(20):
            client.record(id=str(number), type="llm.completion", customer="acme", properties={"tokens": 1})
        client.record(id="deep", type="llm.completion", customer="acme", properties=deep)

    assert [(rejection.event["id"], rejection.code) for rejection in rejections] == [("deep", "malformed")]
    assert sorted(stored(), key=int) == [*map(str, range(20))]


def test_a_server_that_is_killed_again_and_again_gets_each_event_once(site, key, acme, tmp_path):
    stop, count = tmp_path / "stop", tmp_path / "count"
    sender = program(UNTIL.format(stop=stop, count=count), site.url, tmp_path / "spool", key)
    for _ in range(3):
        time.sleep(0.5)
        site.kill()
        time.sleep(0.5)
        site.start()
        site.wait()
    stop.touch()
    end(sender)
    end(program("assert client.flush(60)", site.url, tmp_path / "spool", key))  # what waited when the sender ended

    events = int(count.read_text())
    assert sorted(stored(), key=int) == [*map(str, range(events))]
    assert counted(acme) == events


def test_what_was_recorded_while_the_server_was_away_arrives_when_it_is_back(site, key, acme, tmp_path):
    site.kill()
    log = end(program("record(*map(str, range(1000)))", site.url, tmp_path, key))
    assert "1000 wait on disk, 0 are lost" in log
    assert stored() == []

    site.start()
    site.wait()
    end(program("record('later')\nassert client.flush(60)", site.url, tmp_path, key))

    assert sorted(stored()) == sorted([*map(str, range(1000)), "later"])
    assert counted(acme) == 1001
    assert list(tmp_path.iterdir()) == []


def counted(customer) -> int:
    now = clock.now()
    fold(customer, at=now)
    meters = Meter.objects.values_list("pk", flat=True)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    found = totals(customer, starts_at=day - timedelta(days=1), ends_at=day + timedelta(days=1), meter_ids=meters)
    return sum(total.quantity for total in found)
