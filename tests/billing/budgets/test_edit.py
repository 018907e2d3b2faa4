"""What a budget may say, and that thresholds keep their id."""

from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

from billing.budgets import queries, services
from billing.budgets.models import Budget
from billing.budgets.validation import ThresholdSpec
from billing.errors import Conflict
from tests.billing.budgets.conftest import AT, make_budget, percents


def levels(budget: Budget) -> dict[str, Decimal | None]:
    """The percents that count, by id."""
    return {one.public_id: one.percent for one in budget.thresholds.filter(archived_at=None)}


def test_thresholds_keep_their_id_when_another_is_added(acme):
    budget = make_budget(acme, thresholds=percents(50, 80))
    before = levels(budget)

    services.update_budget(budget=budget, thresholds=percents(50, 80, 90), at=AT)

    after = levels(budget)
    assert before.items() < after.items()
    assert sorted(after.values()) == [50, 80, 90]


def test_a_threshold_that_is_named_by_its_id_is_changed(acme):
    budget = make_budget(acme, thresholds=percents(80))
    [threshold] = levels(budget)

    services.update_budget(budget=budget, thresholds=[ThresholdSpec(percent=Decimal(85), id=threshold)], at=AT)

    assert levels(budget) == {threshold: 85}


def test_two_thresholds_may_swap_their_levels(acme):
    budget = make_budget(acme, thresholds=percents(50, 80))
    low, high = levels(budget)

    swapped = [ThresholdSpec(percent=Decimal(80), id=low), ThresholdSpec(percent=Decimal(50), id=high)]
    services.update_budget(budget=budget, thresholds=swapped, at=AT)

    assert levels(budget) == {low: 80, high: 50}


def test_a_new_threshold_may_take_the_level_that_another_leaves(acme):
    budget = make_budget(acme, thresholds=percents(80))
    [old] = levels(budget)

    given = [ThresholdSpec(percent=Decimal(80)), ThresholdSpec(percent=Decimal(90), id=old)]
    services.update_budget(budget=budget, thresholds=given, at=AT)

    assert levels(budget).pop(old) == 90
    assert sorted(levels(budget).values()) == [80, 90]


def test_a_threshold_that_is_not_named_no_longer_counts(acme):
    budget = make_budget(acme)

    budget = services.update_budget(budget=budget, thresholds=[], at=AT)

    assert list(budget.thresholds.all()) == []


def test_what_is_not_given_stays(acme):
    budget = make_budget(acme)

    changed = services.update_budget(budget=budget, name="Everything", at=AT)

    assert (changed.name, changed.amount, changed.recipients) == ("Everything", 2000, ["finance@acme.test"])
    assert sorted(levels(changed).values()) == [50, 80, 100]
    assert changed.levels_since == AT


def test_an_archived_budget_leaves_its_name_to_another(acme):
    services.archive_budget(budget=make_budget(acme), at=AT)

    assert list(queries.budgets(acme)) == []
    assert make_budget(acme).name == "Production"


def test_a_budget_that_was_archived_meanwhile_is_not_changed(acme):
    budget = make_budget(acme)
    services.archive_budget(budget=budget, at=AT)

    with pytest.raises(Conflict, match="archived meanwhile"):
        services.update_budget(budget=budget, amount=Decimal(1), at=AT)


def test_the_same_name_may_be_used_by_another_customer(acme, globex):
    make_budget(acme)

    assert make_budget(globex).name == "Production"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": "  "}),
        ("name", {"name": "Pro\nduction"}),
        ("name", {"name": "x" * 201}),
        ("name", {"name": "Taken"}),
        ("amount", {"amount": Decimal(0)}),
        ("amount", {"amount": Decimal("1e19")}),
        ("unit", {"unit": "EUR"}),
        ("unit", {"unit": "bananas"}),
        ("thresholds", {"thresholds": percents(*range(1, 22))}),
        ("thresholds.0", {"thresholds": [ThresholdSpec()]}),
        ("thresholds.0", {"thresholds": [ThresholdSpec(percent=Decimal(1), amount=Decimal(1))]}),
        ("thresholds.1", {"thresholds": percents(80, "80.00")}),
        ("thresholds.0.percent", {"thresholds": percents(0)}),
        ("thresholds.0.percent", {"thresholds": percents(1001)}),
        ("thresholds.0.percent", {"thresholds": percents("80.001")}),
        ("thresholds.0.amount", {"thresholds": [ThresholdSpec(amount=Decimal(-1))]}),
        ("thresholds.0.id", {"thresholds": [ThresholdSpec(percent=Decimal(1), id="thr_of_another")]}),
        ("recipients", {"recipients": []}),
        ("recipients", {"recipients": ["everyone"]}),
        ("recipients", {"recipients": ["ops@acme.test\nBcc: eve@evil.test"]}),
        ("recipients", {"recipients": [f"member{number}@acme.test" for number in range(21)]}),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(acme, field, changes):
    make_budget(acme, name="Taken")

    with pytest.raises(ValidationError) as refused:
        make_budget(acme, **changes)

    assert list(refused.value.message_dict) == [field]
    assert Budget.objects.count() == 1


# --- who may be named -----------------------------------------------------------------------------------------


def test_an_operator_may_name_any_address(acme):
    assert make_budget(acme, recipients=["Ops@Elsewhere.test"], trusted=True).recipients == ["ops@elsewhere.test"]


def test_a_member_may_name_roles_members_and_the_customers_own_address(acme, alice, bob):
    named = ["owners", "billing", "bob@acme.test", "ap@acme.test"]

    assert make_budget(acme, recipients=named, trusted=False).recipients == named


@pytest.mark.parametrize("stranger", ["ops@elsewhere.test", "charlie@globex.test"])
def test_a_member_may_not_name_a_stranger(acme, alice, charlie, stranger):
    with pytest.raises(ValidationError) as refused:
        make_budget(acme, recipients=["owners", stranger], trusted=False)

    assert stranger in refused.value.message_dict["recipients"][0]


def test_a_member_may_keep_the_address_that_an_operator_named(acme, alice):
    budget = make_budget(acme, recipients=["ops@elsewhere.test"])

    changed = services.update_budget(budget=budget, recipients=["owners", "ops@elsewhere.test"], at=AT)

    assert changed.recipients == ["owners", "ops@elsewhere.test"]
