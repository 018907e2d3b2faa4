"""What is said between us and a payment provider."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Final

from billing.money import CONTEXT, exponent

# Where cards pay in coarser coins than ISO 4217's: docs.stripe.com/currencies, "Zero-decimal" and "Three-decimal".
_PLACES: Final = {"MGA": 0, **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 2)}


def payable(amount: Decimal, currency: str, rounding: str = ROUND_HALF_UP) -> Decimal:
    """The amount rounded to what a card can pay."""
    step = Decimal(1).scaleb(-_PLACES.get(currency, exponent(currency)))
    return amount.quantize(step, rounding=rounding, context=CONTEXT)


class Progress(StrEnum):
    WAITING = "waiting"
    PAID = "paid"
    FAILED = "failed"
    NEEDS_CUSTOMER = "needs customer"


@dataclass(frozen=True, slots=True)
class Card:
    """What may be charged without the customer: whose it is there, its name there, and how its owner knows it."""

    reference: str
    payment_method: str
    label: str


@dataclass(frozen=True, slots=True)
class Started:
    """The provider's name of a payment page, and where it is (nowhere: an operator says when it is paid)."""

    reference: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a payment so far; `card` is the one that was saved with it."""

    progress: Progress
    payment: str = ""
    receipt_url: str = ""
    failure: str = ""
    card: Card | None = None


class Unavailable(Exception):  # noqa: N818 -- an answer
    """The provider cannot be asked now. What was asked may be asked again."""


class Refused(Exception):  # noqa: N818 -- an answer
    """The provider does not do this, and why."""
