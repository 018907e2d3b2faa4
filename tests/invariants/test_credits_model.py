"""Whatever happens in whatever order, credits end where a plain model says, and the books agree with themselves.

Hypothesis draws the steps: grants, usage in time and late, corrections, calls that ask first and end in each way, plan
changes, time, and every task twice. After each step the books agree, whether its usage is counted yet or not, and every
question whether a call may run is answered as tests/oracle/holds.py answers it. Whenever they are settled, everything
is as tests/oracle/credits.py spends it from the beginning. tests/oracle/wallet.py remembers for them what has happened.
So these hold, of which `Credits` says where:

1. each transaction balances in each unit, and so do all of them together;
2. stored balances are the sums of their entries and what the model says;
3. a grant's amount is used, expired, void, rolled over or left, none of them below zero;
4. no grant pays outside its time and its meters;
5. grants are spent in one order;
6. each event is on a line that is billed, or on one that is open, once;
7. counters are the sums of their events;
8. what is owed for a grant is what is left of it at its cost basis;
9. what was billed stays as it was, line by line and statement by statement;
10. a task that runs again changes nothing;
11. the order and the batches in which events come do not matter, for the model knows neither;
12. lines that are billed anew from their events are what was billed;
13. days add up to the whole;
14. chart, lines, cells, ledger and statement are the same numbers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from math import inf

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Sum
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from accounts.models import Customer
from billing.authorizations import queries
from billing.authorizations import services as authorizations
from billing.authorizations.facts import Usage
from billing.authorizations.models import Authorization
from billing.authorizations.services import Denied
from billing.credits import queries as credit_questions
from billing.credits import services
from billing.credits.booking import is_withdrawn
from billing.credits.models import AllocationCell, CreditGrant, GrantKind, LedgerEntry
from billing.credits.queries import GrantBalance
from billing.cycle import services as cycle
from billing.cycle.checking import check_all, retry_parked
from billing.cycle.verify import differences
from billing.errors import Conflict
from billing.metering import correcting
from billing.metering import services as metering
from billing.periods import QUARTER
from billing.pricing.spec import CreditSpec, PriceSpec
from billing.rating.queries import rated_series
from billing.subscriptions.models import BillingPeriod
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version
from tests.invariants import books, machines
from tests.oracle.credits import Grant, Spent, Use
from tests.oracle.holds import Hold
from tests.oracle.wallet import DAY, Wallet

START = datetime(2026, 3, 1, tzinfo=UTC)
LASTS = {"a": DAY, "b": 7 * DAY}
PLANS = {"small": (1, 10), "large": (2, 30)}  # credits in a quarter hour of the day, and how many roll over
SOLD_FOR = Decimal("0.37")  # a paid credit

AWAY = st.sampled_from([0, 1, 7, 40, DAY, 3 * DAY])  # near, a day off, and far enough for periods to close
METERS = st.sampled_from("ab")


class Credits(RuleBasedStateMachine):
    """A customer with a daily and a weekly subscription that share its credits, and all that may happen to it.

    The clock stands on quarter hours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.savepoint = transaction.savepoint_create()
        self.customer = Customer.objects.create(key="globex", name="Globex")
        for meter in LASTS:
            make_meter(meter, event_type=meter, value="n")
        self.versions = {
            name: make_version(
                make_plan(name),
                interval="day",
                prices=(PriceSpec("a", "a", "credits", Decimal(1)),),
                credits=(CreditSpec("credits", Decimal(rate * DAY), priority=10, rollover_max=Decimal(most)),),
            )
            for name, (rate, most) in PLANS.items()
        }
        weekly = make_version(
            make_plan("weekly"), interval="week", prices=(PriceSpec("b", "b", "credits", Decimal(1)),)
        )
        self.daily = make_subscription(self.customer, self.versions["small"], START)
        make_subscription(self.customer, weekly, START)
        self.model = Wallet(LASTS, PLANS, "small")
        self.sent: dict[str, dict[str, object]] = {}
        self.given: dict[int, int] = {}  # ids of grants, by the number that the model gives them
        self.allowed: dict[int, str] = {}  # ids of authorizations, by the number that the model gives their holds
        self.frozen = books.Frozen()
        self.settle()

    def teardown(self) -> None:
        transaction.savepoint_rollback(self.savepoint)

    def at(self, quarter: int) -> datetime:
        return START + quarter * QUARTER

    @property
    def time(self) -> datetime:
        return self.at(self.model.now)

    def sends(self, meter: str, at: int, quantity: int, **fields: object) -> dict[str, object]:
        """An event that the model knows, too."""
        name = f"e{next(self.model.numbers)}"
        self.model.uses[name] = Use(at, meter, quantity)
        self.sent[name] = event(name, "globex", type=meter, timestamp=self.at(at).isoformat(), n=quantity, **fields)
        return self.sent[name]

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(away=AWAY)
    def time_passes(self, away):
        self.model.now += away

    @rule(meter=METERS, ago=AWAY, quantity=st.integers(1, 60))
    def use(self, meter, ago, quantity):
        """An event comes, perhaps late: into a period that is open, in grace or closed."""
        sent = self.sends(meter, max(self.model.now - ago, 0), quantity)
        assert ingest(sent, at=self.time, backfill=True).accepted == 1

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data):
        """However long ago it came. What a corrected one had said at first may be forgotten by now."""
        name = data.draw(st.sampled_from(sorted(self.sent)))
        answer = ingest(self.sent[name], at=self.time, backfill=True)
        assert (answer.accepted, answer.duplicate + answer.conflict) == (0, 1)

    @precondition(lambda self: self.model.uses)
    @rule(data=st.data())
    def void_event(self, data):
        name = data.draw(st.sampled_from(sorted(self.model.uses)))
        correcting.void_event(source="default", event_id=name, at=self.time)
        del self.model.uses[name]

    @precondition(lambda self: self.model.uses)
    @rule(data=st.data(), quantity=st.integers(0, 60))
    def amend_event(self, data, quantity):
        name = data.draw(st.sampled_from(sorted(self.model.uses)))
        correcting.amend_event(source="default", event_id=name, properties={"n": quantity}, at=self.time)
        self.model.uses[name].quantity = quantity

    @rule(
        amount=st.integers(1, 80),
        priority=st.sampled_from([1, 10, 50]),
        kind=st.sampled_from(["paid", "promotional"]),
        meter=st.sampled_from([None, None, "a", "b"]),
        ago=st.sampled_from([-9, 0, 1, 7, 40, DAY, 3 * DAY]),
        lasts=st.sampled_from([inf, 1, 2, 8, 41, DAY, 3 * DAY]),
    )
    def grant(self, amount, priority, kind, meter, ago, lasts):  # noqa: PLR0917 -- hypothesis passes them by name
        start = max(self.model.now - ago, 0)
        given = services.grant(
            customer=self.customer,
            unit="credits",
            amount=Decimal(amount),
            kind=GrantKind(kind),
            priority=priority,
            effective_at=self.at(start),
            expires_at=None if lasts == inf else self.at(start + lasts),
            meters=[meter] if meter else [],
            cost_basis=SOLD_FOR if kind == "paid" else None,
            at=self.time,
        )
        grant = Grant(next(self.model.numbers), amount, kind, priority, start, start + lasts, meter=meter)
        self.given[grant.number] = given.pk
        self.model.give(grant)

    @rule(data=st.data())
    def void_grant(self, data):
        """After settling, so that the model need not know which days are open already."""
        self.settle()
        grant = data.draw(st.sampled_from(self.model.grants))
        if grant.is_void or grant.end <= self.model.now:
            with pytest.raises(ValidationError):
                services.void(grant=self.stored(grant), at=self.time)
            return
        services.void(grant=self.stored(grant), reason="A test", at=self.time)
        self.model.void(grant)

    @rule(data=st.data(), amount=st.integers(-90, 40).filter(bool))
    def adjust_grant(self, data, amount):
        self.settle()
        grant = data.draw(st.sampled_from(self.model.grants))
        spent = self.model.spent()
        left = grant.amount + grant.adjusted + spent.rolled_in[grant.number] - spent.by_grant[grant.number]
        adjustment = {"amount": Decimal(amount), "reason": "A test", "at": self.time}
        if grant.is_void or grant.end <= self.model.now or -amount > min(left, grant.amount + grant.adjusted):
            with pytest.raises(ValidationError):
                services.adjust(grant=self.stored(grant), **adjustment)
            return
        services.adjust(grant=self.stored(grant), **adjustment)
        self.model.adjust(grant, amount)

    @rule(meter=METERS, amount=st.integers(1, 60), lasts=st.sampled_from([1, 2, 8, DAY]))
    def authorize(self, meter, amount, lasts):
        """A call asks, and may run if everything that is used, held and asked for is paid."""
        after = self.model.purse().available_after(meter, amount)
        answer = authorizations.authorize(
            customer=self.customer.key,
            wanted=[Usage(meter, Decimal(amount))],
            ttl=lasts * QUARTER,
            at=self.time,
        )
        if after is None:
            assert isinstance(answer, Denied)
            assert answer.reason == "credit_exhausted"
        else:
            assert answer.available_after == {"credits": after}
            self.allowed[self.model.hold(meter, amount, lasts)] = answer.id

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), end=st.sampled_from([authorizations.release, authorizations.capture]))
    def end_hold(self, data, end):
        """The call did not run, or what it used is sent separately."""
        authorization, hold = self._a_hold(data)
        if hold.is_open(self.model.now):
            end(authorization=authorization, at=self.time)
            hold.state = "gone"
        else:
            with pytest.raises(Conflict):
                end(authorization=authorization, at=self.time)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), meter=METERS, quantity=st.integers(1, 60))
    def capture_with_events(self, data, meter, quantity):
        """What the call used, perhaps more than it asked for. Of a hold that has ended nothing is recorded."""
        authorization, hold = self._a_hold(data)
        capture = partial(authorizations.capture_with_events, authorization=authorization, api_key=None, at=self.time)
        if hold.is_open(self.model.now):
            _, answer = capture(events=[self.sends(meter, self.model.now, quantity)])
            assert answer.accepted == 1
            hold.state = "used"
        else:
            with pytest.raises(Conflict):
                capture(events=[event("never", "globex", type=meter, timestamp=self.time.isoformat(), n=quantity)])

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), meter=METERS, ago=st.sampled_from([0, 0, 1, DAY]), quantity=st.integers(1, 60))
    def use_of_a_hold(self, data, meter, ago, quantity):
        """An event that ends a hold. It counts as well where the hold has ended, with a warning."""
        authorization, hold = self._a_hold(data)
        sent = self.sends(meter, max(self.model.now - ago, 0), quantity, authorization=authorization.public_id)
        body = json.dumps([sent]).encode()
        answer = authorizations.take(body=body, content_type="application/json", api_key=None, at=self.time)
        assert answer.accepted == 1
        warnings = [result["warning"] for result in answer.results]
        if hold.is_open(self.model.now):
            assert warnings == []
            hold.state = "used"
        else:
            assert warnings == ["authorization_not_open"]

    def _a_hold(self, data) -> tuple[Authorization, Hold]:
        number = data.draw(st.sampled_from(sorted(self.model.holds)))
        found = Authorization.objects.select_related("customer").get(public_id=self.allowed[number])
        return found, self.model.holds[number]

    @rule()
    def change_plan(self):
        self.settle()
        plan = "large" if self.model.plan == "small" else "small"
        self.daily = cycle.change(subscription=self.daily, version=self.versions[plan], when="now", at=self.time)
        self.model.change_plan(plan)

    @rule()
    def run_every_task_twice(self):
        self.settle()
        entries = LedgerEntry.objects.count()
        for _ in range(2):
            cycle.tick(at=self.time)
            self.model.periods_roll()
            services.seal_all()
            assert check_all(at=self.time, since=START).differences == 0
            assert retry_parked(at=self.time) == 0
            metering.replay_unmatched(at=self.time)
            metering.purge_identities(at=self.time)
            metering.purge_minutes(at=self.time)
            authorizations.forget(at=self.time)
        assert LedgerEntry.objects.count() == entries
        self._only_ended_holds_are_forgotten()
        self.is_as_the_model_says()
        self.frozen.statements_stay(self.customer, self.time)
        for period in BillingPeriod.objects.all():
            books.nothing_is_unexplained(period, self.time)

    def _only_ended_holds_are_forgotten(self) -> None:
        known = set(Authorization.objects.values_list("public_id", flat=True))
        for number in [number for number in self.model.holds if self.allowed[number] not in known]:
            assert self.model.holds.pop(number).state == "gone"

    @rule()
    def settle(self):
        cycle.advance(customer_id=self.customer.pk, at=self.time)
        self.model.settle()
        self.is_as_the_model_says()

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self):
        """1, 2, 7 and 14, also while usage waits to be counted."""
        assert list(differences()) == []
        books.the_trial_balance_is_nought(self.customer)

    @invariant()
    def what_is_held_is_reserved(self):
        [balance] = queries.balances(self.customer, self.time)
        left = sum(self.model.left[grant.number] for grant in self.model.usable())
        held = sum(hold.amount for hold in self.model.held())
        assert (balance.balance, balance.reserved, balance.available) == (left, held, left - held)

    def stored(self, grant: Grant) -> CreditGrant:
        if grant.kind != "plan":
            return CreditGrant.objects.get(pk=self.given[grant.number])
        found = CreditGrant.objects.filter(kind="plan", effective_at=self.at(grant.start)).order_by("-pk")
        return next(one for one in found if not is_withdrawn(one))

    def is_as_the_model_says(self) -> None:
        spent = self.model.spent()
        [balance] = queries.balances(self.customer, self.time)
        [as_recorded] = credit_questions.balances(self.customer, self.time, recorded_by=self.time)
        assert [self._facts(item) for item in as_recorded.grants] == [self._facts(item) for item in balance.grants]
        items = {self._place(item.grant): item for item in balance.grants if not self._is_replaced(item.grant)}
        assert len(items) == len(self.model.grants)
        for grant in self.model.grants:
            item, number = items[self._place_of(grant)], grant.number
            assert (item.used, item.grant.rolled_in) == (spent.by_grant[number], spent.rolled_in[number])
            assert (item.rolled_out, item.grant.adjusted) == (spent.rolled_out[number], grant.adjusted)
            assert item.used + item.expired + item.voided + item.rolled_out + item.remaining == item.total
            assert min(item.used, item.expired, item.voided, item.rolled_out, item.remaining) >= 0
        usable = [grant for grant in self.model.usable() if not grant.is_void]
        assert balance.balance == sum(items[self._place_of(grant)].remaining for grant in usable)
        assert balance.overage == sum(spent.overage.get((meter, self.model.now // LASTS[meter]), 0) for meter in LASTS)
        self._grants_are_spent_in_order(balance.grants)
        self._grants_are_owed(items)
        self._lines_are_billed_once(spent)
        self._numbers_are_the_same()

    def _grants_are_spent_in_order(self, shown: Sequence[GrantBalance]) -> None:
        """4 and 5; who paid how much is compared with the model, which spends in this order."""
        alive = [grant for grant in self.model.grants if not grant.is_void and self.model.now < grant.end]
        expected = [self._place_of(grant) for grant in sorted(alive, key=lambda grant: grant.burn_key)]
        assert [self._place(item.grant) for item in shown][: len(expected)] == expected
        books.grants_pay_in_their_time_and_scope(self.customer)

    def _grants_are_owed(self, items: Mapping[object, GrantBalance]) -> None:
        """8."""
        left = sum(item.remaining for item in items.values())
        bought = sum(item.remaining for item in items.values() if item.grant.kind == "paid")
        books.what_is_owed_is_what_is_left(self.customer, left, bought * SOLD_FOR, self.time)

    def _lines_are_billed_once(self, spent: Spent) -> None:
        """6, 9 and 12."""
        books.each_event_is_billed_or_open_once(self.customer, len(self.sent), self._used())
        self.frozen.lines_stay(self.customer)
        for period in BillingPeriod.objects.filter(billed_at__isnull=False).select_related("version__plan"):
            meter = "b" if period.version.plan.key == "weekly" else "a"
            number = (period.starts_at - START) // (LASTS[meter] * QUARTER)
            beyond = spent.overage.get((meter, number), 0)
            used = self._used(lambda use, meter=meter, number=number: use.place(LASTS) == (meter, number))
            books.billed_anew_from_events_it_is_the_same(period, meter, used, Decimal(beyond))

    def _used(self, which: Callable[[Use], bool] = lambda _: True) -> tuple[Decimal, int]:
        """The quantity and the number of events."""
        uses = [use for use in self.model.uses.values() if which(use)]
        return Decimal(sum(use.quantity for use in uses)), len(uses)

    def _place(self, grant: CreditGrant) -> object:
        return grant.effective_at if grant.kind == "plan" else grant.pk

    def _place_of(self, grant: Grant) -> object:
        return self.at(grant.start) if grant.kind == "plan" else self.given[grant.number]

    def _is_replaced(self, grant: CreditGrant) -> bool:
        return grant.kind == "plan" and is_withdrawn(grant)

    def _facts(self, item: GrantBalance) -> tuple[object, ...]:
        moved = item.grant.adjusted, item.grant.rolled_in, item.rolled_out
        return item.grant.pk, item.used, item.expired, item.voided, item.remaining, *moved

    def _numbers_are_the_same(self) -> None:
        """13 and 14."""
        used = sum(use.quantity for use in self.model.uses.values())
        days = [START + number * timedelta(days=1) for number in range(self.model.now // DAY + 2)]
        series = rated_series(self.customer, edges=days, unit="credits")
        whole = rated_series(self.customer, edges=[days[0], days[-1]], unit="credits")
        assert sum(row.amount for row in series) == sum(row.amount for row in whole) == used
        assert (AllocationCell.objects.aggregate(sum=Sum("posted"))["sum"] or 0) == used
        books.spend_is_what_allocation_rated(self.customer)


@pytest.mark.django_db
def test_credits_end_where_a_plain_model_says():
    machines.run(Credits, examples=6, steps=50)
