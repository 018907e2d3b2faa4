"""What was agreed does not change, whoever tries: the ORM or SQL, both as the application's role."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction

from billing.pricing import services
from billing.pricing.models import Coupon, PlanVersion, PriceOverride, UnitCost
from billing.pricing.spec import PriceSpec
from billing.subscriptions.models import CouponRedemption
from tests.factories import make_meter, make_plan, make_subscription, make_version

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.fixture
def version(db):
    make_meter()
    return make_version(make_plan(), prices=(PriceSpec("tokens", "tokens", "USD", Decimal(1)),))


@pytest.fixture
def agreed(acme, version):
    """One row of everything that is agreed outside a version."""
    price = version.prices.get()
    coupon = Coupon.objects.create(key="spring", name="Spring", percent=20)
    subscription = make_subscription(acme, version, AT)
    return [
        coupon,
        CouponRedemption.objects.create(subscription=subscription, coupon=coupon, starts_at=AT),
        PriceOverride.objects.create(customer=acme, price=price, unit_amount=2, starts_at=AT),
        UnitCost.objects.create(meter=price.meter, unit_amount=1, effective_at=AT),
    ]


CHANGES = {
    "Coupon": "percent",
    "CouponRedemption": "starts_at",
    "PriceOverride": "unit_amount",
    "UnitCost": "unit_amount",
}


@pytest.mark.parametrize("which", range(4))
def test_what_was_agreed_is_neither_rewritten_nor_deleted(agreed, which):
    row = agreed[which]
    field = CHANGES[type(row).__name__]
    value = datetime(2020, 1, 1, tzinfo=UTC) if field == "starts_at" else 7
    same = type(row)._default_manager.filter(pk=row.pk)
    table = row._meta.db_table
    for change in (
        lambda: same.update(**{field: value}),
        same.delete,
        lambda: _sql(f"UPDATE {table} SET id = id + 1000 WHERE id = {row.pk}"),
        lambda: _sql(f"DELETE FROM {table} WHERE id = {row.pk}"),
    ):
        refused = r"does not change|append-only|permission denied|protected"
        with pytest.raises(Exception, match=refused), transaction.atomic():
            change()


def test_an_override_and_a_redemption_may_end(agreed):
    for row in agreed[1:3]:
        row.ends_at = AT
        row.save()


def test_a_published_version_only_ever_retires(version):
    services.retire(version=version, at=AT)

    same = PlanVersion.objects.filter(pk=version.pk)
    for change in (
        {"status": "published", "retired_at": None},
        {"retired_at": datetime(2027, 1, 1, tzinfo=UTC)},
        {"trial_days": 5},
    ):
        with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
            same.update(**change)
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        version.prices.all().update(minimum_amount=3)


def test_what_a_published_version_says_cannot_change_while_it_retires(version):
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        PlanVersion.objects.filter(pk=version.pk).update(status="retired", retired_at=AT, base_fee=1)


def _sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
