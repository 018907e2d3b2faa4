"""One hour of real requests to two models, as Azure published them (CC-BY, see the README of the data)."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import call_command

from billing.metering import queries
from tests.factories import fold, make_meter

pytestmark = pytest.mark.django_db

TOTALS = {"code": (18_059_974, 245_896, 8_819), "conv": (22_361_870, 4_088_665, 19_366)}
NOVEMBER = datetime(2023, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the files: REAL_DATA, or shared/data beside one of the folders above this file."""
    places = [Path(folder) / "shared" / "data" for folder in Path(__file__).resolve().parents]
    if named := os.environ.get("REAL_DATA"):
        places = [Path(named)]
    for place in places:
        if (place / "azure_llm_trace_code.csv").is_file():
            return place
    pytest.skip("The real usage files are not here: set REAL_DATA to their folder.")


@pytest.fixture
def meters():
    return [
        make_meter("input_tokens", dimensions=["model"]),
        make_meter("output_tokens", dimensions=["model"]),
        make_meter("calls", aggregation="count", unit="call"),
    ]


def load(path: Path, customer: str) -> None:
    call_command(
        "import_usage",
        str(path),
        customer=customer,
        type="llm.completion",
        map=["timestamp=TIMESTAMP", "input_tokens=ContextTokens", "output_tokens=GeneratedTokens"],
        set=[f"model={path.stem.rpartition('_')[2]}"],
        timezone="UTC",
    )


def test_every_token_is_counted_once(data, acme, globex, meters):
    for customer, name in ((acme, "code"), (globex, "conv")):
        for _ in range(2):
            load(data / f"azure_llm_trace_{name}.csv", customer.key)
            fold(customer, at=NOVEMBER)

        found = queries.totals(
            customer,
            starts_at=NOVEMBER,
            ends_at=NOVEMBER + timedelta(days=30),
            meter_ids=[meter.pk for meter in meters],
        )
        assert [total.quantity for total in found] == list(TOTALS[name])
        assert [dict(total.dimensions) for total in found] == [{"model": name}, {"model": name}, {}]
