"""Test clocks: what happens while one advances is what would have happened in real time."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from accounts.models import Customer, TestClock
from accounts.services import create_test_clock
from billing.budgets import services as budgets
from billing.credits import queries as credit_questions
from billing.credits import services as credits
from billing.credits.models import GrantKind, LedgerEntry
from billing.cycle import clocks
from billing.cycle import services as cycle
from billing.cycle.tasks import advance_clock, advance_clocks
from billing.cycle.verify import differences
from billing.metering.counter_models import UsageBucket
from billing.metering.models import UsageEvent
from billing.notifications import services as notifications
from billing.notifications.models import OutboxMessage
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec
from billing.subscriptions import services as subscriptions
from billing.subscriptions.models import BillingPeriod
from tests.factories import bearer, event, ingest, make_api_key, make_meter, make_plan, make_version

D = Decimal
URL = "/api/v1/test-clocks"
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def version(db):
    make_meter("searches", aggregation="count", event_type="search")
    return make_version(
        make_plan(),
        prices=(PriceSpec("searches", "searches", "credits", D(1)),),
        credits=(CreditSpec("credits", D(100)),),
        overage=(OverageSpec("credits", D("0.5")),),
    )


@pytest.fixture
def clock(db):
    return create_test_clock(now=START, at=START)


@pytest.fixture
def sandy(clock):
    """A customer on the clock."""
    return Customer.objects.create(key="sandy", name="Sandy", email="ap@sandy.test", test_clock=clock)


@pytest.fixture
def ask(client, db):
    _, secret = make_api_key()

    def ask(method, path="", body=None, url=URL):
        return getattr(client, method)(url + path, body, content_type="application/json", **bearer(secret))

    return ask


def advance(clock, to):
    clocks.begin(clock=clock, to=to)
    assert clocks.run(clock_id=clock.pk, seconds=60)
    clock.refresh_from_db()


def use(customer, count, at, name="s"):
    sent = [event(f"{name}-{at}-{n}", customer.key, type="search", timestamp=at.isoformat()) for n in range(count)]
    assert ingest(*sent, at=datetime.now(UTC)).accepted == count


# --- over HTTP ------------------------------------------------------------------------------------------------


def test_a_clock_is_made_advanced_read_and_deleted(ask):
    made = ask("post", "", {"now": "2026-01-01T00:00:00Z"})
    assert made.status_code == 201
    clock = made.json()
    assert clock == {"id": clock["id"], "now": "2026-01-01T00:00:00Z", "status": "ready", "advancing_to": None}

    advanced = ask("post", f"/{clock['id']}/advance", {"to": "2026-02-01T12:00:00+01:00"})
    assert (advanced.status_code, advanced.json()["now"]) == (200, "2026-02-01T11:00:00Z")
    assert ask("get", f"/{clock['id']}").json() == advanced.json()
    assert ask("get").json()["data"] == [advanced.json()]

    assert ask("delete", f"/{clock['id']}").status_code == 204
    assert ask("get", f"/{clock['id']}").status_code == 404


@pytest.mark.parametrize(
    ("to", "code"),
    [("2025-12-31T00:00:00Z", 400), ("2027-03-01T00:00:00Z", 400), ("2026-01-02T00:00:00", 400), (None, 400)],
)
def test_it_goes_neither_back_nor_too_far(ask, clock, to, code):
    answer = ask("post", f"/{clock.public_id}/advance", {"to": to})

    assert answer.status_code == code
    assert [error["field"] for error in answer.json()["errors"]] == ["to"]


def test_a_clock_that_is_advancing_is_left_alone(ask, clock):
    clocks.begin(clock=clock, to=START + DAY)

    answer = ask("post", f"/{clock.public_id}/advance", {"to": "2026-01-05T00:00:00Z"})

    assert (answer.status_code, answer.json()["code"]) == (409, "clock_advancing")


def test_what_takes_too_long_goes_on_by_itself(ask, sandy, version, monkeypatch, django_capture_on_commit_callbacks):
    clock = sandy.test_clock
    cycle.subscribe(customer=sandy, version=version, starts_at=START, at=START)
    monkeypatch.setattr("billing.cycle.clocks_api.PATIENCE", -1.0)
    nudged = []
    monkeypatch.setattr(advance_clock, "delay", nudged.append)

    with django_capture_on_commit_callbacks(execute=True):
        answer = ask("post", f"/{clock.public_id}/advance", {"to": "2026-04-01T00:00:00Z"})

    assert (answer.status_code, answer.json()["status"]) == (202, "advancing")
    assert nudged == [clock.pk]
    advance_clocks()
    assert ask("get", f"/{clock.public_id}").json()["status"] == "ready"
    assert BillingPeriod.objects.filter(status="closed").count() == 2


def test_a_customer_is_put_on_a_clock_when_it_is_made(ask, clock):
    body = {"key": "sandy", "name": "Sandy", "test_clock": clock.public_id}
    made = ask("post", body=body, url="/api/v1/customers")
    assert (made.status_code, made.json()["test_clock"]) == (201, clock.public_id)

    same = ask("patch", body={"name": "S.", "test_clock": clock.public_id}, url="/api/v1/customers/sandy")
    other = ask("patch", body={"test_clock": None}, url="/api/v1/customers/sandy")
    unknown = ask("post", body={**body, "key": "s", "test_clock": "clock_none"}, url="/api/v1/customers")

    assert same.status_code == 200
    assert [error["field"] for error in other.json()["errors"]] == ["test_clock"]
    assert [error["field"] for error in unknown.json()["errors"]] == ["test_clock"]


def test_the_whole_story_over_http(ask, clock, version):
    """Subscribe, use, advance, look: everything is by the clock, also where the plan was published long after it."""
    make_version(
        version.plan,
        published_at=datetime.now(UTC),
        prices=(PriceSpec("searches", "searches", "credits", D(1)),),
        credits=(CreditSpec("credits", D(100)),),
    )
    api = "/api/v1"
    ask("post", body={"key": "sandy", "name": "Sandy", "test_clock": clock.public_id}, url=f"{api}/customers")
    started = ask("post", body={"customer": "sandy", "plan": "pro"}, url=f"{api}/subscriptions").json()
    assert (started["version"], started["starts_at"]) == (2, "2026-01-01T00:00:00Z")
    sent = {"id": "a", "type": "search", "customer": "sandy", "timestamp": "2026-01-01T00:01:00Z"}
    assert ask("post", body=sent, url=f"{api}/events").json()["accepted"] == 1

    ask("post", f"/{clock.public_id}/advance", {"to": "2026-01-10T00:00:00Z"})

    [balance] = ask("get", url=f"{api}/customers/sandy/credits").json()["data"]
    assert balance["available"] == "99"
    usage = ask("get", url=f"{api}/customers/sandy/usage?meter=searches").json()
    assert (usage["from"], usage["to"], usage["total"]) == ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "1")
    ask("post", f"/{clock.public_id}/advance", {"to": "2026-02-10T00:00:00Z"})
    assert ask("get", url=f"{api}/customers/sandy/credits").json()["data"][0]["available"] == "100"
    [subscription] = ask("get", url=f"{api}/subscriptions?customer=sandy").json()["data"]
    assert subscription["current_period"]["starts_at"] == "2026-02-01T00:00:00Z"


# --- events ---------------------------------------------------------------------------------------------------


def test_events_are_judged_by_the_clock_of_their_customer(sandy, globex, version):
    present = datetime.now(UTC)
    sent = [
        event("now", "sandy", type="search"),
        event("there", "sandy", type="search", timestamp="2026-01-01T00:04:00Z"),
        event("ahead", "sandy", type="search", timestamp="2026-01-01T00:06:00Z"),
        event("before", "sandy", type="search", timestamp="2025-11-20T00:00:00Z"),
        event("real", "sandy", type="search", timestamp=present.isoformat()),
        event("globex", "globex", type="search", timestamp=present.isoformat()),
        event("globex ahead", "globex", type="search", timestamp=(present + DAY).isoformat()),
    ]

    answer = ingest(*sent, at=present)

    assert {result["id"]: result.get("code") for result in answer.results} == {
        "ahead": "timestamp_in_future",
        "before": "timestamp_too_old",
        "real": "timestamp_in_future",
        "globex ahead": "timestamp_in_future",
    }
    stored = {one.event_id: one for one in UsageEvent.objects.all()}
    assert stored["now"].occurred_at == START
    assert stored["now"].recorded_at == present
    assert stored["there"].occurred_at == START + timedelta(minutes=4)


def test_the_tick_counts_their_events_too_but_time_stands_still(sandy, clock, version):
    cycle.subscribe(customer=sandy, version=version, starts_at=START, at=START)
    use(sandy, 3, START)

    cycle.tick(at=datetime.now(UTC))

    assert UsageBucket.objects.get(customer=sandy).quantity == 3
    assert BillingPeriod.objects.get().status == "open"


# --- time passes ----------------------------------------------------------------------------------------------


def test_advancing_equals_real_time(clock, sandy, globex, version):
    """The same story, on a clock that leaps and by a tick each six hours, ends in the same periods and entries."""
    present = START
    for customer in (sandy, globex):
        cycle.subscribe(customer=customer, version=version, starts_at=START, at=START)
        credits.grant(
            customer=customer,
            unit="credits",
            amount=D(30),
            kind=GrantKind.PROMOTIONAL,
            priority=1,
            expires_at=START + 40 * DAY,
            at=START,
        )
    for number, day in enumerate((10, 35, 36, 75)):
        moment = START + day * DAY
        while present < moment:
            present += timedelta(hours=6)
            cycle.tick(at=present)
        advance(clock, moment)
        for customer in (sandy, globex):
            sent = [
                event(f"{customer.key}{number}-{n}", customer.key, type="search", timestamp=moment.isoformat())
                for n in range(60)
            ]
            ingest(*sent, at=moment)
            cycle.advance(customer_id=customer.pk, at=moment)

    def periods(customer):
        found = BillingPeriod.objects.filter(customer=customer)
        return list(found.values_list("starts_at", "ends_at", "status"))

    def entries(customer):
        found = LedgerEntry.objects.filter(transaction__customer=customer).order_by("id")
        return list(
            found.values_list(
                "transaction__code", "transaction__effective_at", "transaction__recorded_at", "direction", "amount"
            )
        )

    assert periods(sandy) == periods(globex)
    assert entries(sandy) == entries(globex)
    assert list(differences()) == []


def test_a_change_that_waits_and_a_cancellation_come_when_they_are_due(clock, sandy, version):
    other = make_version(make_plan("other"), prices=(PriceSpec("searches", "searches", "USD", D(1)),))
    subscription = cycle.subscribe(customer=sandy, version=version, starts_at=START, at=START)
    subscriptions.change(subscription=subscription, version=other, when="period_end", at=START)
    advance(clock, START + 32 * DAY)
    subscriptions.cancel(subscription=subscription, when="period_end", at=clock.now)
    advance(clock, START + 100 * DAY)

    subscription.refresh_from_db()
    assert (subscription.version, subscription.status) == (other, "ended")
    assert [(period.version, period.status) for period in subscription.periods.all()] == [
        (version, "closed"),
        (other, "closed"),
    ]


def test_the_clock_stops_at_every_instant_at_which_something_is_due(clock, sandy, version, monkeypatch):
    cycle.subscribe(customer=sandy, version=version, starts_at=START, at=START)
    stops = []
    advanced = clocks.advance_customer
    monkeypatch.setattr(clocks, "advance_customer", lambda **fields: (stops.append(fields["at"]), advanced(**fields)))

    advance(clock, START + 40 * DAY)

    month = START + 31 * DAY
    assert stops == [START, month, month + DAY, START + 40 * DAY]


def test_one_customer_that_fails_does_not_stop_the_clock(clock, sandy, version, monkeypatch, caplog):
    other = Customer.objects.create(key="other", name="Other", test_clock=clock)
    for customer in (sandy, other):
        cycle.subscribe(customer=customer, version=version, starts_at=START, at=START)
    advanced = clocks.advance_customer

    def fail(*, customer_id, at):
        if customer_id == sandy.pk:
            raise ValueError("broken")
        advanced(customer_id=customer_id, at=at)

    monkeypatch.setattr(clocks, "advance_customer", fail)
    advance(clock, START + 40 * DAY)

    assert BillingPeriod.objects.filter(customer=other).count() == 2
    assert "could not be advanced" in caplog.text


def test_a_deleted_clock_stands_still(ask, clock, sandy, version):
    cycle.subscribe(customer=sandy, version=version, starts_at=START, at=START)

    ask("delete", f"/{clock.public_id}")
    cycle.tick(at=datetime.now(UTC))

    assert ask("post", f"/{clock.public_id}/advance", {"to": "2026-01-02T00:00:00Z"}).status_code == 404
    assert BillingPeriod.objects.get().status == "open"
    assert TestClock.objects.get().now == START


# --- mail -----------------------------------------------------------------------------------------------------


def test_mail_to_a_sandbox_is_kept_and_never_sent(ask, clock, sandy, version, mailoutbox):
    cycle.subscribe(customer=sandy, version=version, starts_at=START, at=START)
    budgets.create_budget(
        customer=sandy,
        name="Monthly",
        unit="USD",
        amount=D(10),
        thresholds=[budgets.ThresholdSpec(percent=D(50))],
        recipients=["ops@sandy.test"],
        at=START,
        trusted=True,
    )
    use(sandy, 110, START)

    advance(clock, START + DAY)
    notifications.deliver(at=datetime.now(UTC))

    assert mailoutbox == []
    assert [message.status for message in OutboxMessage.objects.all()] == ["kept"]
    [message] = ask("get", f"/{clock.public_id}/outbox").json()["data"]
    assert (message["channel"], message["recipient"]) == ("email", "ops@sandy.test")
    assert message["created_at"] == "2026-01-01T00:00:00Z"
    assert "Monthly" in message["subject"] + message["text"]
    assert credit_questions.balances(sandy, clock.now)[0].overage == 10
