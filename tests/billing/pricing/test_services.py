"""Plans and their versions: what may be said, what is refused with its path, and what publishing freezes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Thread

import pytest
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, connection, transaction

from billing.errors import Conflict
from billing.metering.models import Meter
from billing.pricing import queries, services
from billing.pricing.models import CreditTerm, MatchRow, OverageTerm, PlanVersion, Price
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, OverageSpec, PriceSpec, VersionSpec, terms_of
from tests.factories import make_meter, make_plan

D = Decimal
AT = datetime(2026, 11, 24, 10, tzinfo=UTC)

INPUT = PriceSpec(
    key="input",
    meter="input_tokens",
    unit="USD",
    unit_amount=D("0.15"),
    per=D(1_000_000),
    included=D(1000),
    match=(
        MatchSpec({"model": "large-2"}, D("2.5")),
        MatchSpec({"model": ["mini", "nano"], "region": None}, D("0.05")),
    ),
)
SPEC = VersionSpec(
    base_fee=D(20),
    credits=(CreditSpec("credits", D(1000)),),
    prices=(INPUT, PriceSpec("calls", "calls", "credits", D(1))),
    overage=(OverageSpec("credits", D("0.012")),),
)


@pytest.fixture
def plan(db):
    make_meter("input_tokens", value="input_tokens", dimensions=["model", "region"])
    make_meter("calls", aggregation="count", dimensions=["model"])
    return make_plan("pro")


@pytest.fixture
def published(plan):
    version = services.create_version(plan=plan, spec=SPEC, at=AT)
    return services.publish(version=version, at=AT)


def rows(*wheres):
    return tuple(MatchSpec(where, D(1)) for where in wheres)


def found(spec, plan):
    with pytest.raises(ValidationError) as refused:
        services.create_version(plan=plan, spec=spec, at=AT)
    return {field: [error.code for error in errors] for field, errors in refused.value.error_dict.items()}


def test_a_version_says_what_was_written(plan):
    version = services.create_version(plan=plan, spec=SPEC, at=AT)

    assert queries.spec_of(queries.versions(plan).get(pk=version.pk)) == SPEC
    assert (version.number, version.status) == (1, "draft")


def test_every_scheme_is_kept_as_it_was_written(plan):
    tiers = (Tier(D(10), D("1.5")), Tier(None, D("0.000000000001"), D(7)))
    prices = (
        PriceSpec(
            "input",
            "input_tokens",
            "USD",
            scheme="graduated",
            tiers=tiers,
            included=D(5),
            maximum_amount=D(100),
            match=(MatchSpec({"model": "a"}, tiers=tiers[1:], included=D(2)),),
        ),
        PriceSpec("calls", "calls", "credits", scheme="package", package_size=D(100), package_amount=D(3)),
    )
    version = services.create_version(plan=plan, spec=replace(SPEC, prices=prices), at=AT)

    assert queries.spec_of(version).prices == prices
    assert [item.terms for item in queries.terms(version)] == [terms_of(price) for price in prices]
    assert queries.terms(version)[0].terms.match[0].scheme == "graduated"


def test_versions_count_up(plan):
    numbers = [services.create_version(plan=plan, spec=SPEC, at=AT).number for _ in range(3)]

    assert numbers == [1, 2, 3]


def test_a_draft_can_be_rewritten(plan):
    version = services.create_version(plan=plan, spec=SPEC, at=AT)
    changed = replace(SPEC, base_fee=D("7.5"), prices=(replace(INPUT, match=()),), credits=(), overage=())

    services.update_draft(version=version, spec=changed, at=AT)

    assert queries.spec_of(queries.versions(plan).get(pk=version.pk)) == changed


def test_terms_carry_the_meter_and_what_schemes_calculate(published):
    first, second = queries.terms(published)

    assert (first.price.key, first.meter.key, first.terms.unit) == ("input", "input_tokens", "USD")
    assert [row.per for row in first.terms.rows] == [D(1_000_000)] * 3
    assert first.terms.match[1].where == {"model": frozenset(["mini", "nano"]), "region": frozenset([None])}
    assert [row.included for row in first.terms.rows] == [D(1000), 0, 0]
    assert second.terms.default.unit_amount == 1


@pytest.mark.parametrize(
    ("filter_", "row", "code"),
    [
        ({"property": "model", "op": "in", "value": ["mini"]}, {"model": "large"}, ["unreachable"]),
        ({"property": "model", "op": "ne", "value": "large"}, {"model": ["large"]}, ["unreachable"]),
        ({"property": "model", "op": "exists"}, {"model": None}, ["unreachable"]),
        ({"property": "model", "op": "in", "value": ["mini"]}, {"model": ["mini", "large"]}, None),
        ({"property": "status", "op": "eq", "value": "ok"}, {"model": "large"}, None),
    ],
)
def test_a_row_that_no_counted_event_could_choose_is_refused(plan, filter_, row, code):
    make_meter("some", dimensions=["model"], filters=[filter_])
    spec = VersionSpec(prices=(PriceSpec("some", "some", "USD", D(1), match=(MatchSpec(row, D(2)),)),))

    if code is None:
        services.check(spec, plan)
    else:
        assert found(spec, plan) == {"prices.0.match.0.where": code}


@pytest.mark.parametrize("status", ["published", "retired"])
def test_a_scheduled_version_counts_from_its_instant_on_and_a_retired_one_no_longer(plan, status):
    first = services.publish(version=services.create_version(plan=plan, spec=SPEC, at=AT), at=AT)
    draft = services.create_version(plan=plan, spec=SPEC, at=AT)
    later = services.publish(version=draft, at=AT, published_at=AT + timedelta(days=3))
    if status == "retired":
        services.retire(version=later, at=AT)

    found = [queries.latest_published(plan, AT + timedelta(days=days)) for days in (0, 3)]
    assert found == [first, first if status == "retired" else later]


def test_a_draft_is_not_retired_and_a_retired_version_not_published_again(plan, published):
    with pytest.raises(Conflict, match="delete it"):
        services.retire(version=services.create_version(plan=plan, spec=SPEC, at=AT), at=AT)
    retired = services.retire(version=published, at=AT)
    assert services.retire(version=retired, at=AT + timedelta(days=1)).retired_at == AT
    with pytest.raises(Conflict, match="never changes"):
        services.publish(version=retired, at=AT)


@pytest.mark.parametrize("prices", [SPEC.prices[:1], SPEC.prices])
def test_terms_cost_as_many_queries_however_many_prices_there_are(plan, prices, django_assert_num_queries):
    version = services.create_version(plan=plan, spec=replace(SPEC, prices=prices), at=AT)

    with django_assert_num_queries(4):
        queries.terms(version)


def test_the_terms_of_a_published_version_are_read_once(published, django_assert_num_queries):
    before = queries.terms(published)

    with django_assert_num_queries(1):  # the meters, which may get another name or another dimension
        assert queries.terms(published) == before


def test_a_meter_that_gets_a_dimension_has_it_in_the_terms_of_a_published_version(published):
    [first, _] = queries.terms(published)

    Meter.objects.filter(pk=first.meter.pk).update(dimensions=[*first.meter.dimensions, "team"])

    assert "team" in queries.terms(published)[0].meter.dimensions


def test_the_terms_of_a_draft_are_those_it_has_now(plan):
    version = services.create_version(plan=plan, spec=SPEC, at=AT)
    queries.terms(version)

    services.update_draft(version=version, spec=replace(SPEC, prices=(replace(INPUT, per=D(7), match=()),)), at=AT)

    assert [item.terms.default.per for item in queries.terms(version)] == [D(7)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"interval": "decade"}, {"interval": ["invalid_choice"]}),
        ({"interval_count": 0}, {"interval_count": ["out_of_range"]}),
        ({"interval": "year", "interval_count": 4}, {"interval_count": ["out_of_range"]}),
        ({"base_fee": D(-1)}, {"base_fee": ["negative"]}),
        ({"base_fee_timing": "never"}, {"base_fee_timing": ["invalid_choice"]}),
        ({"credits": (CreditSpec("credits", D(0)),)}, {"credits.0.amount": ["not_positive"]}),
        ({"credits": (CreditSpec("credits", D(1), -1),)}, {"credits.0.priority": ["out_of_range"]}),
        ({"credits": (CreditSpec("EUR", D(1)),)}, {"credits.0.unit": ["wrong_currency"]}),
        ({"overage": (OverageSpec("USD", D(1)),)}, {"overage.0.unit": ["not_credits"]}),
        ({"overage": (OverageSpec("credits", D(-1)),)}, {"overage.0.unit_amount": ["negative"]}),
        ({"overage": (OverageSpec("credits", D(1)),) * 2}, {"overage.1.unit": ["repeated"]}),
        (
            {"prices": (INPUT, replace(INPUT, meter="calls", match=()))},
            {"prices.1.key": ["repeated"]},
        ),
        ({"prices": (INPUT, replace(INPUT, key="other"))}, {"prices.1.meter": ["repeated"]}),
        ({"prices": (INPUT,) * 201}, {"prices": ["too_many"]}),
    ],
)
def test_a_version_that_makes_no_sense_is_refused_with_the_field(plan, change, problem):
    assert found(replace(SPEC, **change), plan) == problem


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"meter": "nope"}, "meter", "unknown_meter"),
        ({"key": "a b"}, "key", "invalid"),
        ({"key": "a\n"}, "key", "invalid"),
        ({"unit": "EUR"}, "unit", "wrong_currency"),
        ({"unit": "usd"}, "unit", "wrong_currency"),
        ({"unit": ""}, "unit", "invalid"),
        ({"unit": "x" * 33}, "unit", "invalid"),
        ({"unit_amount": D(-1)}, "unit_amount", "negative"),
        ({"per": D(0)}, "per", "not_positive"),
        ({"included": D(-1)}, "included", "negative"),
        ({"match": (MatchSpec({"model": "a"}, D(-1)),)}, "match.0.unit_amount", "negative"),
        ({"match": (MatchSpec({}, D(1)),)}, "match.0.where", "required"),
        ({"match": (MatchSpec({"model": []}, D(1)),)}, "match.0.where", "invalid"),
        ({"match": (MatchSpec({"model": 7}, D(1)),)}, "match.0.where", "invalid"),
        ({"match": (MatchSpec({"model": "a\0"}, D(1)),)}, "match.0.where", "invalid"),
        ({"match": (MatchSpec({"model": "\ud800"}, D(1)),)}, "match.0.where", "invalid"),
        ({"match": rows({"model": "a"}, {"user": "u"})}, "match.1.where", "unknown_dimension"),
        ({"match": rows({"model": "a"}, {"region": "eu"})}, "match.1.where", "ambiguous_match"),
        ({"match": (MatchSpec({"model": "a"}, D(1)),) * 501}, "match", "too_many"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused_with_its_path(plan, change, field, code):
    spec = replace(SPEC, prices=(SPEC.prices[1], replace(INPUT, **change)))

    assert found(spec, plan) == {f"prices.1.{field}": [code]}


def test_a_plan_needs_a_key_of_its_own(plan):
    with pytest.raises(Conflict) as refused:
        services.create_plan(key="pro", name="Other", currency="EUR", at=AT)

    assert (refused.value.field, refused.value.code) == ("key", "already_exists")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key": "a\n"}, "key"),
        ({"name": ""}, "name"),
        ({"currency": "XXX"}, "currency"),
        ({"currency": "usd"}, "currency"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_the_field(db, change, field):
    with pytest.raises(ValidationError) as refused:
        services.create_plan(**{"key": "pro", "name": "Pro", "currency": "USD", "at": AT, **change})

    assert set(refused.value.error_dict) == {field}


# --- publishing ---------------------------------------------------------------------------------------------


def test_new_subscriptions_take_the_version_that_was_published_last(plan):
    assert queries.latest_published(plan, AT) is None
    first, second = (services.create_version(plan=plan, spec=SPEC, at=AT) for _ in range(2))
    services.publish(version=first, at=AT)
    services.publish(version=second, at=AT, published_at=AT + timedelta(days=1))

    assert queries.latest_published(plan, AT) == first
    assert queries.latest_published(plan, AT + timedelta(days=1)) == second


def test_publishing_looks_at_the_meters_once_more(plan):
    version = services.create_version(plan=plan, spec=SPEC, at=AT)
    meter = version.prices.first().meter
    meter.dimensions = ["model"]
    meter.save()

    with pytest.raises(ValidationError) as refused:
        services.publish(version=version, at=AT)

    assert set(refused.value.error_dict) == {"prices.0.match.1.where"}


def test_a_published_version_is_neither_changed_nor_published_again(published):
    for act in (
        lambda: services.update_draft(version=published, spec=SPEC, at=AT),
        lambda: services.publish(version=published, at=AT),
    ):
        with pytest.raises(Conflict) as refused:
            act()
        assert refused.value.code == "version_published"


FROZEN = [PlanVersion, Price, MatchRow, CreditTerm, OverageTerm]


@pytest.mark.parametrize("model", FROZEN)
def test_the_database_refuses_to_delete_or_change_what_is_published(published, model):
    row = model._default_manager.first()
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        row.save()
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET id = id")
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {model._meta.db_table} WHERE id = %s", [row.pk])


@pytest.mark.parametrize("model", FROZEN[1:])
def test_the_database_refuses_to_move_a_row_into_or_out_of_a_published_version(published, plan, model):
    draft = services.create_version(plan=plan, spec=SPEC, at=AT)
    parents = {Price: ("price", draft.prices.first().pk, published.prices.first().pk)} if model is MatchRow else {}
    parent, draft_id, published_id = parents.get(Price, ("version", draft.pk, published.pk))
    for source, target in ((published_id, draft_id), (draft_id, published_id)):
        row = model._default_manager.filter(**{parent: source}).first()
        with pytest.raises(IntegrityError, match="frozen"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {model._meta.db_table} SET {parent}_id = %s WHERE id = %s", [target, row.pk])


@pytest.mark.parametrize("model", FROZEN[1:])
def test_the_database_refuses_to_add_a_row_to_a_published_version(published, model):
    row = model._default_manager.first()
    row.pk, row._state.adding = None, True
    for name, value in {"key": "another", "unit": "other"}.items():
        if hasattr(row, name):
            setattr(row, name, value)
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        row.save(force_insert=True)


TIERS_THAT_ARE_NONE = [
    '{"up_to": null}',
    '[{"up_to": null, "unit_amount": "NaN", "flat_amount": "0"}]',
    '[{"up_to": null, "unit_amount": 1, "flat_amount": "0"}]',
    '[{"up_to": null, "unit_amount": "-1", "flat_amount": "0"}]',
    '[{"unit_amount": "1", "flat_amount": "0"}]',
    '[{"up_to": "1e5", "unit_amount": "1", "flat_amount": "0"}]',
    '["tier"]',
]


@pytest.mark.parametrize("tiers", TIERS_THAT_ARE_NONE)
@pytest.mark.parametrize("model", [Price, MatchRow])
def test_the_database_refuses_tiers_that_hold_no_amounts(plan, model, tiers):
    services.create_version(plan=plan, spec=SPEC, at=AT)
    with pytest.raises(IntegrityError, match="tiers_are_amounts"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET tiers = %s", [tiers])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("unit_amount", "NaN"),
        ("unit_amount", "-1"),
        ("package_size", "0"),
        ("package_amount", "NaN"),
        ("rate", "-1"),
        ("fixed_amount", "-1"),
        ("included", "Infinity"),
        ("maximum_amount", "-1"),
    ],
)
@pytest.mark.parametrize("model", [Price, MatchRow])
def test_the_database_refuses_amounts_that_are_none(plan, model, column, value):
    services.create_version(plan=plan, spec=SPEC, at=AT)
    with pytest.raises((IntegrityError, DataError)), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {model._meta.db_table} SET {column} = %s::numeric", [value])


def test_a_draft_can_be_deleted(plan):
    version = services.create_version(plan=plan, spec=SPEC, at=AT)

    version.delete()

    assert not Price.objects.exists()


def test_a_price_cannot_slip_into_a_version_while_it_is_published(committed):
    make_meter("calls", aggregation="count")
    make_meter("other", aggregation="count")
    spec = replace(SPEC, prices=SPEC.prices[1:])
    version = services.create_version(plan=make_plan("pro"), spec=spec, at=AT)
    refused = []

    def add_price() -> None:
        try:
            price = version.prices.get()
            price.pk, price.key, price.meter_id = None, "late", price.meter_id + 1
            price.save(force_insert=True)
        except IntegrityError as error:
            refused.append(str(error))
        finally:
            connection.close()

    with transaction.atomic():
        services.publish(version=version, at=AT)
        thread = Thread(target=add_price)
        thread.start()
        thread.join(timeout=0.5)
    thread.join()

    assert len(refused) == 1
    assert "frozen" in refused[0]
