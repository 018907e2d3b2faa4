"""Usage draws credits: per grant, exactly, in any order and however often it is run."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing.budgets import queries as budget_queries
from billing.credits import queries, services
from billing.credits.models import AllocationCell, GrantKind, LedgerEntry, LedgerTransaction
from billing.cycle.services import advance
from billing.periods import Interval
from billing.subscriptions.models import BillingPeriod
from tests.billing.budgets.conftest import make_budget
from tests.billing.credits.conftest import START
from tests.factories import event, ingest

DAY = timedelta(days=1)


def search(number: int, at, customer: str = "globex"):
    return event(f"s{number}", customer, type="search", timestamp=at.isoformat(), api_key="k")


def use(count: int, at, *, first: int = 0, now=None):
    answer = ingest(*(search(first + n, at) for n in range(count)), at=now or at)
    assert answer.accepted == count


def balance(customer, at):
    [found] = [found for found in queries.balances(customer, at) if found.unit == "credits"]
    return found


def remaining(customer, at) -> list[tuple[str, Decimal]]:
    return [(item.grant.kind, item.remaining) for item in balance(customer, at).grants]


def test_a_plan_gives_its_credits_with_the_first_tick(subscribed):
    advance(customer_id=subscribed.pk, at=START)

    assert balance(subscribed, START).available == 100


def test_usage_draws_credits_within_one_tick(subscribed):
    use(30, START + DAY)

    advance(customer_id=subscribed.pk, at=START + DAY)

    found = balance(subscribed, START + DAY)
    assert (found.balance, found.available, found.unsettled, found.settled_through) == (70, 70, 0, START + DAY)


def test_a_second_tick_posts_nothing(subscribed):
    use(30, START + DAY)
    advance(customer_id=subscribed.pk, at=START + DAY)
    before = LedgerEntry.objects.count()

    advance(customer_id=subscribed.pk, at=START + DAY)

    assert LedgerEntry.objects.count() == before


def test_a_promotional_grant_of_lower_priority_is_spent_first(subscribed):
    services.grant(
        customer=subscribed,
        unit="credits",
        amount=Decimal(20),
        kind=GrantKind.PROMOTIONAL,
        priority=5,
        expires_at=START + 10 * DAY,
        at=START,
    )
    use(30, START + DAY)

    advance(customer_id=subscribed.pk, at=START + DAY)

    assert remaining(subscribed, START + DAY) == [("promotional", 0), ("plan", 90)]


def test_usage_beyond_the_grants_is_overage_and_costs_its_rate(subscribed):
    use(130, START + DAY)

    advance(customer_id=subscribed.pk, at=START + DAY)

    month = Interval(START, START + 31 * DAY)
    assert balance(subscribed, START + DAY).overage == 30
    assert queries.spend(subscribed, unit="USD", interval=month) == Decimal("0.30")
    assert queries.spend(subscribed, unit="credits", interval=month) == 130


def test_a_series_of_spend_with_overage_adds_up_to_the_total(subscribed):
    use(70, START + DAY)
    use(70, START + 2 * DAY, first=70)
    advance(customer_id=subscribed.pk, at=START + 2 * DAY)

    edges = [START + n * DAY for n in range(4)]
    rows = queries.spend_series(subscribed, edges=edges, unit="USD")
    grouped = queries.spend_series(subscribed, edges=edges, unit="USD", group_by=["price"])

    assert [row.amount for row in rows] == [0, 0, Decimal("0.40")]
    assert [(row.group, row.amount) for row in grouped if row.amount] == [
        ({"price": "overage:credits"}, Decimal("0.40"))
    ]


def test_what_is_left_of_a_period_expires_when_the_next_begins(subscribed):
    april = START + 31 * DAY
    use(30, START + DAY)
    advance(customer_id=subscribed.pk, at=START + DAY)

    assert balance(subscribed, april).available == 0  # true before any tick has posted it
    advance(customer_id=subscribed.pk, at=april)

    found = balance(subscribed, april)
    assert found.available == 100
    assert [(item.used, item.expired, item.remaining) for item in found.grants] == [(0, 0, 100), (30, 70, 0)]


def test_usage_that_comes_after_the_expiry_but_was_before_it_still_draws(subscribed):
    april = START + 31 * DAY
    advance(customer_id=subscribed.pk, at=april)

    use(30, april - timedelta(hours=1), now=april + timedelta(hours=1))
    advance(customer_id=subscribed.pk, at=april + timedelta(hours=1))

    ended = balance(subscribed, april).grants[-1]
    assert (ended.used, ended.expired, ended.remaining) == (30, 70, 0)


def test_usage_of_a_closed_period_is_settled_in_it(subscribed):
    april = START + 31 * DAY
    advance(customer_id=subscribed.pk, at=april)
    advance(customer_id=subscribed.pk, at=april + 2 * DAY)
    assert BillingPeriod.objects.get(starts_at=START).status == "closed"

    use(30, april - timedelta(hours=1), now=april + 2 * DAY)
    advance(customer_id=subscribed.pk, at=april + 2 * DAY)

    assert balance(subscribed, april + 2 * DAY).grants[-1].used == 30


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_any_order_and_batching_of_the_same_events_ends_in_the_same_cells(subscribed, order):
    services.grant(
        customer=subscribed,
        unit="credits",
        amount=Decimal(40),
        kind=GrantKind.PAID,
        effective_at=START + 5 * DAY,
        expires_at=START + 15 * DAY,
        priority=1,
        at=START,
    )
    batches = [(60, START + DAY, 0), (50, START + 8 * DAY, 100), (70, START + 20 * DAY, 200)]
    now = START + 21 * DAY
    for index in order:
        count, at, first = batches[index]
        use(count, at, first=first, now=now)
        advance(customer_id=subscribed.pk, at=now)

    cells = AllocationCell.objects.filter(posted__gt=0).order_by("segment_starts_at", "grant__priority")
    assert [(cell.segment_starts_at, cell.grant and cell.grant.kind, cell.posted) for cell in cells] == [
        (START, "plan", 60),
        (START + 5 * DAY, "paid", 40),
        (START + 5 * DAY, "plan", 10),
        (START + 15 * DAY, "plan", 30),
        (START + 15 * DAY, None, 40),
    ]


def test_voiding_settles_first_and_forfeits_the_rest(subscribed):
    advance(customer_id=subscribed.pk, at=START)
    paid = services.grant(
        customer=subscribed, unit="credits", amount=Decimal(50), kind=GrantKind.PAID, priority=1, at=START
    )
    use(10, START + DAY)

    services.void(grant=paid, at=START + DAY)

    assert queries.grant_balance(paid.__class__.objects.get(pk=paid.pk), START + DAY).voided == 40
    use(10, START + 2 * DAY, first=50)
    advance(customer_id=subscribed.pk, at=START + 2 * DAY)
    assert queries.grant_balance(paid.__class__.objects.get(pk=paid.pk), START + 2 * DAY).used == 10


def test_prepaid_money_pays_usage_in_its_currency(subscribed):
    services.grant(customer=subscribed, unit="USD", amount=Decimal(10), kind=GrantKind.PAID, at=START)
    ingest(event("t1", "globex", timestamp=(START + DAY).isoformat(), tokens=30, model="m"), at=START + DAY)

    advance(customer_id=subscribed.pk, at=START + DAY)

    [money] = [found for found in queries.balances(subscribed, START + DAY) if found.unit == "USD"]
    assert (money.available, money.overage) == (0, 5)


def test_the_books_as_they_stood_earlier(subscribed):
    use(30, START + DAY)
    advance(customer_id=subscribed.pk, at=START + DAY)
    use(30, START + 2 * DAY, first=50)
    advance(customer_id=subscribed.pk, at=START + 2 * DAY)

    [then] = queries.balances(subscribed, START + DAY, recorded_by=START + DAY)

    assert then.balance == 70


def test_every_transaction_says_why(subscribed):
    use(130, START + DAY)
    advance(customer_id=subscribed.pk, at=START + DAY)
    advance(customer_id=subscribed.pk, at=START + 31 * DAY)

    assert list(LedgerTransaction.objects.order_by("id").values_list("code", flat=True)) == ["grant", "usage", "grant"]
    assert {entry.account.kind for entry in queries.ledger(subscribed, code="usage").get().entries.all()} == {
        "grant",
        "overage",
        "consumed",
    }


def test_a_budget_counts_overage_as_the_page_does(subscribed):
    make_budget(subscribed, START, amount=Decimal(1))
    use(180, START + DAY)

    advance(customer_id=subscribed.pk, at=START + DAY)

    [status] = budget_queries.status(subscribed, START + DAY)
    assert status.value == Decimal("0.80")
    assert [alert.value for alert in budget_queries.alerts(subscribed)] == [Decimal("0.80")] * 2
