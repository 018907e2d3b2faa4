"""While a period runs, minimums are projected twice: if nothing more is used, and if usage goes on as forecast."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.budgets.forecast import Forecast
from billing.credits.models import GrantKind
from billing.credits.services import grant
from billing.credits.statements import period_statement
from billing.cycle.projection import projected, projection
from billing.cycle.services import advance
from billing.pricing.agreements import create_coupon
from billing.pricing.spec import PriceSpec
from billing.subscriptions.coupons import redeem
from tests.factories import bearer, event, ingest, make_api_key, make_meter, make_plan, make_subscription, make_version

D = Decimal
START = datetime(2026, 11, 1, tzinfo=UTC)
AT = START + timedelta(days=3)


def subscribe(customer, starts_at=START, **terms):
    make_meter("tokens")
    prices = (PriceSpec("tokens", "tokens", "USD", D(1), minimum_amount=terms.pop("least", None)),)
    return make_subscription(customer, make_version(make_plan(), prices=prices, base_fee=D(10), **terms), starts_at)


def use(customer, tokens, at=AT):
    ingest(event(f"{at}", customer.key, tokens=tokens, timestamp=at.isoformat()), at=at)
    advance(customer_id=customer.pk, at=at)


def forecast(spent, expected):
    low = max(D(expected) - 10, D(spent))
    return Forecast(D(spent), AT, D(expected), low, D(expected) + 10, "As ever.")


def ahead(subscription, expected, spent=20, prepaid=0):
    found = period_statement(subscription.periods.get(), at=AT)
    return found, projected(found, forecast(spent, expected), D(prepaid))


@pytest.mark.parametrize(
    ("expected", "true_up", "due"),
    [(20, 70, 100), (60, 30, 100), (90, 0, 100), (150, 0, 160)],
)
def test_what_is_missing_of_a_minimum_spend_shrinks_as_usage_goes_on(globex, expected, true_up, due):
    subscription = subscribe(globex, minimum_spend=D(100))
    use(globex, 20)

    found, then = ahead(subscription, expected)

    assert (found.main.true_ups, found.main.amount_due) == (70, 100)
    [row] = found.main.true_up_rows
    assert (then.true_up(row), then.expected.amount_due) == (true_up, due)
    assert then.low.amount_due <= then.expected.amount_due <= then.high.amount_due


def test_the_minimum_of_a_row_counts_its_own_usage(globex):
    subscription = subscribe(globex, least=D(50))
    use(globex, 20)

    found, then = ahead(subscription, 45)

    assert [row.amount for row in found.main.true_up_rows] == [30]
    assert (then.true_up(found.main.true_up_rows[0]), then.expected.amount_due) == (5, 10 + 50)


def test_coupons_and_prepaid_money_take_off_what_is_to_come(globex):
    subscription = subscribe(globex, minimum_spend=D(100))
    redeem(subscription=subscription, coupon=create_coupon(key="half", name="Half", percent=D(50), at=AT), at=AT)
    use(globex, 20)

    _, then = ahead(subscription, 150, prepaid=30)

    assert then.expected.amount_due == (10 + 150 - 30) / D(2)


def test_only_the_subscriptions_own_part_of_the_customers_spend_is_added(globex):
    subscription = subscribe(globex, minimum_spend=D(100))
    use(globex, 20)

    _, then = ahead(subscription, 80, spent=40)

    assert then.expected.usage == 20 + 40 / 2


def test_nothing_is_projected_without_an_open_minimum_or_a_forecast(globex):
    subscription = subscribe(globex, minimum_spend=D(15))
    found = period_statement(subscription.periods.get(), at=AT)
    assert projected(found, Forecast(D(0), AT, None, None, None, "Not enough data yet."), D(0)) is None

    use(globex, 20)
    assert projection(period_statement(subscription.periods.get(), at=AT)) is None


def test_the_upcoming_invoice_says_both(client, globex):
    """Ten USD an hour for five days, in the present billing period."""
    now = datetime.now(UTC)
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=5)
    subscribe(globex, start, minimum_spend=D(1_000_000))
    grant(customer=globex, unit="USD", amount=D(1), kind=GrantKind.PAID, at=start)
    hours = [start + timedelta(hours=hour) for hour in range(120)]
    ingest(*[event(f"{at}", "globex", tokens=10, timestamp=at.isoformat()) for at in hours], at=now)
    advance(customer_id=globex.pk, at=now)

    answer = client.get("/api/v1/customers/globex/upcoming-invoice", **bearer(make_api_key()[1])).json()

    [row] = answer["true_ups"]
    assert (row["amount"], row["projected"]) == (str(1_000_000 - 10 - 1200), True)
    assert D(row["expected"]) < D(row["amount"]) - 2000
    assert round(D(answer["expected"]["usage"]), 2) + D(row["expected"]) + 10 == 1_000_000
    assert answer["expected"]["amount_due"] == answer["amount_due"] == "999999"
