"""Price schemes as pure functions: quantity -> amount, its breakdown and the arithmetic in words.

Quantities are cumulative (a period's or a segment's so far) and never negative. Multiply first, divide last;
each breakdown row is quantised to 12 places and an amount is the sum of its rows, as one would add by hand.
Minimums are true-ups of a period's end: `rate` leaves them out, so that a series never contains one, and
`simulate` adds them.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from functools import cached_property, partial
from typing import Final, Literal, NamedTuple

from billing.money import CONTEXT, PLACES, ZERO, exact, mul_div, plain, quantise, total

type Scheme = Literal["per_unit", "graduated", "volume", "package", "percentage"]
type Where = Mapping[str, frozenset[str | None]]  # dimension -> any of these values; None = absent
type Dimensions = Mapping[str, str | None]

_ONE: Final = Decimal(1)
_STEP: Final = _ONE.scaleb(-PLACES)
_HUNDRED: Final = Decimal(100)


@dataclass(frozen=True, slots=True)
class Tier:
    """`up_to` is cumulative and inclusive; the last tier has none."""

    up_to: Decimal | None
    unit_amount: Decimal = ZERO
    flat_amount: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a price: the default (empty `where`) or a match row. Only its scheme's fields are read.

    `unit_amount` is what `per` of quantity costs. Tier bounds and `included` are quantities of the meter;
    a package holds `package_size` x `per`. `rate` is in percent, `fixed_amount` is due per event.
    """

    scheme: Scheme = "per_unit"
    per: Decimal = _ONE
    where: Where = field(default_factory=dict)
    unit_amount: Decimal = ZERO
    tiers: tuple[Tier, ...] = ()
    package_size: Decimal = _ONE
    package_amount: Decimal = ZERO
    rate: Decimal = ZERO
    fixed_amount: Decimal = ZERO
    included: Decimal = ZERO
    minimum_amount: Decimal | None = None
    maximum_amount: Decimal | None = None

    @property
    def is_default(self) -> bool:
        return not self.where


@dataclass(frozen=True)
class Terms:
    """A price as it is calculated. `rows[0]` is the default, `rows[n]` the nth match row.

    A match row inherits only `scheme` and `per` from the default; whoever builds one has filled them in.
    """

    key: str
    unit: str
    default: Row
    match: tuple[Row, ...] = ()

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return (self.default, *self.match)

    @cached_property
    def choice(self) -> "Choice":
        return Choice([row.where for row in self.match])


@dataclass(frozen=True, slots=True)
class Usage:
    """A quantity with the dimensions that choose its row; `events` is how many events made it up."""

    quantity: Decimal
    dimensions: Dimensions = field(default_factory=dict)
    events: int = 0


class Breakdown(NamedTuple):
    """One row of an amount. `kind` tells usage from the rows that lift or cut an amount to its limit."""

    where: Where
    tier: int | None  # from 1; None where the scheme has none
    quantity: Decimal
    unit_amount: Decimal
    flat_amount: Decimal
    amount: Decimal
    kind: Literal["usage", "minimum", "maximum"] = "usage"


@dataclass(frozen=True, slots=True)
class Rated:
    """An amount in the price's unit, 12 places; `amount` is the sum of the breakdown."""

    amount: Decimal
    breakdown: tuple[Breakdown, ...]
    explain: Callable[[], str] = field(repr=False, compare=False)

    @property
    def explanation(self) -> str:
        """The arithmetic, put into words when it is asked for: most amounts are only added up."""
        return self.explain()


NOTHING: Final = Rated(ZERO, (), lambda: "0")


# --- which row ----------------------------------------------------------------------------------------------


def normalise_where(where: Mapping[str, object]) -> dict[str, frozenset[str | None]]:
    """Read a `where` as sent: each value a string, null (absent) or a list of those (any of).

    Raises ValueError with a sentence.
    """
    return {key: _values(key, value) for key, value in where.items()}


def _values(key: str, value: object) -> frozenset[str | None]:
    options = value if isinstance(value, list | tuple) else [value]
    if not options:
        raise ValueError(f'"{key}" lists no value, so nothing could match; name one or leave the key out.')
    if not all(option is None or isinstance(option, str) for option in options):
        raise ValueError(f'"{key}" takes a string, a list of strings, or null for absent.')
    return frozenset(options)


class Choice:
    """Finds the row of some dimension values without trying each: the match row with most keys, of equals the first,
    else the default.

    Rows are bits of a number, the one to prefer lowest. For each dimension it is known which rows each value leaves.
    """

    def __init__(self, match: Sequence[Where]) -> None:
        wheres: list[Where] = [{}, *match]
        self._order = sorted(range(len(wheres)), key=lambda index: -len(wheres[index]))
        names = {name for where in match for name in where}
        self._left = [(name, *_left(name, [wheres[index] for index in self._order])) for name in sorted(names)]

    def row(self, dimensions: Dimensions) -> int:
        left = -1  # every row
        for name, by_value, by_others in self._left:
            left &= by_value.get(dimensions.get(name), by_others)
        return self._order[(left & -left).bit_length() - 1]


def _left(name: str, wheres: Iterable[Where]) -> tuple[dict[str | None, int], int]:
    """The rows that a value of the dimension leaves, for each value that some row names; and for all other values."""
    named: dict[str | None, int] = defaultdict(int)
    indifferent = 0
    for place, where in enumerate(wheres):
        if name not in where:
            indifferent |= 1 << place
        for value in where.get(name, ()):
            named[value] |= 1 << place
    return {value: rows | indifferent for value, rows in named.items()}, indifferent


def select_row(terms: Terms, dimensions: Dimensions) -> int:
    """The index in `terms.rows` that prices these dimensions: the match row with most keys, else 0."""
    return terms.choice.row(dimensions)


# --- quantity -> amount -------------------------------------------------------------------------------------


class _Charge(NamedTuple):
    """What a scheme is given: the free part of a quantity, the rest, which costs something, and the events."""

    row: Row
    used: Decimal
    free: Decimal
    billable: Decimal
    events: int

    @property
    def enters_first_tier(self) -> bool:
        return self.row.is_default or self.used > 0

    def part(
        self,
        quantity: Decimal,
        unit_amount: Decimal,
        usage_amount: Decimal,
        *,
        flat: Decimal = ZERO,
        tier: int | None = None,
    ) -> Breakdown:
        amount = quantise(CONTEXT.add(usage_amount, flat))
        return Breakdown(self.row.where, tier, quantity, unit_amount, flat, amount)


def _charge(row: Row, used: Decimal, events: int) -> _Charge:
    free = min(used, row.included)
    return _Charge(row, used, free, CONTEXT.subtract(used, free), events)


def _per_unit(charge: _Charge) -> list[Breakdown]:
    row = charge.row
    return [charge.part(charge.billable, row.unit_amount, mul_div(charge.billable, row.unit_amount, row.per))]


def _graduated(charge: _Charge) -> list[Breakdown]:
    """Each tier's own quantity at its own amount."""
    parts: list[Breakdown] = []
    below = ZERO
    for number, tier in enumerate(charge.row.tiers, start=1):
        entered = charge.billable > below or (number == 1 and charge.enters_first_tier)
        if not entered:
            break
        top = charge.billable if tier.up_to is None else min(charge.billable, tier.up_to)
        parts.append(_tier_part(charge, number, tier, CONTEXT.subtract(top, below)))
        below = top
    return parts


def _volume(charge: _Charge) -> list[Breakdown]:
    """The whole quantity at the amount of the tier in which it ends."""
    if not charge.enters_first_tier:
        return []
    number, tier = next(
        (number, tier)
        for number, tier in enumerate(charge.row.tiers, start=1)
        if tier.up_to is None or charge.billable <= tier.up_to
    )
    return [_tier_part(charge, number, tier, charge.billable)]


def _tier_part(charge: _Charge, number: int, tier: Tier, quantity: Decimal) -> Breakdown:
    amount = mul_div(quantity, tier.unit_amount, charge.row.per)
    return charge.part(quantity, tier.unit_amount, amount, flat=tier.flat_amount, tier=number)


def _package(charge: _Charge) -> list[Breakdown]:
    """Started packages."""
    row = charge.row
    whole, rest = CONTEXT.divmod(charge.billable, CONTEXT.multiply(row.package_size, row.per))
    packages = CONTEXT.add(whole, _ONE) if rest else whole
    return [charge.part(charge.billable, row.package_amount, CONTEXT.multiply(packages, row.package_amount))]


def _percentage(charge: _Charge) -> list[Breakdown]:
    row = charge.row
    fixed = CONTEXT.multiply(Decimal(charge.events), row.fixed_amount)
    divisor = CONTEXT.multiply(_HUNDRED, row.per)
    usage_amount = mul_div(charge.billable, row.rate, divisor)
    return [charge.part(charge.billable, CONTEXT.divide(row.rate, _HUNDRED), usage_amount, flat=fixed)]


_SCHEMES: Final[Mapping[Scheme, Callable[[_Charge], list[Breakdown]]]] = {
    "per_unit": _per_unit,
    "graduated": _graduated,
    "volume": _volume,
    "package": _package,
    "percentage": _percentage,
}


def rate_row(row: Row, quantity: Decimal, events: int = 0) -> Rated:
    """What a cumulative quantity of one row costs, up to its maximum, without its minimum.

    Raises ValueError for a negative quantity.
    """
    if quantity < 0:
        raise ValueError("A quantity cannot be negative.")
    charge = _charge(row, quantity, events)
    parts = tuple(_SCHEMES[row.scheme](charge))
    rated = Rated(total(part.amount for part in parts), parts, partial(_in_words, charge, parts))
    if row.maximum_amount is not None and rated.amount > row.maximum_amount:
        return _limited(row, rated, row.maximum_amount, "maximum")
    return rated


def with_minimum(row: Row, rated: Rated) -> Rated:
    """The same, lifted to the row's minimum: what the period's end adds as a true-up."""
    if row.minimum_amount is not None and rated.amount < row.minimum_amount:
        return _limited(row, rated, row.minimum_amount, "minimum")
    return rated


def _limited(row: Row, rated: Rated, limit: Decimal, kind: Literal["minimum", "maximum"]) -> Rated:
    step = quantise(CONTEXT.subtract(limit, rated.amount))
    part = Breakdown(row.where, None, ZERO, ZERO, ZERO, step, kind)
    function = "max" if kind == "minimum" else "min"
    return Rated(
        amount=total([rated.amount, step]),
        breakdown=(*rated.breakdown, part),
        explain=lambda: f"{function}({rated.explanation}, {figure(limit)} {kind})",
    )


def rate(terms: Terms, usage: Iterable[Usage]) -> dict[int, Rated]:
    """Rate cumulative usage row by row: index in `terms.rows` -> rated.

    The default row is always there, because its first tier is entered from zero; a match row only with usage.
    """
    quantities: dict[int, Decimal] = {0: ZERO}
    events: dict[int, int] = defaultdict(int)
    for item in usage:
        index = select_row(terms, item.dimensions)
        quantities[index] = CONTEXT.add(quantities.get(index, ZERO), item.quantity)
        events[index] += item.events
    return {
        index: rate_row(terms.rows[index], quantity, events[index])
        for index, quantity in sorted(quantities.items())
        if index == 0 or quantity or events[index]
    }


def simulate(terms: Terms, usage: Iterable[Usage], prior: Iterable[Usage] = ()) -> Rated:
    """What usage would cost on top of prior usage, with minimums and maximums, over all rows."""
    usage, prior = list(usage), list(prior)
    after = _complete(terms, [*prior, *usage])
    if not any(item.quantity for item in prior):
        return _sum(after.values())
    before = _complete(terms, prior)
    return _sum(difference(after[index], before.get(index, NOTHING)) for index in after)


def _complete(terms: Terms, usage: Iterable[Usage]) -> dict[int, Rated]:
    return {index: with_minimum(terms.rows[index], rated) for index, rated in rate(terms, usage).items()}


def _sum(rated: Iterable[Rated]) -> Rated:
    parts = list(rated)
    said = [part for part in parts if part.amount or any(row.quantity for row in part.breakdown)] or parts[:1]
    return Rated(
        amount=total(part.amount for part in parts),
        breakdown=tuple(row for part in said for row in part.breakdown),
        explain=lambda: " + ".join(part.explanation for part in said),
    )


def joined(first: Rated, then: Rated) -> Rated:
    """Two amounts of one row that follow each other, as one."""
    parts = [part for part in (first, then) if part.breakdown]
    return Rated(
        amount=total((first.amount, then.amount)),
        breakdown=(*first.breakdown, *then.breakdown),
        explain=lambda: " + ".join(part.explanation for part in parts) or first.explanation,
    )


def difference(after: Rated, before: Rated) -> Rated:
    """After minus before, tier by tier; a volume price that reached another tier takes the old one back."""
    earlier = {(row.kind, row.tier): row for row in before.breakdown}
    later = {(row.kind, row.tier): row for row in after.breakdown}
    with exact():
        rows = [
            Breakdown(
                where=some.where,
                tier=some.tier,
                quantity=(new.quantity if new else ZERO) - (old.quantity if old else ZERO),
                unit_amount=some.unit_amount,
                flat_amount=(new.flat_amount if new else ZERO) - (old.flat_amount if old else ZERO),
                amount=(new.amount if new else ZERO) - (old.amount if old else ZERO),
                kind=some.kind,
            )
            for key in dict.fromkeys([*later, *earlier])
            for new, old in [(later.get(key), earlier.get(key))]
            if (some := new or old) is not None
        ]
    moved = tuple(row for row in rows if row.quantity or row.flat_amount or row.amount)
    return Rated(
        amount=total(row.amount for row in moved),
        breakdown=moved,
        explain=lambda: f"({after.explanation}) - ({before.explanation})" if before.breakdown else after.explanation,
    )


# --- grouped amounts ----------------------------------------------------------------------------------------


def split[K: Hashable](amount: Decimal, quantities: Mapping[K, Decimal]) -> dict[K, Decimal]:
    """Share a row's amount among its groups by quantity, so that the shares add up to it exactly.

    Shares are cut to 12 places and the remainder goes to the largest group (of equals, the one whose key
    sorts first as text), so no share turns negative by rounding.
    """
    if len(quantities) <= 1:
        return dict.fromkeys(quantities, amount)
    whole = total(quantities.values())
    shares = {
        key: mul_div(amount, quantity, whole).quantize(_STEP, rounding=ROUND_DOWN, context=CONTEXT) if whole else ZERO
        for key, quantity in quantities.items()
    }
    largest = min(quantities, key=lambda key: (-quantities[key], repr(key)))
    rest = CONTEXT.subtract(amount, total(shares.values()))
    shares[largest] = CONTEXT.add(shares[largest], rest)
    return shares


# --- words --------------------------------------------------------------------------------------------------


def figure(number: Decimal) -> str:
    """A number inside an explanation: every digit, thousands apart: "1,200", "0.0025"."""
    return format(Decimal(plain(number)), ",f")


def _in_words(charge: _Charge, parts: Sequence[Breakdown]) -> str:
    """The arithmetic of the parts of a charge."""
    row = charge.row
    match row.scheme:
        case "per_unit":
            return f"{_billable(charge)} x {figure(row.unit_amount)}"
        case "graduated":
            included = [f"{figure(charge.free)} included"] if charge.free and parts else []
            quantities = [figure(part.quantity) + _shown_per(row.per) for part in parts]
            return " + ".join([*included, *map(_tier_in_words, quantities, parts)]) or "0"
        case "volume":
            return _tier_in_words(_billable(charge), parts[0]) if parts else "0"
        case "package":
            return f"ceil({_billable(charge)} / {figure(row.package_size)}) x {figure(row.package_amount)}"
        case "percentage":
            fixed = f" + {charge.events:,} x {figure(row.fixed_amount)}" if row.fixed_amount else ""
            return f"{_billable(charge)} x {figure(row.rate)} %{fixed}"


def _billable(charge: _Charge) -> str:
    """For instance "1,200", "(1,500 - 1,000 included) / 1,000,000"."""
    text = figure(charge.used)
    if charge.free:
        text = f"({text} - {figure(charge.free)} included)"
    return text + _shown_per(charge.row.per)


def _tier_in_words(quantity: str, part: Breakdown) -> str:
    text = f"{quantity} x {figure(part.unit_amount)}"
    return f"{text} + {figure(part.flat_amount)} flat" if part.flat_amount else text


def _shown_per(per: Decimal) -> str:
    return "" if per == 1 else f" / {figure(per)}"
