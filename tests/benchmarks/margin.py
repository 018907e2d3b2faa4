"""What the report of margin costs with many customers. Counters are made by SQL, as the fold would leave them."""

import os
import resource
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from django.db import connections

from accounts.models import Customer
from billing.metering.models import Meter
from billing.periods import Interval
from billing.pricing.costs import record_cost
from billing.pricing.spec import PriceSpec
from billing.revenue.queries import CUSTOMER, DIMENSION, margin_report
from tests.benchmarks import stage
from tests.factories import make_meter, make_plan, make_subscription, make_version

MANY: Final = int(os.environ.get("CUSTOMERS", "1000"))
MONTH: Final = Interval(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 31, tzinfo=UTC))
MODELS: Final = 5


def run() -> None:
    """seconds of the margin of 30 days, by customer and by model, of a tenth of the customers and of all
    (CUSTOMERS=5000: more). Each has two meters of five models, used each day, at costs that change once."""
    meters = [make_meter(key, dimensions=["model"]) for key in ("input_tokens", "output_tokens")]
    prices = tuple(PriceSpec(one.key, meter=one.key, unit="USD", unit_amount=Decimal(2)) for one in meters)
    version = make_version(make_plan(), prices=prices, base_fee=Decimal(20))
    for meter in meters:
        _costs(meter)
    print(f"{'customers':>10} {'by':<10} {'seconds':>8} {'of processor':>13} {'peak MB':>8}")
    for number in (MANY // 10, MANY):
        for place in range(Customer.objects.count(), number):
            make_subscription(Customer.objects.create(key=f"c{place}", name=f"C {place}"), version, MONTH.start)
        with connections["owner"].cursor() as cursor:
            for statement in _FILL:
                cursor.execute(statement, {"models": MODELS, "start": MONTH.start, "end": MONTH.end})
        connections["owner"].close()
        for group_by in (CUSTOMER, DIMENSION + "model"):
            _line(number, group_by)
    connections.close_all()


def _costs(meter: Meter) -> None:
    for changed in (0, 10):
        for model in range(MODELS):
            record_cost(
                meter=meter,
                where={"model": f"model-{model}"},
                unit_amount=Decimal(model + 1 + changed) / 10,
                effective_at=MONTH.start + timedelta(days=changed),
                at=MONTH.start,
            )


def _line(number: int, group_by: str) -> None:
    ask = partial(margin_report, MONTH, group_by=group_by)
    ask()  # warm
    begun, spent = time.perf_counter(), stage.spent()
    report = ask()
    took = time.perf_counter() - begun
    assert not report.missing
    assert report.totals[0].sums.cost > 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    name = group_by.removeprefix(DIMENSION)
    print(f"{number:>10,} {name:<10} {took:>8.2f} {stage.spent() - spent:>13.2f} {peak:>8,}", flush=True)


_FILL: Final = (
    """
    INSERT INTO billing_dimensionset (customer_id, digest, "values")
    SELECT id, md5(concat_ws('/', id, n))::uuid, jsonb_build_object('model', 'model-' || n)
    FROM accounts_customer, generate_series(0, %(models)s - 1) AS n ON CONFLICT DO NOTHING""",
    """
    INSERT INTO billing_usageday (customer_id, meter_id, day, dimension_set_id, quantity, events)
    SELECT one.customer_id, meter.id, day::date, one.id, 1000, 10
    FROM billing_dimensionset AS one, billing_meter AS meter,
         generate_series(%(start)s::timestamptz, %(end)s::timestamptz - interval '1 minute', interval '1 day') AS day
    ON CONFLICT DO NOTHING""",
    "UPDATE billing_watermark SET summed_before = %(end)s",
    "ANALYZE billing_usageday, billing_dimensionset",
)
