"""One of everything that an address of the matrix names, all of it Acme's."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from accounts import invitation_links, services
from accounts.models import Customer, Role
from billing.authorizations.models import Authorization
from billing.budgets import services as budgets
from billing.credits import services as credits
from billing.credits.models import GrantKind
from billing.pricing.spec import PriceSpec
from billing.topups import services as topups
from tests.conftest import member
from tests.factories import (
    LONG_AGO,
    event,
    fold,
    ingest,
    make_api_key,
    make_meter,
    make_plan,
    make_subscription,
    make_version,
)

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


def build(acme: Customer) -> dict[str, str]:
    """What `{name}` in the matrix stands for."""
    later = datetime.now(UTC)
    invitation = services.invite(customer=acme, email="dora@acme.test", role=Role.VIEWER, invited_by=None, at=later)
    budget = budgets.create_budget(
        customer=acme, name="Monthly", unit="USD", amount=Decimal(100), thresholds=[], recipients=["owners"], at=NOW
    )
    price = PriceSpec("tokens", make_meter().key, "USD", Decimal("0.01"))
    version = make_version(make_plan(), prices=(price,))
    subscription = make_subscription(acme, version, LONG_AGO)
    ingest(event("seen", tokens=3, timestamp=LONG_AGO), at=LONG_AGO)
    fold(acme, at=LONG_AGO)
    grant = credits.grant(customer=acme, unit="credits", amount=Decimal(10), kind=GrantKind.PAID, at=NOW)
    held = Authorization.objects.create(customer=acme, expires_at=later + timedelta(hours=1))
    return {
        "hold": held.public_id,
        "budget": budget.public_id,
        "invited": invitation.public_id,
        "key": make_api_key(customer=acme)[0].public_id,
        "member": str(member(acme, "erin", Role.BILLING).memberships.get().pk),
        "grant": grant.public_id,
        "transaction": grant.account.entries.get().transaction.public_id,
        "invitation": invitation_links.link(invitation.public_id).rpartition("/")[2],
        "meter": price.meter,
        "plan": version.plan.key,
        "clock": services.create_test_clock(now=NOW, at=NOW).public_id,
        "subscription": subscription.public_id,
        "line": "pro/1/tokens/0/2020-01-01T00:00Z",
        "event": "seen",
        "top_up": topups.order(customer=acme, unit="USD", amount=Decimal(5), at=NOW).public_id,
    }
