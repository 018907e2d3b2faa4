"""What a part of a billing period gets of an amount that is meant for a whole one. No database, no clock."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from billing.money import CONTEXT, ZERO, mul_div, quantise, round_to_unit
from billing.periods import Interval
from billing.pricing.schemes import Row, Terms

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a whole billing period, by seconds.

    Amounts are shared cumulatively: through the end of the part less through its start, each rounded once. So parts
    that make up the whole get exactly the whole, however it is cut.
    """

    part: Interval
    whole: Interval

    def __str__(self) -> str:
        return f"{_seconds(self.part.duration):,} / {_seconds(self.whole.duration):,} seconds"

    @property
    def is_whole(self) -> bool:
        return self.part == self.whole

    def of(self, amount: Decimal) -> Decimal:
        """To 12 places: an included quantity, a limit, credits."""
        return self._rounded(amount, quantise)

    def of_fee(self, amount: Decimal, currency: str) -> Decimal:
        """In minor units of the currency: a base fee."""
        return self._rounded(amount, partial(round_to_unit, unit=currency))

    def _rounded(self, amount: Decimal, rounded: Callable[[Decimal], Decimal]) -> Decimal:
        whole = _seconds(self.whole.duration)
        through_end, through_start = (
            rounded(mul_div(amount, _seconds(at - self.whole.start), whole)) for at in (self.part.end, self.part.start)
        )
        return CONTEXT.subtract(through_end, through_start)


def _seconds(length: timedelta) -> Decimal:
    return Decimal(length // _SECOND)


def shared(terms: Terms, share: Share) -> Terms:
    """The terms for a part of a billing period: `included`, minimum and maximum in proportion; bounds of tiers stay,
    because quantities begin anew."""
    if share.is_whole:
        return terms
    return Terms(
        terms.key, terms.unit, _shared(terms.default, share), tuple(_shared(row, share) for row in terms.match)
    )


def _shared(row: Row, share: Share) -> Row:
    return replace(
        row,
        included=share.of(row.included),
        minimum_amount=None if row.minimum_amount is None else share.of(row.minimum_amount),
        maximum_amount=None if row.maximum_amount is None else share.of(row.maximum_amount),
    )


def free(terms: Terms) -> Terms:
    """The terms in a trial: everything is counted and nothing costs."""
    rows = [replace(row, minimum_amount=None, maximum_amount=ZERO) for row in terms.rows]
    return Terms(terms.key, terms.unit, rows[0], tuple(rows[1:]))
