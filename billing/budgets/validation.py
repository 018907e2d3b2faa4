"""What a budget may say. Every refusal names its field and the remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.core.exceptions import ValidationError

from billing import money
from billing.budgets.models import Budget
from billing.pricing.models import Plan, Price

MOST_THRESHOLDS: Final = 20
MOST_PERCENT: Final = Decimal(1000)
_PERCENT_STEP: Final = Decimal("0.01")
_NAME_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class ThresholdSpec:
    """A threshold as given: a percent of the budget, or an amount. With an `id`, it is the one that has it, changed."""

    percent: Decimal | None = None
    amount: Decimal | None = None
    id: str | None = None

    @property
    def level(self) -> tuple[Decimal | None, Decimal | None]:
        return self.percent, self.amount


@contextmanager
def about(field: str) -> Iterator[None]:
    """A ValidationError raised inside is about this field."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError({field: error.error_list}) from None


def check_budget(budget: Budget) -> None:
    """Raise ValidationError by field unless name, unit and amount are sound. The customer's claim must be held."""
    errors = {}
    if problem := _name_problem(budget):
        errors["name"] = problem
    if not 0 < budget.amount <= money.LIMIT:
        errors["amount"] = f"Send more than zero, and at most {money.plain(Decimal(money.LIMIT))}."
    if budget.stop_at_percent is not None and (problem := _percent_problem(budget.stop_at_percent)):
        errors["stop_at_percent"] = problem
    if not _is_priced(budget):
        errors["unit"] = f"Nothing is priced in {budget.unit}. Use {budget.customer.currency} or a plan's other unit."
    if errors:
        raise ValidationError(errors)


def check_thresholds(specs: Sequence[ThresholdSpec], known: set[str]) -> None:
    """Raise ValidationError by path unless every threshold is sound and its id is among the `known`."""
    if len(specs) > MOST_THRESHOLDS:
        raise ValidationError({"thresholds": f"At most {MOST_THRESHOLDS} thresholds fit one budget."})
    errors = {}
    for index, spec in enumerate(specs):
        earlier = specs[:index]
        if problem := _threshold_problem(spec):
            field, detail = problem
            errors[f"thresholds.{index}.{field}" if field else f"thresholds.{index}"] = detail
        elif spec.id is not None and spec.id not in known:
            errors[f"thresholds.{index}.id"] = "This budget has no such threshold. Leave the id out to add one."
        elif any(spec.level == other.level or (spec.id and spec.id == other.id) for other in earlier):
            errors[f"thresholds.{index}"] = "This threshold is named twice. Leave one out."
    if errors:
        raise ValidationError(errors)


def _name_problem(budget: Budget) -> str | None:
    if not 1 <= len(budget.name) <= _NAME_LENGTH or not budget.name.isprintable():
        return f"Send 1 to {_NAME_LENGTH} printable characters."
    others = Budget.objects.filter(customer=budget.customer, archived_at=None).exclude(pk=budget.pk)
    if others.filter(name=budget.name).exists():
        return f'There is a budget "{budget.name}" already. Choose another name.'
    return None


def _is_priced(budget: Budget) -> bool:
    """Whether spend can arise in the budget's unit."""
    unit = budget.unit
    return (
        unit == budget.customer.currency
        or Plan.objects.filter(currency=unit).exists()
        or Price.objects.filter(unit=unit).exists()
    )


def _threshold_problem(spec: ThresholdSpec) -> tuple[str, str] | None:
    """(field, what is wrong with it)."""
    if (spec.percent is None) == (spec.amount is None):
        return "", "Send either percent or amount."
    if spec.amount is not None and not 0 < spec.amount <= money.LIMIT:
        return "amount", f"Send more than zero, and at most {money.plain(Decimal(money.LIMIT))}."
    if spec.percent is not None and (problem := _percent_problem(spec.percent)):
        return "percent", problem
    return None


def _percent_problem(percent: Decimal) -> str | None:
    if not 0 < percent <= MOST_PERCENT:
        return f"Send more than zero, and at most {MOST_PERCENT}."
    if percent != percent.quantize(_PERCENT_STEP, context=money.CONTEXT):
        return "Send at most two decimal places."
    return None
