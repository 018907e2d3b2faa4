"""Whatever happens in whatever order, credits end where a plain model says, and the books agree with themselves.

Hypothesis draws the steps. After each of them the books agree, whether its usage is counted yet or not; whenever they
are settled, everything is as tests/oracle/credits.py spends it from the beginning. So of the invariants of a ledger:
transactions balance in each unit (I1), stored balances are the sums of entries and the model's (I2), a grant's amount
is used, expired, void, rolled over or left (I3), none pays outside its time and scope or out of burn order (I4, I5), an
event counts once or is void (I6), counters are the sums of their events (I7), a task that runs again changes nothing
(I10), the order of arrival does not matter, because the model knows none (I11), days add up to the whole (I13), and
lines, cells, entries and balances are the same numbers (I14). Deferred revenue and invoices (I8, I9, I12) lie in rooms
below these.
"""

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from math import inf

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Sum
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from accounts.models import Customer
from billing.credits import queries, services
from billing.credits.booking import is_withdrawn
from billing.credits.models import AllocationCell, CreditGrant, GrantKind, LedgerEntry
from billing.cycle import services as cycle
from billing.cycle.checking import check_all, retry_parked
from billing.cycle.verify import differences
from billing.metering import correcting
from billing.periods import QUARTER
from billing.pricing.spec import CreditSpec, PriceSpec
from billing.rating.queries import rated_series
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version
from tests.oracle.credits import Grant, Spent, Use, spend

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = 96  # quarter hours
LASTS = {"a": DAY, "b": 7 * DAY}
PLANS = {"small": (1, 10), "large": (2, 30)}  # credits in a quarter hour of the day, and how many roll over

AWAY = st.sampled_from([0, 0, 1, 7, 40, DAY, 3 * DAY])  # near, a day off, and far enough for periods to close
METERS = st.sampled_from("ab")

# More of them, and other ones each time: CREDITS_EXAMPLES=2000 pytest tests/invariants/test_credits_model.py
EXAMPLES = int(os.environ.get("CREDITS_EXAMPLES", "0"))


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
        self.numbers = count()
        self.now = 0
        self.plan = "small"
        self.segments: list[tuple[int, int, str]] = [(0, DAY, "small")]
        self.uses: dict[str, Use] = {}
        self.sent: dict[str, object] = {}
        self.given: dict[int, int] = {}  # ids of grants, by the number that the model gives them
        self.grants: list[Grant] = []
        self.settle()

    def teardown(self) -> None:
        transaction.savepoint_rollback(self.savepoint)

    def at(self, quarter: int) -> datetime:
        return START + quarter * QUARTER

    @property
    def time(self) -> datetime:
        return self.at(self.now)

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(away=AWAY)
    def time_passes(self, away):
        self.now += away

    @rule(meter=METERS, ago=AWAY, quantity=st.integers(1, 60))
    def use(self, meter, ago, quantity):
        """An event comes, perhaps late: into a period that is open, in grace or closed."""
        name, at = f"e{next(self.numbers)}", max(self.now - ago, 0)
        self.uses[name] = Use(at, meter, quantity)
        self.sent = event(name, "globex", type=meter, timestamp=self.at(at).isoformat(), n=quantity)
        assert ingest(self.sent, at=self.time, backfill=True).accepted == 1

    @precondition(lambda self: self.sent)
    @rule()
    def send_again(self):
        assert ingest(self.sent, at=self.time, backfill=True).duplicate == 1

    @precondition(lambda self: self.uses)
    @rule(data=st.data())
    def void_event(self, data):
        name = data.draw(st.sampled_from(sorted(self.uses)))
        correcting.void_event(source="default", event_id=name, at=self.time)
        del self.uses[name]

    @precondition(lambda self: self.uses)
    @rule(data=st.data(), quantity=st.integers(0, 60))
    def amend_event(self, data, quantity):
        name = data.draw(st.sampled_from(sorted(self.uses)))
        correcting.amend_event(source="default", event_id=name, properties={"n": quantity}, at=self.time)
        self.uses[name].quantity = quantity

    @rule(
        amount=st.integers(1, 80),
        priority=st.sampled_from([1, 10, 50]),
        kind=st.sampled_from(["paid", "promotional"]),
        meter=st.sampled_from([None, None, "a", "b"]),
        ago=st.sampled_from([-9, 0, 1, 7, 40, DAY, 3 * DAY]),
        lasts=st.sampled_from([inf, 1, 2, 8, 41, DAY, 3 * DAY]),
    )
    def grant(self, amount, priority, kind, meter, ago, lasts):  # noqa: PLR0917 -- hypothesis passes them by name
        start = max(self.now - ago, 0)
        given = services.grant(
            customer=self.customer,
            unit="credits",
            amount=Decimal(amount),
            kind=GrantKind(kind),
            priority=priority,
            effective_at=self.at(start),
            expires_at=None if lasts == inf else self.at(start + lasts),
            meters=[meter] if meter else [],
            at=self.time,
        )
        grant = Grant(next(self.numbers), amount, kind, priority, start, start + lasts, meter=meter)
        self.given[grant.number] = given.pk
        self.grants.append(grant)

    @rule(data=st.data())
    def void_grant(self, data):
        """After settling, so that the model need not know which days are open already."""
        self.settle()
        grant = data.draw(st.sampled_from(self.grants))
        if grant.is_void or grant.end <= self.now:
            with pytest.raises(ValidationError):
                services.void(grant=self.stored(grant), at=self.time)
            return
        services.void(grant=self.stored(grant), reason="A test", at=self.time)
        grant.paid_when_void = self.spent().by_grant[grant.number]
        grant.void_end = self.now + 1

    @rule(data=st.data(), amount=st.integers(-90, 40).filter(bool))
    def adjust_grant(self, data, amount):
        self.settle()
        grant = data.draw(st.sampled_from(self.grants))
        spent = self.spent()
        left = grant.amount + grant.adjusted + spent.rolled_in[grant.number] - spent.by_grant[grant.number]
        adjustment = {"amount": Decimal(amount), "reason": "A test", "at": self.time}
        if grant.is_void or grant.end <= self.now or -amount > min(left, grant.amount + grant.adjusted):
            with pytest.raises(ValidationError):
                services.adjust(grant=self.stored(grant), **adjustment)
            return
        services.adjust(grant=self.stored(grant), **adjustment)
        grant.adjusted += amount

    @rule()
    def change_plan(self):
        self.settle()
        self.plan = "large" if self.plan == "small" else "small"
        self.daily = cycle.change(subscription=self.daily, version=self.versions[self.plan], when="now", at=self.time)
        *before, (start, end, _) = self.segments
        if start < self.now:
            self.segments = [*before, (start, self.now, self.segments[-1][2]), (self.now, end, self.plan)]
        elif before and before[-1][2] == self.plan and before[-1][0] // DAY == start // DAY:
            self.segments = [*before[:-1], (before[-1][0], end, self.plan)]  # a change that is taken back never was
        else:
            self.segments = [*before, (start, end, self.plan)]
        self._plan_gives()

    @rule()
    def run_every_task_twice(self):
        self.settle()
        entries = LedgerEntry.objects.count()
        for _ in range(2):
            cycle.tick(at=self.time)
            services.seal_all()
            assert check_all(at=self.time, since=START).differences == 0
            assert retry_parked(at=self.time) == 0
        assert LedgerEntry.objects.count() == entries

    @rule()
    def settle(self):
        cycle.advance(customer_id=self.customer.pk, at=self.time)
        while self.segments[-1][1] <= self.now:
            _, end, _ = self.segments[-1]
            self.segments.append((end, end + DAY, self.plan))
        self._plan_gives()
        self.is_as_the_model_says()

    def _plan_gives(self) -> None:
        """A grant for each segment; where a change has cut one, another takes its place."""
        standing = {(grant.start, grant.rollover_max): grant for grant in self.grants if grant.kind == "plan"}
        wanted = []
        for start, end, plan in self.segments:
            rate, most = PLANS[plan]
            grant = standing.get((start, most))
            if grant is None or not (grant.is_void or grant.end == end):
                grant = Grant(next(self.numbers), rate * (end - start), "plan", 10, start, end, rollover_max=most)
            wanted.append(grant)
        self.grants = [grant for grant in self.grants if grant.kind != "plan"] + wanted

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def the_books_agree(self):
        assert list(differences()) == []

    def stored(self, grant: Grant) -> CreditGrant:
        if grant.kind != "plan":
            return CreditGrant.objects.get(pk=self.given[grant.number])
        found = CreditGrant.objects.filter(kind="plan", effective_at=self.at(grant.start)).order_by("-pk")
        return next(one for one in found if not is_withdrawn(one))

    def spent(self) -> Spent:
        cuts = {bound for start, end, _ in self.segments for bound in (start, end)}
        return spend(list(self.uses.values()), self.grants, cuts=cuts, period_of=LASTS)

    def is_as_the_model_says(self) -> None:
        spent = self.spent()
        [balance] = queries.balances(self.customer, self.time)
        [as_recorded] = queries.balances(self.customer, self.time, recorded_by=self.time)
        assert [self._facts(item) for item in as_recorded.grants] == [self._facts(item) for item in balance.grants]
        items = {self._place(item.grant): item for item in balance.grants if not self._is_replaced(item.grant)}
        assert len(items) == len(self.grants)
        for grant in self.grants:
            item, number = items[self._place_of(grant)], grant.number
            assert (item.used, item.grant.rolled_in) == (spent.by_grant[number], spent.rolled_in[number])
            assert (item.rolled_out, item.grant.adjusted) == (spent.rolled_out[number], grant.adjusted)
            assert item.used + item.expired + item.voided + item.rolled_out + item.remaining == item.total
            assert min(item.used, item.expired, item.voided, item.remaining) >= 0
        usable = [grant for grant in self.grants if grant.usable(self.now) and not grant.is_void]
        assert balance.available == sum(items[self._place_of(grant)].remaining for grant in usable)
        assert balance.overage == sum(spent.overage.get((meter, self.now // LASTS[meter]), 0) for meter in LASTS)
        self._numbers_are_the_same()

    def _place(self, grant: CreditGrant) -> object:
        return grant.effective_at if grant.kind == "plan" else grant.pk

    def _place_of(self, grant: Grant) -> object:
        return self.at(grant.start) if grant.kind == "plan" else self.given[grant.number]

    def _is_replaced(self, grant: CreditGrant) -> bool:
        return grant.kind == "plan" and is_withdrawn(grant)

    def _facts(self, item: queries.GrantBalance) -> tuple[object, ...]:
        moved = item.grant.adjusted, item.grant.rolled_in, item.rolled_out
        return item.grant.pk, item.used, item.expired, item.voided, item.remaining, *moved

    def _numbers_are_the_same(self) -> None:
        used = sum(use.quantity for use in self.uses.values())
        days = [START + number * timedelta(days=1) for number in range(self.now // DAY + 2)]
        series = rated_series(self.customer, edges=days, unit="credits")
        whole = rated_series(self.customer, edges=[days[0], days[-1]], unit="credits")
        assert sum(row.amount for row in series) == sum(row.amount for row in whole) == used
        assert (AllocationCell.objects.aggregate(sum=Sum("posted"))["sum"] or 0) == used


@pytest.mark.django_db
def test_credits_end_where_a_plain_model_says():
    run_state_machine_as_test(
        Credits,
        settings=settings(
            max_examples=EXAMPLES or 8,
            stateful_step_count=30,
            deadline=None,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if not EXAMPLES else list(Phase),
        ),
    )
