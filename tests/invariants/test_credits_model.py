"""Whatever happens in whatever order, credits end where a plain model says, and the books agree with themselves."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from math import inf
from random import Random

import pytest

from accounts.models import Customer
from billing.credits import queries, services
from billing.credits.models import CreditGrant, GrantKind, LedgerEntry
from billing.cycle.services import advance, tick
from billing.cycle.verify import differences
from billing.periods import QUARTER
from billing.pricing.spec import CreditSpec, PriceSpec
from tests.factories import event, ingest, make_meter, make_plan, make_subscription, make_version
from tests.oracle.credits import Grant, Use, spend

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = 96  # quarter hours
LASTS = {"a": DAY, "b": 7 * DAY}
BY_PLAN = 5  # credits a day

STEPS = 40
AWAY = [0, 0, 1, 7, 40, DAY, 3 * DAY]  # near, a day off, and far enough for periods to close


class Story:
    """A customer with a daily and a weekly subscription that share its credits, and what a random hand does to it.

    The clock stands on quarter hours.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.customer = Customer.objects.create(key="globex", name="Globex")
        for meter in ("a", "b"):
            make_meter(meter, aggregation="count", event_type=meter)
        daily = make_version(
            make_plan("daily"),
            interval="day",
            prices=(PriceSpec("a", "a", "credits", Decimal(1)),),
            credits=(CreditSpec("credits", Decimal(BY_PLAN), priority=10),),
        )
        weekly = make_version(
            make_plan("weekly"), interval="week", prices=(PriceSpec("b", "b", "credits", Decimal(1)),)
        )
        make_subscription(self.customer, daily, START)
        make_subscription(self.customer, weekly, START)
        self.numbers = count()
        self.now = 0
        self.uses: list[Use] = []
        self.sent: list[dict] = []
        self.given: dict[int, CreditGrant] = {}
        self.grants: list[Grant] = []
        self.plan_days = 0

    def go_on(self) -> None:
        deeds = [
            self.time_passes,
            self.use,
            self.use,
            self.send_again,
            self.give,
            self.void,
            self.tick,
            self.tick_twice,
        ]
        self.random.choice(deeds)()

    def at(self, quarter: int) -> datetime:
        return START + quarter * QUARTER

    def time_passes(self) -> None:
        self.now += self.random.choice(AWAY)

    def use(self) -> None:
        """Events come, some of them late: into a period that is open, in grace or closed."""
        number, meter = self.random.randint(1, 8), self.random.choice("ab")
        at = max(self.now - self.random.choice(AWAY), 0)
        self.uses += [Use(at, meter)] * number
        self.sent = [
            event(f"e{next(self.numbers)}", "globex", type=meter, timestamp=self.at(at).isoformat())
            for _ in range(number)
        ]
        assert ingest(*self.sent, at=self.at(self.now)).accepted == number

    def send_again(self) -> None:
        if self.sent:
            assert ingest(*self.sent, at=self.at(self.now)).duplicate == len(self.sent)

    def give(self) -> None:
        amount, priority = self.random.randint(1, 12), self.random.choice([1, 10, 50])
        kind, meter = self.random.choice(["paid", "promotional"]), self.random.choice([None, None, "a", "b"])
        start = max(self.now - self.random.choice([-9, *AWAY]), 0)
        end = self.random.choice([inf, start + 1 + self.random.choice(AWAY)])
        given = services.grant(
            customer=self.customer,
            unit="credits",
            amount=Decimal(amount),
            kind=GrantKind(kind),
            priority=priority,
            effective_at=self.at(start),
            expires_at=None if end == inf else self.at(end),
            meters=[meter] if meter else [],
            at=self.at(self.now),
        )
        self._remember(given, Grant(len(self.grants), amount, kind, priority, start, end, meter=meter))

    def _remember(self, given: CreditGrant, grant: Grant) -> None:
        self.given[grant.number] = given
        self.grants.append(grant)

    def void(self) -> None:
        """After a tick, so that the model need not know which periods are open already."""
        self.tick()
        if grants := [grant for grant in self.grants if self.voidable(grant)]:
            grant = self.random.choice(grants)
            services.void(grant=self.given[grant.number], at=self.at(self.now))
            grant.forfeited = grant.amount - spend(self.uses, self.grants, lasts=LASTS).by_grant[grant.number]
            grant.void_end = self.now + 1

    def voidable(self, grant: Grant) -> bool:
        return grant.void_end == inf and grant.end > self.now

    def tick(self) -> None:
        tick(at=self.at(self.now))
        advance(customer_id=self.customer.pk, at=self.at(self.now))
        self._plan_gives()
        self._check()

    def tick_twice(self) -> None:
        self.tick()
        entries = LedgerEntry.objects.count()
        advance(customer_id=self.customer.pk, at=self.at(self.now))
        assert LedgerEntry.objects.count() == entries

    def _plan_gives(self) -> None:
        for day in range(self.plan_days, self.now // DAY + 1):
            given = CreditGrant.objects.get(kind="plan", effective_at=self.at(day * DAY))
            grant = Grant(len(self.grants), BY_PLAN, "plan", 10, day * DAY, (day + 1) * DAY)
            self._remember(given, grant)
        self.plan_days = self.now // DAY + 1

    def _check(self) -> None:
        assert list(differences()) == []
        spent = spend(self.uses, self.grants, lasts=LASTS)
        [balance] = queries.balances(self.customer, self.at(self.now))
        found = {item.grant.pk: item for item in balance.grants}
        for grant in self.grants:
            item = found[self.given[grant.number].pk]
            assert item.used == spent.by_grant[grant.number]
            assert item.used + item.expired + item.voided + item.remaining == grant.amount
            assert min(item.used, item.expired, item.voided, item.remaining) >= 0
        usable = [grant for grant in self.grants if grant.usable(self.now) and grant.void_end == inf]
        assert balance.available == sum(grant.amount - spent.by_grant[grant.number] for grant in usable)
        assert balance.overage == sum(spent.overage.get((meter, self.now // LASTS[meter]), 0) for meter in "ab")


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(12))
def test_credits_end_where_a_plain_model_says(seed):
    story = Story(seed)
    for _ in range(STEPS):
        story.go_on()
    story.tick()
