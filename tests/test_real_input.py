"""One hour of real requests to two models, as Azure published them (CC-BY, see the README of the data)."""

import csv
import os
import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from billing import clock
from billing.cycle.services import advance
from billing.cycle.verify import differences
from billing.pricing.schemes import Tier
from billing.pricing.spec import MatchSpec, PriceSpec
from tests.factories import bearer, make_api_key, make_meter, make_plan, make_subscription, make_version

pytestmark = pytest.mark.django_db
D = Decimal

TOTALS = {"code": (18_059_974, 245_896, 8_819), "conv": (22_361_870, 4_088_665, 19_366)}
METERS = ("input_tokens", "output_tokens", "calls")
STARTS = datetime(2023, 11, 10, tzinfo=UTC)
NOVEMBER = {"from": "2023-11-01T00:00:00Z", "to": "2023-12-01T00:00:00Z"}
PRICES = (
    PriceSpec(
        key="input",
        meter="input_tokens",
        unit="USD",
        scheme="graduated",
        per=D(1000),
        included=D(1_000_000),
        tiers=(Tier(D(10_000_000), D("0.003"), flat_amount=D(1)), Tier(None, D("0.0017"))),
    ),
    PriceSpec(
        key="output",
        meter="output_tokens",
        unit="USD",
        per=D(1_000_000),
        unit_amount=D("0.60"),
        included=D(88_665),
        match=(MatchSpec({"model": "code"}, D("2.47"), included=D(45_891)),),
    ),
    PriceSpec(key="calls", meter="calls", unit="USD", per=D(7), unit_amount=D("0.01")),
)


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


class Told:
    """What is said of a customer."""

    def __init__(self, client: Any, key: str, path: Path) -> None:
        self.client, self.key, self.path = client, key, path
        self.model = path.stem.rpartition("_")[2]
        self.operator = bearer(make_api_key()[1])

    def api(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"/api/v1/customers/{self.key}/{what}"
        response = self.client.get(url, parameters | NOVEMBER, **self.operator)
        assert response.status_code == 200, response.content
        return response.json()

    def page(self) -> str:
        response = self.client.get(f"/c/{self.key}/", {"period": "2023-11-10"})
        assert response.status_code == 200
        return response.content.decode()

    def csv(self) -> list[dict[str, str]]:
        response = self.client.get(f"/c/{self.key}/spend.csv", {"period": "2023-11-10"})
        return list(csv.DictReader(StringIO(b"".join(response).decode())))


@pytest.fixture(params=[("acme", "alice", "code"), ("globex", "charlie", "conv")], ids=["code", "conv"])
def told(request, data, client) -> Told:
    """A customer since November 2023 whose file was imported twice, as its member and the vendor see it."""
    key, member, name = request.param
    customer = request.getfixturevalue(key)
    client.force_login(request.getfixturevalue(member))
    make_meter("input_tokens", dimensions=["model"])
    make_meter("output_tokens", dimensions=["model"])
    make_meter("calls", aggregation="count", unit="call")
    make_subscription(customer, make_version(make_plan(), prices=PRICES), STARTS)
    path = data / f"azure_llm_trace_{name}.csv"
    for _ in range(2):
        load(path, key)
        advance(customer_id=customer.pk, at=clock.now())
    return Told(client, key, path)


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


def expected(path: Path) -> tuple[tuple[Decimal, Decimal, Decimal], Decimal]:
    """Tokens, calls and spend, from the file itself and the plan as one would read it out."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    context = sum((D(row["ContextTokens"]) for row in rows), D(0))
    generated = sum((D(row["GeneratedTokens"]) for row in rows), D(0))
    calls = D(len(rows))

    def twelve(amount: Decimal) -> Decimal:
        return amount.quantize(D(1).scaleb(-12), ROUND_HALF_UP)

    billable = context - 1_000_000
    amounts = [
        D(1) + 10_000_000 * D("0.003") / 1000,
        (billable - 10_000_000) * D("0.0017") / 1000,
        calls * D("0.01") / 7,
    ]
    if path.stem.endswith("code"):
        amounts.append((generated - 45_891) * D("2.47") / 1_000_000)
    else:
        amounts.append((generated - 88_665) * D("0.60") / 1_000_000)
    return (context, generated, calls), sum(map(twelve, amounts), D(0))


def test_every_token_is_counted_once(told):
    found = {meter: told.api("usage", meter=meter)["total"] for meter in METERS}
    assert tuple(found.values()) == tuple(map(str, TOTALS[told.model]))
    assert expected(told.path)[0] == TOTALS[told.model]
    by_model = told.api("usage", meter="input_tokens", granularity="total", group_by="model")["series"]
    assert [row["group"] for row in by_model] == [{"model": told.model}]
    assert list(differences()) == []


def test_the_spend_is_the_same_to_the_last_decimal_in_api_page_and_csv(told):
    _, spend = expected(told.path)
    answers = [told.api("spend", unit="USD", granularity=step) for step in ("total", "day", "hour")]
    page, lines = told.page(), told.csv()

    assert spend != round(spend, 11), "the last decimal says something"
    assert [D(answer["total"]) for answer in answers] == [spend] * 3
    assert [sum(D(row["amount"]) for row in answer["series"]) for answer in answers] == [spend] * 3
    assert D(re.search(r'id="used"><data class="num" value="([^"]+)"', page)[1]) == spend
    assert sum(D(line["amount"]) for line in lines) == spend
    for meter, total in zip(METERS, TOTALS[told.model], strict=True):
        assert sum(D(line["quantity"]) for line in lines if line["meter"] == meter) == total
