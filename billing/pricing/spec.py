"""What a plan version says, as plain values: the shape that the API, the admin and the seed all hand to services."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, get_args

from accounts.models import KEY_PATTERN, valid_key
from billing.money import ZERO, is_currency, plain
from billing.pricing.schemes import Row, Scheme, Terms, Tier, Where, normalise_where
from billing.pricing.validation import Problem, problems

# About three years: longer periods are a mistake, and far dates leave the calendar.
LONGEST: Final = {"day": 1096, "week": 156, "month": 36, "year": 3}
FEE_TIMINGS: Final = ("advance", "arrears")
CREDITS_EVERY: Final = ("period", "month")
MAX_TRIAL_DAYS: Final = 730
MAX_PRICES: Final = 200
MAX_MATCH_ROWS: Final = 500
MAX_PRIORITY: Final = 32767
_UNIT_LENGTH: Final = 32
_VALUE_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSpec:
    """The amounts of a row beside `unit_amount`; only those of its scheme are read, as in schemes.Row."""

    tiers: tuple[Tier, ...] = ()
    package_size: Decimal = Decimal(1)
    package_amount: Decimal = ZERO
    rate: Decimal = ZERO
    fixed_amount: Decimal = ZERO
    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None


@dataclass(frozen=True, slots=True)
class MatchSpec(RowSpec):
    """Other amounts where dimensions match: `where` values are a string, a list of strings, or None (absent)."""

    where: Mapping[str, Any]
    unit_amount: Decimal = ZERO
    included: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class PriceSpec(RowSpec):
    """`unit_amount` is what `per` of the meter's quantity costs, in `unit`; `meter` is a meter's key."""

    key: str
    meter: str
    unit: str
    unit_amount: Decimal = ZERO
    per: Decimal = Decimal(1)
    included: Decimal = ZERO
    match: tuple[MatchSpec, ...] = ()
    scheme: Scheme = "per_unit"


# Fields that a row has under one name in specs, models, schemes and the API.
# What a row says by each scheme; the rest of its amounts are for all of them.
AMOUNTS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "per_unit": ("unit_amount",),
    "graduated": ("tiers",),
    "volume": ("tiers",),
    "package": ("package_size", "package_amount"),
    "percentage": ("rate", "fixed_amount"),
}
ROW_AMOUNTS: Final = (
    "unit_amount",
    "package_size",
    "package_amount",
    "rate",
    "fixed_amount",
    "included",
    "minimum_amount",
    "maximum_amount",
)


@dataclass(frozen=True, slots=True)
class CreditSpec:
    """Granted in each billing period or, by `every`, each month of it; low priorities are spent first.

    What is left when the next ones come moves to them once, up to `rollover_max`.
    """

    unit: str
    amount: Decimal
    priority: int = 10
    every: str = "period"
    rollover_max: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class OverageSpec:
    """What one credit costs beyond the grants, in the plan's currency."""

    unit: str
    unit_amount: Decimal


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """Everything a version says; `dataclasses.replace` makes a changed one."""

    interval: str = "month"
    interval_count: int = 1
    base_fee: Decimal = ZERO
    base_fee_timing: str = "advance"
    trial_days: int = 0
    minimum_spend: Decimal | None = None
    postpaid: bool = True
    credits: tuple[CreditSpec, ...] = ()
    prices: tuple[PriceSpec, ...] = ()
    overage: tuple[OverageSpec, ...] = ()


def tier_as_stored(tier: Tier) -> dict[str, str | None]:
    """A tier as JSON: the shape of the contract."""
    return {
        "up_to": None if tier.up_to is None else plain(tier.up_to),
        "unit_amount": plain(tier.unit_amount),
        "flat_amount": plain(tier.flat_amount),
    }


def tier_from_stored(stored: Mapping[str, str | None]) -> Tier:
    """The inverse of `tier_as_stored`."""
    up_to = stored["up_to"]
    return Tier(
        up_to=None if up_to is None else Decimal(up_to),
        unit_amount=Decimal(stored["unit_amount"] or 0),
        flat_amount=Decimal(stored["flat_amount"] or 0),
    )


def spec_problems(spec: VersionSpec, *, currency: str, dimensions: Mapping[str, Iterable[str]]) -> list[Problem]:
    """Everything that keeps a version from being stored, each with its path, such as "prices.0.match.1.where".

    `dimensions` names the dimensions of every meter that exists, by the meter's key.
    """
    found = [*_version_problems(spec), *_credit_problems(spec, currency), *_overage_problems(spec, currency)]
    if len(spec.prices) > MAX_PRICES:
        return [*found, Problem("prices", "too_many", f"Send at most {MAX_PRICES} prices.")]
    for index, price in enumerate(spec.prices):
        known = dimensions.get(price.meter)
        found += _under(f"prices.{index}.", _price_problems(price, currency, known))
    found += _repeated("prices", "key", [price.key for price in spec.prices], "Give every price its own key.")
    found += _repeated(
        "prices", "meter", [price.meter for price in spec.prices], "A version prices a meter once; merge the prices."
    )
    return found


def _under(prefix: str, found: Iterable[Problem]) -> Iterator[Problem]:
    return (replace(problem, field=prefix + problem.field) for problem in found)


def _repeated(path: str, name: str, values: list[str], remedy: str) -> Iterator[Problem]:
    seen: Counter[str] = Counter()
    for index, value in enumerate(values):
        if seen[value]:
            yield Problem(f"{path}.{index}.{name}", "repeated", f'"{value}" is named twice. {remedy}')
        seen[value] += 1


def _version_problems(spec: VersionSpec) -> Iterator[Problem]:
    longest = LONGEST.get(spec.interval)
    if longest is None:
        yield Problem("interval", "invalid_choice", f"Use one of {', '.join(LONGEST)}.")
    elif not 1 <= spec.interval_count <= longest:
        yield Problem("interval_count", "out_of_range", f"Use 1 to {longest} for an interval of a {spec.interval}.")
    if spec.base_fee < 0:
        yield Problem("base_fee", "negative", "Send zero or more.")
    if spec.base_fee_timing not in FEE_TIMINGS:
        yield Problem("base_fee_timing", "invalid_choice", f"Use one of {', '.join(FEE_TIMINGS)}.")
    if not 0 <= spec.trial_days <= MAX_TRIAL_DAYS:
        yield Problem("trial_days", "out_of_range", f"Use 0 to {MAX_TRIAL_DAYS}.")
    if spec.minimum_spend is not None and spec.minimum_spend < 0:
        yield Problem("minimum_spend", "negative", "Send zero or more, or null for none.")


def _credit_problems(spec: VersionSpec, currency: str) -> Iterator[Problem]:
    for index, credit in enumerate(spec.credits):
        path = f"credits.{index}."
        yield from _under(path, _unit_problems(credit.unit, currency))
        if credit.amount <= 0:
            yield Problem(path + "amount", "not_positive", "Send more than zero.")
        if not 0 <= credit.priority <= MAX_PRIORITY:
            yield Problem(path + "priority", "out_of_range", f"Use 0 to {MAX_PRIORITY}.")
        if credit.rollover_max < 0:
            yield Problem(path + "rollover_max", "negative", "Send zero or more.")
        if credit.every not in CREDITS_EVERY:
            yield Problem(path + "every", "invalid_choice", f"Use one of {', '.join(CREDITS_EVERY)}.")
        elif credit.every == "month" and spec.interval not in ("month", "year"):
            detail = f"A billing period of a {spec.interval} has no months; give the credits every period."
            yield Problem(path + "every", "invalid_choice", detail)


def _overage_problems(spec: VersionSpec, currency: str) -> Iterator[Problem]:
    for index, term in enumerate(spec.overage):
        path = f"overage.{index}."
        if is_currency(term.unit):
            yield Problem(
                path + "unit", "not_credits", "Overage is for credits; usage in a currency is invoiced as is."
            )
        else:
            yield from _under(path, _unit_problems(term.unit, currency))
        if term.unit_amount < 0:
            yield Problem(path + "unit_amount", "negative", "Send zero or more.")
    yield from _repeated("overage", "unit", [term.unit for term in spec.overage], "List each unit once.")


def _unit_problems(unit: str, currency: str) -> Iterator[Problem]:
    if not unit or len(unit) > _UNIT_LENGTH or not unit.isprintable():
        yield Problem("unit", "invalid", f"Name a currency or a credit unit of 1 to {_UNIT_LENGTH} characters.")
    elif is_currency(unit.upper()) and unit != currency:
        yield Problem("unit", "wrong_currency", f"Use {currency}, the plan's currency, or a credit unit.")


def key_problems(key: str) -> Iterator[Problem]:
    """Why this is no key of a plan or price."""
    if not re.fullmatch(KEY_PATTERN, key):  # `$` alone would let a final line break pass
        yield Problem("key", "invalid", str(valid_key.message))


def _price_problems(price: PriceSpec, currency: str, dimensions: Iterable[str] | None) -> Iterator[Problem]:
    yield from key_problems(price.key)
    yield from _unit_problems(price.unit, currency)
    if dimensions is None:
        yield Problem("meter", "unknown_meter", f'There is no meter "{price.meter}". Create it first.')
    yield from amount_problems(price, dimensions)


def amount_problems(price: PriceSpec, dimensions: Iterable[str] | None = None) -> list[Problem]:
    """What is wrong with the rows of a price: their `where`, their amounts, and whether they leave a tie."""
    if price.scheme not in get_args(Scheme.__value__):
        return [Problem("scheme", "invalid_choice", f"Use one of {', '.join(get_args(Scheme.__value__))}.")]
    if len(price.match) > MAX_MATCH_ROWS:
        return [Problem("match", "too_many", f"Send at most {MAX_MATCH_ROWS} match rows.")]
    # A match row has the default's `per`, which is named once.
    return list(_where_problems(price, dimensions)) or [
        problem for problem in problems(terms_of(price)) if not re.fullmatch(r"match\.\d+\.per", problem.field)
    ]


def _where_problems(price: PriceSpec, dimensions: Iterable[str] | None) -> Iterator[Problem]:
    for index, row in enumerate(price.match):
        path = f"match.{index}.where"
        try:
            where = normalise_where(row.where)
        except ValueError as error:
            yield Problem(path, "invalid", str(error))
            continue
        if not all(map(_storable, (value for values in where.values() for value in values))):
            yield Problem(path, "invalid", f"Values are text of at most {_VALUE_LENGTH} characters without NUL.")
        lacking = [] if dimensions is None else [name for name in where if name not in set(dimensions)]
        if lacking:
            names = ", ".join(f'"{name}"' for name in lacking)
            detail = f"The meter has no dimension {names}. Add it to the meter, or match another dimension."
            yield Problem(path, "unknown_dimension", detail)


def _storable(value: str | None) -> bool:
    """Whether PostgreSQL can keep the text: no NUL and no half of a surrogate pair."""
    if value is None:
        return True
    return len(value) <= _VALUE_LENGTH and not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)


def terms_of(price: PriceSpec) -> Terms:
    """The price as schemes calculate it. Raises ValueError for a `where` that cannot be read."""
    return Terms(
        key=price.key,
        unit=price.unit,
        default=_row(price, price, {}),
        match=tuple(_row(price, row, normalise_where(row.where)) for row in price.match),
    )


def _row(price: PriceSpec, row: PriceSpec | MatchSpec, where: Where) -> Row:
    """A match row inherits only `scheme` and `per`."""
    amounts = {name: getattr(row, name) for name in ROW_AMOUNTS}
    return Row(scheme=price.scheme, per=price.per, where=where, tiers=row.tiers, **amounts)
