"""Web and worker are killed while events come in: what was acknowledged is there, once, and everything adds up."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from random import Random, randrange

import httpx
import pytest
from django.db import connections

from accounts.models import User
from tests import processes
from tests.chaos import checks, load, world
from tests.chaos.storm import Plan, Report, Storm
from tests.chaos.victims import WebWorker
from tests.conftest import as_owner, empty_tables

pytestmark = pytest.mark.servers

PATIENCE_SECONDS = 60
KILLS = 10
STORMS = 5  # at most
USED = re.compile(r'id="used"><data class="num" value="([^"]+)"')


@dataclass
class Site:
    """The demo's processes on the test database, and who may send to it."""

    web: processes.Web
    worker: processes.Child
    secret: str
    begun: datetime
    acknowledged: set[int] = field(default_factory=set)

    def post(self, numbers: range) -> dict[str, int]:
        """Send these events in one batch; what is answered."""
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        content = load.body(numbers, self.begun)
        url = f"{self.web.url}/api/v1/events"
        answer = httpx.post(url, content=content, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        self.acknowledged.update(numbers)
        return answer.json()

    def problems(self) -> list[str]:
        return checks.all_of(self.acknowledged, checks.stored_numbers())

    def wait_until_counted(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while checks.pending():
            assert time.monotonic() < deadline, "the worker does not count"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def site(django_db_setup, django_db_blocker) -> Iterator[Site]:
    """One for this file: its tests send events of their own, and what was sent before must stay right."""
    begun = datetime.now(UTC)
    web, worker, beat = processes.web("kill-web"), processes.worker("kill-worker"), processes.beat("kill-beat")
    with django_db_blocker.unblock():
        secret = world.create(begun)
        connections.close_all()
        with processes.running(web, worker, beat):
            yield Site(web, worker, secret, begun)
        connections.close_all()
        empty_tables()


def storm(site, folder) -> Report:
    """Kills while events come in; the same events each time."""
    plan = Plan(
        seed=randrange(10**6),
        events=4_000,
        kills=KILLS,
        senders=4,
        seconds=60,
        victims={"web": 4, "web process": 4, "worker": 2},
    )
    victims = {"web": site.web, "web process": WebWorker(site.web, Random(plan.seed)), "worker": site.worker}

    report = Storm(plan, victims, url=site.web.url, secret=site.secret, begun=site.begun, folder=folder).run()
    site.acknowledged |= report.acknowledged
    site.web.wait()
    site.wait_until_counted()
    assert report.problems() == [], plan
    assert site.problems() == [], plan
    return report


def test_kills_lose_nothing_and_double_nothing(site, tmp_path):
    """A storm in which no request happened to break proves nothing: then there is another one."""
    assert any(storm(site, tmp_path).kills_felt for _ in range(STORMS))


def test_a_batch_that_is_sent_five_times_two_at_once_counts_once(site):
    with ThreadPoolExecutor(2) as two:
        answers = list(two.map(site.post, [range(10_000, 11_000)] * 5))
    site.wait_until_counted()

    assert sum(answer["accepted"] for answer in answers) == 1_000
    assert sum(answer["duplicate"] for answer in answers) == 4_000
    assert site.problems() == []


def test_an_event_that_is_posted_moves_the_open_page(site, client):
    client.force_login(User.objects.get(email="c0@chaos.test"))
    cookies = {"sessionid": client.cookies["sessionid"].value}
    assert load.facts(20_001).customer == "c0"

    with httpx.Client(base_url=site.web.url, cookies=cookies, trust_env=False, timeout=60) as member:
        page = member.get("/c/c0/live")
        before = used = Decimal(USED.search(page.text)[1])
        site.post(range(20_001, 20_002))

        deadline = time.monotonic() + PATIENCE_SECONDS
        while used == before:
            assert time.monotonic() < deadline, "the page does not move"
            time.sleep(0.2)
            version = re.search(r'data-version="([^"]+)"', page.text)[1]
            answer = member.get("/c/c0/live", params={"v": version})
            if answer.status_code != 204:
                page, used = answer, Decimal(USED.search(answer.text)[1])

    assert used > before
    site.wait_until_counted()
    assert site.problems() == []


def test_a_database_that_ended_every_connection_is_not_noticed_by_who_asks_next(site, client):
    client.force_login(User.objects.get(email="c0@chaos.test"))
    cookies = {"sessionid": client.cookies["sessionid"].value}
    paths = ["/c/c0/live", "/healthz"] * 10

    with httpx.Client(base_url=site.web.url, cookies=cookies, trust_env=False, timeout=60) as member:
        assert {member.get(path).status_code for path in paths} == {200}  # each process has connections now
        as_owner(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND usename = 'headroom_app' AND state = 'idle'"
        )
        connections.close_all()  # ours ended too
        assert {member.get(path).status_code for path in paths} == {200}


def test_the_checks_find_what_is_wrong(site):
    """Else they would prove nothing. The last test of this file: it damages the books."""
    site.post(range(30_000, 30_100))
    site.wait_until_counted()
    assert site.problems() == []

    as_owner("UPDATE billing_usagebucket SET quantity = quantity + 1")

    found = checks.all_of({*site.acknowledged, 30_100}, [*checks.stored_numbers(), 30_008])
    for sentence in (
        "1 acknowledged events are not stored, for instance 30100",
        "1 events are stored twice",
        "a bucket is not the sum of its rows",
        "is counted as",
        "a day is not the sum of its buckets",
    ):
        assert any(sentence in one for one in found), sentence
