"""Exact amounts: one decimal context, one rounding rule, one way to read and to write a number.

Python's operators round to the *current* context (28 digits), which is too few for 10^18 with 12 places.
Arithmetic on amounts therefore happens inside `exact()`, or through the helpers here.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    InvalidOperation,
    Overflow,
    localcontext,
)
from functools import cache, reduce
from typing import Final

CONTEXT: Final = Context(
    prec=60,
    rounding=ROUND_HALF_UP,
    traps=[InvalidOperation, DivisionByZero, Overflow, FloatOperation],
)

PLACES: Final = 12  # of every stored amount: numeric(38,12)
LIMIT: Final = 10**18
ZERO: Final = Decimal(0)

# ISO 4217, active codes of money (no metals, funds or test codes).
_TWO_PLACES = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY
    COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR
    ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
    MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
    SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER
    ZAR ZMW ZWG
"""
_NO_PLACES = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE_PLACES = "BHD IQD JOD KWD LYD OMR TND"

EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(_TWO_PLACES.split(), 2),
    **dict.fromkeys(_NO_PLACES.split(), 0),
    **dict.fromkeys(_THREE_PLACES.split(), 3),
}

# A symbol only where it names one currency to every reader; a bare "$" is the US dollar everywhere else too.
_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_MAX_LENGTH = 200  # characters of a number in a string
_MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)


@contextmanager
def exact() -> Iterator[None]:
    """Do decimal arithmetic in CONTEXT; works as `with exact():` and as the decorator `@exact()`."""
    with localcontext(CONTEXT):
        yield


def is_currency(unit: str) -> bool:
    """Whether the unit is an ISO 4217 currency; any other unit ("credits", "tokens") is a custom one."""
    return unit in EXPONENTS


def exponent(unit: str) -> int:
    """Decimal places of a line in this unit: a currency's minor unit; 12 for a unit that is no currency.

    Credits have no coin, so a line in credits keeps every place that can be stored.
    """
    return EXPONENTS.get(unit, PLACES)


def quantise(amount: Decimal) -> Decimal:
    """The amount as stored: 12 places, half up, never a negative zero."""
    return _round(amount, PLACES)


def round_to_unit(amount: Decimal, unit: str) -> Decimal:
    """The amount rounded half up to the unit's places: the one rounding of a line."""
    return _round(amount, exponent(unit))


def _round(amount: Decimal, places: int) -> Decimal:
    return CONTEXT.plus(amount.quantize(_step(places), context=CONTEXT))


@cache
def _step(places: int) -> Decimal:
    return Decimal(1).scaleb(-places)


def mul_div(a: Decimal, b: Decimal, c: Decimal) -> Decimal:
    """a x b / c, multiplied first and divided last, so that only the division can be inexact."""
    return CONTEXT.divide(CONTEXT.multiply(a, b), c)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum; zero for none. `sum()` would round beyond 28 digits."""
    return reduce(CONTEXT.add, amounts, ZERO)  # most are of a few: entering a context takes longer


def plain(amount: Decimal) -> str:
    """The amount in plain notation without trailing zeros: "0.003", "1200", "0"; never "-0" or "1E+3"."""
    if not amount.is_finite():
        raise ValueError(f"{amount} is no amount.")
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if amount == 0 else text


def parse_decimal(value: object, *, places: int = PLACES, limit: int = LIMIT) -> Decimal:
    """Read a number exactly. Takes a string, an int or a Decimal; ValueError with a sentence otherwise.

    Refused: floats (already inexact), booleans, NaN, Infinity, more than `places` decimal places that are
    not zero, and anything beyond +-`limit`. A negative zero is read as zero.
    """
    number = _read(value)
    if not number.is_finite():
        raise ValueError("Send a finite number; NaN and Infinity are no amounts.")
    if number.copy_abs() > limit:
        raise ValueError(f"The number is too large; at most {plain(Decimal(limit))} is accepted.")
    if number != _round(number, places):
        raise ValueError(f"The number has too many decimal places; at most {places} are accepted.")
    return number if number else ZERO


def _read(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str) and len(value) <= _MAX_LENGTH and _NUMBER.fullmatch(value):
        return Decimal(value)
    raise ValueError('Send a decimal number as a string, such as "12.5".')


def counted(unit: str, amount: Decimal) -> str:
    """The unit's name behind an amount: 1 credit, 2 credits; of a currency or a symbol it is always the same."""
    is_plural = (
        unit.islower() and len(unit) > len("gas") and unit.endswith("s") and not unit.endswith(("ss", "us", "is"))
    )
    return unit[:-1] if is_plural and abs(amount) == 1 else unit


def display(amount: Decimal, unit: str, *, code: bool = False) -> str:
    """The amount for people: "$1,604.20", "JPY 1,605", "5,310 credits".

    `code=True` writes the ISO code instead of the symbol, for pages that show more than one currency.
    An amount that is not zero but would look like it is shown as "< $0.01" (below zero: "> -$0.01").
    A unit that is no currency is shown with at most two places.
    """
    currency = is_currency(unit)
    places = exponent(unit) if currency else 2
    rounded = _round(amount, places)
    hidden = rounded == 0 and amount != 0
    shown = _step(places) if hidden else rounded.copy_abs()
    text = f"{shown:,.{places}f}"
    if not currency and "." in text:
        text = text.rstrip("0").rstrip(".")
    text = (_MINUS if amount < 0 else "") + _named(text, shown, unit, code=code)
    return f"{'>' if amount < 0 else '<'} {text}" if hidden else text


def about(amount: Decimal, unit: str) -> str:
    """An estimate, for people: no cents from a hundred up, because they would claim a precision that it has not."""
    if amount.copy_abs() < 100:  # noqa: PLR2004 -- a hundred is no setting
        return display(amount, unit)
    return re.sub(r"\.0+(?!\d)", "", display(_round(amount, 0), unit))


def price(amount: Decimal, unit: str) -> str:
    """What one costs, for people: every digit, and at least a currency's minor unit: "$5.00", "$0.0025", "1 credit"."""
    places = len(plain(amount).partition(".")[2])
    text = f"{amount.copy_abs():,.{max(places, EXPONENTS.get(unit, 0))}f}"
    return (_MINUS if amount < 0 else "") + _named(text, amount, unit)


def _named(text: str, amount: Decimal, unit: str, *, code: bool = False) -> str:
    """The digits with the unit's symbol, code or name."""
    if not is_currency(unit):
        return f"{text} {counted(unit, amount)}"
    return _SYMBOLS[unit] + text if unit in _SYMBOLS and not code else f"{unit} {text}"
