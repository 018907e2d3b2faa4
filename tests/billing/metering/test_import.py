"""Usage from files."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command

from billing.metering import importing, services
from billing.metering.models import EventIdentity, ImportRun, UsageDelta, UsageEvent
from tests.factories import make_meter

pytestmark = pytest.mark.django_db
MAP = ["timestamp=When", "tokens=In"]


@pytest.fixture(autouse=True)
def tokens(acme):
    return make_meter("tokens", dimensions=["model"])


@pytest.fixture
def load(tmp_path):
    """Write a file and import it; what the command said."""

    def run(text, *words, name="usage.csv", map=MAP, **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        out = io.StringIO()
        options = {"customer": "acme", "type": "llm.completion", "timezone": "UTC", **options}
        call_command("import_usage", str(path), *words, map=map, stdout=out, **options)
        return out.getvalue()

    return run


def rows(number):
    return "When,In\n" + "".join(f"2023-11-16 18:17:{n % 60:02},{n}\n" for n in range(number))


def test_any_columns_are_mapped_and_constants_set(load):
    load("In,x,When\n7,?,2023-11-16 18:17:03.9799609\n", set=["model=large"], timezone="Europe/Berlin")

    stored = UsageEvent.objects.get()
    assert stored.occurred_at == datetime(2023, 11, 16, 17, 17, 3, 979960, tzinfo=UTC)
    assert stored.properties == {"tokens": "7", "model": "large"}
    assert stored.event_id == "1"
    assert EventIdentity.objects.get().permanent
    assert UsageDelta.objects.get().dimensions == '{"model":"large"}'


def test_a_second_run_adds_nothing(load):
    load(rows(2500))
    said = load(rows(2500))

    assert "nothing was added" in said
    assert "2,500 rows of usage.csv are imported, 0 are not" in said
    assert UsageEvent.objects.count() == 2500
    ImportRun.objects.update(next_row=0, finished_at=None)
    assert "0 accepted, 2,500 duplicate" in load(rows(2500), name="renamed.csv")


def test_an_interrupted_import_goes_on_where_it_stopped(load, monkeypatch):
    finish = services.import_rows
    monkeypatch.setattr(services, "import_rows", lambda **told: finish(**told) if told["rows"][0][0] == 1 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load(rows(2500))
    monkeypatch.undo()

    said = load(rows(2500))

    assert "Going on after row 1,000." in said
    assert "1,500 accepted, 0 duplicate" in said
    assert sum(sum(delta.quantities) for delta in UsageDelta.objects.all()) == sum(range(2500))


def test_what_is_refused_is_reported_with_its_reason(load):
    said = load(
        "When,In\n2023-11-16 18:00,-5\nyesterday,5\n2023-11-16 18:00,5,6\n2023-11-16 18:00,\n,1\n2023-11-16 18:00,2\n"
    )

    assert "2 accepted, 0 duplicate, 0 conflict, 0 unmatched, 4 rejected" in said
    assert "1 x invalid_value: tokens: Send zero or more" in said
    assert "invalid_field" in said
    assert "missing_field" in said
    assert UsageDelta.objects.get().quantities == [2]


def test_bytes_that_are_no_utf8_refuse_their_row_only(load):
    said = load(b"When,In,Who\n2023-11-16 18:00,1,\xff\n2023-11-16 18:00,2,b\n", map=[*MAP, "user=Who"])

    assert "1 accepted" in said
    assert "The row is not UTF-8." in said


def test_jsonl_is_read_by_dotted_paths_and_may_name_the_customer(load, globex):
    lines = [
        {"at": "2023-11-16T18:00:00+01:00", "who": "globex", "usage": {"in": 1.25}},
        {"at": "2023-11-16T18:00:00+01:00", "who": "acme", "usage": {"in": 2}},
        ["no object"],
    ]
    text = "\n".join(map(json.dumps, lines))

    said = load(
        text, name="u.jsonl", customer=None, timezone=None, map=["timestamp=at", "customer=who", "tokens=usage.in"]
    )

    assert "2 accepted" in said
    assert "1 rejected" in said
    assert UsageEvent.objects.get(customer=globex).properties["tokens"] * 4 == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"timezone": None}, "Row 1 has a time without offset"),
        ({"timezone": "Mars"}, "no IANA time zone"),
        ({"customer": "nobody"}, "no customer nobody"),
        ({"customer": None}, "Say --customer"),
        ({"type": None}, "Say --type"),
        ({"map": ["tokens=In"]}, "Map the time"),
        ({"map": ["timestamp=Then"]}, "no column Then; it has When, In"),
        ({"map": ["timestamp"]}, "Write NAME=VALUE"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_stored(load, options, sentence):
    with pytest.raises(CommandError, match=sentence):
        load(rows(2), **options)

    assert not UsageEvent.objects.exists()
    assert not ImportRun.objects.exclude(next_row=0).exists()


def test_identities_of_senders_are_forgotten_after_42_days_and_those_of_imports_never(load):
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    load(rows(1))
    kept = EventIdentity.objects.get()
    for age in (41, 43):
        EventIdentity.objects.create(digest=f"{age:032}", payload=f"{0:032}", recorded_at=at - timedelta(days=age))

    assert services.purge_identities(at=at + timedelta(days=400)) == 2
    assert EventIdentity.objects.get() == kept


def test_the_same_options_in_another_order_are_the_same_import():
    one = importing.Options("csv", {"a": "1", "b": "2"}, {}, "acme", "t", "UTC")
    other = importing.Options("csv", {"b": "2", "a": "1"}, {}, "acme", "t", "UTC")

    assert one.digest() == other.digest()
