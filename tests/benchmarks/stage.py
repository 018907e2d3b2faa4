"""Where measurements take place: servers, a fresh database, customers with a plan, and what processes cost."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import quantiles

from django.conf import settings
from django.db import connection, connections

from accounts.models import Customer, Scope
from billing.budgets.services import create_budget
from billing.budgets.validation import ThresholdSpec
from billing.pricing.models import PlanVersion
from billing.pricing.queries import forget_published
from billing.pricing.spec import PriceSpec
from config import embedded
from tests.benchmarks.load import CUSTOMERS, DIMENSIONS
from tests.factories import make_api_key, make_meter, make_plan, make_subscription, make_version
from tests.processes import Child

TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def servers() -> Iterator[None]:
    with embedded.running(settings.VAR, embedded.wanted(os.environ)):
        yield


@contextmanager
def database() -> Iterator[None]:
    """A migrated, empty database with the rights of production, dropped afterwards."""
    original = settings.DATABASES["default"]["NAME"]
    name = connections["owner"].creation.create_test_db(verbosity=0, autoclobber=True)
    forget_published()
    _use(name)
    try:
        yield
    finally:
        connections.close_all()
        connections["owner"].creation.destroy_test_db(original, verbosity=0)
        _use(original)


def _use(name: str) -> None:
    connections["default"].settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = name


def fill(customers: int = CUSTOMERS, *, subscribed: bool = False) -> str:
    """Four meters and customers, who if subscribed pay for three of them and have a budget; the secret of a key that
    may send."""
    for key in ("input_tokens", "output_tokens", "cached_tokens"):
        make_meter(key, dimensions=DIMENSIONS)
    make_meter("calls", aggregation="count", unit="call", dimensions=DIMENSIONS)
    Customer.objects.bulk_create(Customer(key=f"c{n}", name=f"Customer {n}") for n in range(customers))
    if subscribed:
        version, since = _offer(), datetime.now(UTC) - timedelta(days=1)
        for customer in Customer.objects.all():
            make_subscription(customer, version, since)
            create_budget(
                customer=customer,
                name="All",
                unit="USD",
                amount=Decimal(1_000),
                thresholds=[ThresholdSpec(Decimal(80))],
                recipients=["owner@bench.test"],
                at=since,
                trusted=True,
            )
    return make_api_key(Scope.EVENTS_WRITE)[1]


def _offer() -> PlanVersion:
    keys = ("input_tokens", "output_tokens", "cached_tokens")
    prices = [PriceSpec(key=key, meter=key, unit="USD", per=Decimal(1_000_000), unit_amount=Decimal(2)) for key in keys]
    return make_version(make_plan(), prices=tuple(prices))


# --- what it costs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processor time so far, of these processes and of the database."""

    ours: float
    web: float
    database: float

    def __sub__(self, other: "Used") -> "Used":
        return Used(self.ours - other.ours, self.web - other.web, self.database - other.database)


def spent() -> float:
    """Seconds of processor time so far, of this process and the database."""
    return time.process_time() + _spent_by_database()


def used(web: Child) -> Used:
    assert web.process is not None
    return Used(time.process_time(), _spent(2, web.process.pid), _spent_by_database())


def _spent_by_database() -> float:
    postmaster = int((settings.VAR / "postgres" / "postmaster.pid").read_text().split()[0])
    return _spent(1, postmaster)


def _spent(relation: int, pid: int) -> float:
    """Of a process and those that name it as their parent (1) or their group (2); ended children included."""
    spent = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if stat.parent.name == str(pid):
            spent += sum(map(int, fields[11:15]))
        elif fields[relation] == str(pid):
            spent += sum(map(int, fields[11:13]))
    return spent / TICKS


def surroundings() -> str:
    """What else may have moved the numbers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT version(), current_setting('fsync'), current_setting('synchronous_commit')")
        version, fsync, commit = cursor.fetchone()
    connection.close()
    postgres = " ".join(version.split()[:2])
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, load average {load:.1f}, {postgres}, fsync {fsync}, synchronous_commit {commit}, "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )


def centiles(values: list[float]) -> dict[int, float]:
    """By percent: 1 to 99."""
    return dict(enumerate(quantiles(values, n=100, method="inclusive"), 1))
