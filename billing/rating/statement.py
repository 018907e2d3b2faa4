"""What a billing period comes to: a pure function of usage, fees, minimums and what grants paid. No database, no clock.

Spend stays exact until here. A charge is rounded once, half up, after what grants paid of it is taken off; nothing is
carried to the next one. What the rounding adds or takes is a row of its own, so that

    usage + fees + true_ups + late_adjustments - discounts - credits_applied + tax + rounding = amount_due
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.money import CONTEXT, ZERO, exact, round_to_unit, total
from billing.pricing.coupons import Discount, Offer, discounts


@dataclass(frozen=True, slots=True)
class Charge[S]:
    """Something that costs. `amount` is exact, `credits` is what grants paid of it, `part` the plan segment it is of.

    `source` is what it was made from; the statement carries it along and does not look at it.
    """

    source: S
    amount: Decimal
    credits: Decimal = ZERO
    part: Hashable = None


@dataclass(frozen=True, slots=True)
class Minimum[S]:
    """What something costs at least. `reached`: what it costs by itself; None for all that is charged in the part."""

    source: S
    amount: Decimal
    part: Hashable = None
    reached: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Row[S]:
    """A charge on the statement: `rounded` is the amount in whole minor units, `due` what grants leave of it."""

    source: S
    amount: Decimal
    credits: Decimal
    rounded: Decimal
    due: Decimal
    part: Hashable


@dataclass(frozen=True, slots=True)
class Statement[S]:
    """Everything in `unit`. Amounts of usage and late adjustments are exact, all others whole minor units.

    `true_ups` of a period that still runs are what would be due if nothing more were used. Keys of the shares of
    discounts are places in `rows`.
    """

    unit: str
    usage_rows: Sequence[Row[S]]
    fee_rows: Sequence[Row[S]]
    true_up_rows: Sequence[Row[S]]
    late_rows: Sequence[Row[S]]
    discount_rows: Sequence[Discount[int]]

    @property
    def rows(self) -> list[Row[S]]:
        return [*self.usage_rows, *self.fee_rows, *self.true_up_rows, *self.late_rows]

    @property
    def usage(self) -> Decimal:
        """Spend: equal to the series, the CSV and the budget's number, to the last place."""
        return _amounts(self.usage_rows)

    @property
    def fees(self) -> Decimal:
        return _amounts(self.fee_rows)

    @property
    def true_ups(self) -> Decimal:
        return _amounts(self.true_up_rows)

    @property
    def late_adjustments(self) -> Decimal:
        return _amounts(self.late_rows)

    @property
    def discounts(self) -> Decimal:
        return total(discount.amount for discount in self.discount_rows)

    @property
    def credits_applied(self) -> Decimal:
        return total(row.credits for row in self.rows)

    @property
    def tax(self) -> Decimal:
        """None: amounts are net."""
        return ZERO

    @property
    @exact()
    def rounding(self) -> Decimal:
        """At most half a minor unit per row."""
        return total(row.due - (row.amount - row.credits) for row in self.rows)

    @property
    @exact()
    def amount_due(self) -> Decimal:
        return total(row.due for row in self.rows) - self.discounts + self.tax


def statement[S](
    unit: str,
    *,
    usage: Iterable[Charge[S]],
    fees: Iterable[Charge[S]] = (),
    late: Iterable[Charge[S]] = (),
    minimums: Iterable[Minimum[S]] = (),
    offers: Iterable[Offer] = (),
) -> Statement[S]:
    """The statement of one unit.

    A minimum that is not reached adds a true-up, so that the minimum is met in whole minor units; first the minimums of
    single rows, then those of all that is charged in a part: usage, fees and the true-ups of its rows, before grants
    and discounts. Coupons discount what grants leave to pay, of whatever kind.
    """
    usage_rows, fee_rows, late_rows = ([_row(charge, unit) for charge in charges] for charges in (usage, fees, late))
    true_ups: list[Row[S]] = []
    for minimum in sorted(minimums, key=lambda minimum: minimum.reached is None):
        reached = minimum.reached
        if reached is None:
            reached = total(row.rounded for row in (*usage_rows, *fee_rows, *true_ups) if row.part == minimum.part)
        lack = CONTEXT.subtract(round_to_unit(minimum.amount, unit), round_to_unit(reached, unit))
        if lack > 0:
            true_ups.append(_row(Charge(minimum.source, lack, part=minimum.part), unit))
    due = {number: row.due for number, row in enumerate((*usage_rows, *fee_rows, *true_ups, *late_rows))}
    return Statement(unit, usage_rows, fee_rows, true_ups, late_rows, discounts(offers, due, unit))


def _row[S](charge: Charge[S], unit: str) -> Row[S]:
    return Row(
        source=charge.source,
        amount=charge.amount,
        credits=charge.credits,
        rounded=round_to_unit(charge.amount, unit),
        due=round_to_unit(CONTEXT.subtract(charge.amount, charge.credits), unit),
        part=charge.part,
    )


def _amounts[S](rows: Iterable[Row[S]]) -> Decimal:
    return total(row.amount for row in rows)
