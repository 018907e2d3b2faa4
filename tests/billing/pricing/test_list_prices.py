"""List prices of the real package become unit costs, once."""

import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from billing.clock import now
from billing.pricing.costs import record_cost
from billing.pricing.list_prices import PriceList
from billing.pricing.models import UnitCost
from tests.factories import event, fold, ingest, make_meter

D = Decimal
AT = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def meters(db, acme):
    """Three models were used: two of OpenAI, and one that the vendor has a name of its own for."""
    found = [make_meter(key, dimensions=["model"]) for key in ("input_tokens", "output_tokens")]
    used = ("gpt-4o-2024-11-20", "gpt-4o-mini", "large-2")
    ingest(*(event(name, input_tokens=1, output_tokens=1, model=name) for name in used), at=now())
    fold(acme, at=now())
    return found


def run(*words, provider="openai", meter=("input_tokens", "output_tokens")):
    out = StringIO()
    call_command("import_unit_costs", "--provider", provider, "--meter", *meter, *words, stdout=out)
    return out.getvalue()


def recorded():
    return {
        (one.meter.key, one.where["model"]): (one.unit_amount, one.per, one.currency) for one in UnitCost.objects.all()
    }


def test_it_shows_what_it_would_record_and_records_nothing(meters):
    said = run()

    assert "new      input_tokens, model = gpt-4o-2024-11-20: 2.5 USD per 1,000,000 (gpt-4o)" in said
    assert "unknown  input_tokens, model = large-2: the list has no price" in said
    assert "4 new, 0 changed, 0 same, 2 unknown." in said
    assert "say --apply" in said
    assert not UnitCost.objects.exists()


def test_it_records_once_however_often_it_runs(meters):
    assert "4 recorded." in run("--apply", "--from", "2026-11-01")
    assert "0 recorded." in run("--apply", "--from", "2026-11-01")
    assert "0 recorded." in run("--apply")

    million = D(1_000_000)
    assert recorded() == {
        ("input_tokens", "gpt-4o-2024-11-20"): (D("2.5"), million, "USD"),
        ("input_tokens", "gpt-4o-mini"): (D("0.15"), million, "USD"),
        ("output_tokens", "gpt-4o-2024-11-20"): (D("10"), million, "USD"),
        ("output_tokens", "gpt-4o-mini"): (D("0.6"), million, "USD"),
    }
    first = UnitCost.objects.order_by("pk")[0]
    assert first.effective_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert first.source.startswith("genai-prices ")
    assert first.source.endswith("openai: gpt-4o")


def test_what_differs_from_what_is_recorded_is_told_as_a_change(meters):
    record_cost(
        meter=meters[0],
        where={"model": "gpt-4o-mini"},
        unit_amount=D(3),
        per=D(1000),
        effective_at=AT - timedelta(days=9),
        at=AT,
    )

    said = run("--apply")

    assert (
        "changed  input_tokens, model = gpt-4o-mini: 0.15 USD per 1,000,000 (gpt-4o-mini), was 3 USD per 1,000" in said
    )
    assert "4 recorded." in said


def test_own_names_stand_for_models_and_meters_for_units(meters):
    make_meter("cached", dimensions=["model"])
    said = run("--map", "large-2=gpt-4o", meter=("cached=cache_read_tokens",))

    assert "new      cached, model = large-2: 1.25 USD per 1,000,000 (gpt-4o)" in said


def test_a_price_that_depends_on_the_request_says_so():
    price = PriceList("google", AT).price("gemini-2.5-pro", "input_tokens")

    assert (price.amount, price.per) == (D("1.25"), 1_000_000)
    assert price.note == "2.5 in requests beyond 200,000 tokens"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"provider": "nobody"}, "There is no provider nobody. Known are: anthropic, "),
        ({"meter": ("input_tokens=bananas",)}, "There is no unit bananas. Known are: input_tokens, "),
        ({"meter": ("nothing",)}, "There is no meter nothing."),
        ({"meter": ("plain",)}, "It has no dimension model"),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(meters, words, sentence):
    make_meter("plain")
    with pytest.raises(CommandError) as refused:
        run(**words)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("--from", "soon"), "Write a day or an instant"), (("--map", "large"), "Write NAME=VALUE.")],
)
def test_words_that_cannot_be_read_are_told(meters, words, sentence):
    with pytest.raises(CommandError) as refused:
        run(*words)
    assert sentence in str(refused.value)


def test_without_the_package_it_says_how_to_install_it(meters, monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(CommandError) as refused:
        run()
    assert "pip install genai-prices" in str(refused.value)


def test_what_would_leave_a_tie_is_refused_and_nothing_is_recorded(meters):
    meters[1].dimensions = ["model", "region"]
    meters[1].save()
    record_cost(meter=meters[1], where={"region": "eu"}, unit_amount=D(3), effective_at=AT - timedelta(days=9), at=AT)
    with pytest.raises(CommandError):
        run("--apply")
    assert UnitCost.objects.count() == 1
