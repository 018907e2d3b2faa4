"""Who asks before each call, and uses no more than was allowed, never goes below nothing: a stop that stops.

Hypothesis draws calls that run beside each other, in two units, and how each ends; ticks come whenever they come.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from accounts.models import Customer
from billing.authorizations import services
from billing.authorizations.models import Authorization
from billing.authorizations.queries import balances
from billing.authorizations.services import Allowed
from billing.credits.queries import Balance
from billing.cycle.services import tick
from billing.cycle.verify import differences
from billing.rating.queries import lines
from billing.subscriptions.models import BillingPeriod
from tests.billing.authorizations.conftest import MINUTE, NOON, allowed, ask_for, give, make_house, stop_at, use
from tests.factories import event
from tests.invariants import machines

LEVEL = 60  # dollars, at which the budget stops
TYPES = {"searches": "search", "work": "work"}


class Careful(RuleBasedStateMachine):
    """Searches cost credits, of which there are few; work costs dollars, at which a budget stops."""

    def __init__(self) -> None:
        super().__init__()
        self.savepoint = transaction.savepoint_create()
        self.customer = make_house(Customer.objects.create(key="acme", name="Acme"))
        self.given = 40
        give(self.customer, self.given)
        self.budget = stop_at(self.customer, LEVEL)
        self.now = NOON
        self.used = {"searches": Decimal(0), "work": Decimal(0)}
        self.running: list[tuple[str, str, int, datetime]] = []  # authorization, meter, amount, until when

    def teardown(self) -> None:
        transaction.savepoint_rollback(self.savepoint)

    # --- what happens ---------------------------------------------------------------------------------------------

    @rule(meter=st.sampled_from(sorted(TYPES)), amount=st.integers(1, 25))
    def ask(self, meter, amount):
        answer = ask_for(self.customer, meter, amount, at=self.now)
        if isinstance(answer, Allowed):
            self.running.append((answer.id, meter, amount, answer.expires_at))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["event", "capture"]))
    def end_with_usage(self, data, how):
        """In time: what has run longer than it may is stopped."""
        authorization, meter, amount = self._take(data)
        if authorization.expires_at <= self.now:
            return
        quantity = data.draw(st.integers(1, amount))
        if how == "event":
            answer = use(self.customer, TYPES[meter], quantity, at=self.now, authorization=authorization.public_id)
            assert (answer.accepted, answer.results) == (1, [])
        else:
            sent = event(authorization.public_id, type=TYPES[meter], timestamp=self.now.isoformat(), n=quantity)
            services.capture_with_events(authorization=authorization, events=[sent], api_key=None, at=self.now)
        self.used[meter] += quantity

    @precondition(lambda self: self.running)
    @rule(data=st.data(), end=st.sampled_from([services.release, services.capture]))
    def end_without_usage(self, data, end: Callable[..., Authorization]):
        authorization, _, _ = self._take(data)
        if authorization.expires_at > self.now:
            end(authorization=authorization, at=self.now)

    def _take(self, data) -> tuple[Authorization, str, int]:
        public_id, meter, amount, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        return Authorization.objects.select_related("customer").get(public_id=public_id), meter, amount

    @rule(amount=st.integers(1, 30))
    def more_is_given(self, amount):
        give(self.customer, amount, at=self.now)
        self.given += amount

    @rule(minutes=st.integers(1, 6))
    def time_passes(self, minutes):
        self.now += minutes * MINUTE

    @rule()
    def count(self):
        tick(at=self.now)
        assert self._counted() == self.used
        found = self._credits()
        open_now = [amount for _, meter, amount, until in self.running if meter == "searches" and until > self.now]
        assert (found.balance, found.reserved) == (self.given - self.used["searches"], sum(open_now))
        assert list(differences()) == []

    def _credits(self) -> Balance:
        return next(one for one in balances(self.customer, self.now) if one.unit == "credits")

    def _counted(self) -> dict[str, Decimal]:
        return {line.meter.key: line.quantity for period in BillingPeriod.objects.all() for line in lines(period)}

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_overspent(self):
        found = self._credits()
        assert found.available >= 0
        assert found.overage == 0

    @invariant()
    def the_budget_stops(self):
        self.budget.refresh_from_db()
        assert self.budget.used <= LEVEL
        assert self.used["work"] <= LEVEL


@pytest.mark.django_db
def test_usage_that_is_authorized_within_its_amounts_never_goes_below_nothing():
    machines.run(Careful, examples=10, steps=30)


@pytest.mark.django_db
def test_a_grant_that_ends_while_it_is_held_is_gone_for_the_hold_too(acme):
    """Else everybody would be stopped in the last minutes of each billing period."""
    make_house(acme)
    give(acme, 10, expires_at=NOON + 15 * MINUTE)
    held = allowed(ask_for(acme, "searches", 10, at=NOON + 12 * MINUTE))

    [balance] = balances(acme, NOON + timedelta(minutes=15))

    assert held.expires_at == NOON + 17 * MINUTE
    assert (balance.balance, balance.reserved, balance.available) == (0, 10, -10)
