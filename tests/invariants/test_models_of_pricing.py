"""Five models of pricing, charged by Headroom, and a second time from raw events: the same to the last place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from random import Random

import pytest

from billing.credits.models import GrantKind
from billing.credits.services import grant
from billing.credits.statements import Overage, period_statement
from billing.cycle.bridge import bridges
from billing.cycle.services import advance
from billing.management.commands.seed_demo import PRO
from billing.management.showcase import CAPPED, CREDITS, OUTCOMES, REASON, SHOWCASES, TOKENS, Showcase, is_reopened
from billing.management.traffic import PROFILES, events
from billing.metering.correcting import void_event
from billing.metering.services import create_meter
from billing.pricing.agreements import create_coupon
from billing.pricing.models import CouponDuration
from billing.pricing.services import create_plan, create_version, publish
from billing.pricing.shapes import shown_terms
from billing.pricing.spec import CreditSpec
from billing.rating.queries import Line
from billing.subscriptions.coupons import redeem
from tests.factories import LONG_AGO, ingest, make_subscription
from tests.oracle import statement as oracle

pytestmark = pytest.mark.django_db
START = datetime(2026, 11, 1, tzinfo=UTC)
AT = START + timedelta(days=20)

_TOKENS = [
    {
        "key": key,
        "name": key,
        "unit": "token",
        "event_type": "llm.completion",
        "aggregation": "sum",
        "value": key,
        "dimensions": ["model", "api_key"],
    }
    for key in ("input_tokens", "output_tokens")
]
_SEARCHES = {
    "key": "searches",
    "name": "Searches",
    "unit": "search",
    "event_type": "search.query",
    "aggregation": "count",
    "dimensions": ["api_key"],
}
# Acme's own plan as a sixth, with few credits: tokens in money beside searches in credits, with overage.
MIXED = Showcase(
    model="mixed",
    customer={"key": "acme"},
    owner=("", ""),
    meters=(*_TOKENS, _SEARCHES),
    plan=("pro", "Pro"),
    spec=replace(PRO, credits=(CreditSpec("credits", Decimal(30)),)),
    call=partial(events, PROFILES[0]),
    calls_a_day=0,
    calls_per_minute=0,
)


@pytest.mark.parametrize("calls", [0, 7, 800])
@pytest.mark.parametrize("model", [*SHOWCASES, MIXED], ids=lambda model: model.model)
def test_the_statement_is_what_the_events_come_to(globex, model, calls):
    random = Random(f"{model.model} {calls}")
    meters = list(model.meters) or _TOKENS
    for meter in meters:
        create_meter(**meter, at=START)
    plan = create_plan(key=model.plan[0], name=model.plan[1], currency="USD", at=LONG_AGO)
    version = publish(version=create_version(plan=plan, spec=model.spec, at=LONG_AGO), at=LONG_AGO)
    subscription = make_subscription(globex, version, START)
    used = [
        {**event, "customer": globex.key}
        for _ in range(calls)
        for event in model.call(START + timedelta(seconds=random.randrange(20 * 86_400)), random)
    ]
    random.shuffle(used)
    ingest(*used, at=AT)
    expected = {"grants": {}, "percent_off": "0", "void": []}
    if model is CREDITS:
        grant(customer=globex, unit="credits", amount=Decimal(700), kind=GrantKind.PAID, effective_at=START, at=AT)
        expected["grants"] = {"credits": "700"}
    if model is CAPPED:
        coupon = create_coupon(key="off", name="Off", percent=Decimal(20), duration=CouponDuration.FOREVER, at=START)
        redeem(subscription=subscription, coupon=coupon, at=START)
        expected["percent_off"] = "20"
    if model is OUTCOMES:
        expected["void"] = [event["id"] for event in used if is_reopened(event, random)]
        for event_id in expected["void"]:
            void_event(source="gateway-1", event_id=event_id, reason=REASON, at=AT)
    advance(customer_id=globex.pk, at=AT)

    found = period_statement(subscription.periods.get(), at=AT)
    wanted = oracle.statement(currency="USD", meters=meters, version=shown_terms(version), events=used, **expected)

    rows = [row for one in found.units for row in one.usage_rows]
    assert {
        (row.source.price.key, row.source.row): (row.source.unit, row.source.quantity, row.amount)
        for row in rows
        if isinstance(row.source, Line)
    } == {
        (line.price, line.row): (line.unit, oracle.plain(line.quantity), oracle.plain(line.amount))
        for line in wanted.lines
    }
    assert {
        (row.source.line.price.key, row.source.line.row): row.amount for row in rows if isinstance(row.source, Overage)
    } == {place: oracle.plain(amount) for place, amount in wanted.overage.items()}
    assert found.main.true_ups == oracle.plain(wanted.true_ups)
    assert found.main.discounts == oracle.plain(wanted.discounts)
    assert found.main.amount_due == oracle.plain(wanted.amount_due)
    assert {one.unexplained for one in bridges(found)} == {0}


def test_every_model_of_the_demo_is_here():
    assert [one.model for one in SHOWCASES] == ["tokens", "calls", "credits", "subscription", "outcomes"]
    assert TOKENS.meters == ()  # counts as Acme does
