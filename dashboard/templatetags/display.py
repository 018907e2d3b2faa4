"""How numbers look on a page. Amounts stay exact until here, and the exact value goes along in `title`."""

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from django import template

from billing import money
from billing.pricing.schemes import figure

register = template.Library()

_HUNDRED = Decimal(100)
_TENTH = Decimal("0.1")
_MILLIONTH = Decimal("0.000001")
_SCALES = ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"))
_NBSP = "\N{NO-BREAK SPACE}"


@register.filter(name="money")
def amount_text(amount: Decimal, unit: str) -> str:
    """$1,604.20 for a currency, 5,310 credits for any other unit."""
    return money.display(amount, unit)


@register.filter
def price(amount: Decimal, unit: str) -> str:
    """What one costs, with every digit: $0.0025."""
    return money.price(amount, unit)


@register.filter
def small(amount: Decimal, unit: str) -> str:
    """What one event or posting comes to, of which much is less than a coin: $0.000905, to a millionth."""
    rounded = _round(amount, _MILLIONTH)
    if rounded or not amount:
        return money.price(rounded, unit)
    return f"{'>' if amount < 0 else '<'} {money.price(_MILLIONTH.copy_sign(amount), unit)}"


@register.filter(name="figure")
def figure_text(number: Decimal) -> str:
    """Every digit, thousands apart: for arithmetic that is read."""
    return figure(number)


@register.filter
def number(amount: Decimal, unit: str) -> str:
    """As `money`, without the name of a unit that is no currency: for columns whose heading says it."""
    return _without_name(money.display(amount, unit), unit)


@register.filter
def counted(unit: str, amount: Decimal) -> str:
    """1 credit, 2 credits: the name of a unit that an amount stands before."""
    return money.counted(unit, amount)


@register.filter
def signed(amount: Decimal, unit: str) -> str:
    """A movement: what came has a plus, what went a minus."""
    return f"+{money.display(amount, unit)}" if amount > 0 else money.display(amount, unit)


@register.filter
def title_of_unit(unit: str) -> str:
    """How a card of this unit is headed: "Credits", "Prepaid USD"."""
    return f"Prepaid {unit}" if money.is_currency(unit) else f"{unit[:1].upper()}{unit[1:]}"


@register.filter
def about(amount: Decimal, unit: str) -> str:
    """An estimate."""
    return money.about(amount, unit)


@register.filter
def about_number(amount: Decimal, unit: str) -> str:
    """The same, without the name of a unit that is no currency: for the lower end of a range."""
    return _without_name(money.about(amount, unit), unit)


@register.filter
def exact(amount: Decimal) -> str:
    """Every digit, plain notation: for `title`, `value` and tables that are copied."""
    return money.plain(amount)


@register.filter
def compact(quantity: Decimal) -> str:
    """812.4 M from a million up, grouped digits below; exact digits belong beside it in a title."""
    if 0 < abs(quantity) < _TENTH:
        return f"<{_NBSP}0.1"
    for scale, letter in _SCALES:
        if abs(quantity) >= scale:
            return f"{_round(quantity / scale, _TENTH):,f}{_NBSP}{letter}"
    return f"{_round(quantity, Decimal(1) if abs(quantity) >= _HUNDRED else _TENTH).normalize():,f}"


@register.filter
def plural(unit: str, quantity: Decimal) -> str:
    """1 token, 2 tokens, 2 searches; symbols and units that end in "s" stay (GB, seconds)."""
    if quantity == 1 or not unit.islower() or unit.endswith("s"):
        return unit
    return f"{unit}es" if unit.endswith(("ch", "sh", "x")) else f"{unit}s"


@register.filter
def percent(value: Decimal) -> str:
    """61 % from one percent up, two digits below it, so that a small share is not shown as nothing."""
    if value == 0:
        return f"0{_NBSP}%"
    if abs(value) < _TENTH:
        return f"<{_NBSP}0.1{_NBSP}%"
    places = Decimal(1) if abs(value) >= 10 else _TENTH  # noqa: PLR2004 -- two significant digits
    return f"{_round(value, places):,f}{_NBSP}%"


@register.filter
def last_day(end: datetime) -> datetime:
    """The last instant inside a half-open period, so that one ending at midnight names the day before."""
    return end - timedelta(microseconds=1)


def _without_name(text: str, unit: str) -> str:
    return text.removesuffix(f" {unit}").removesuffix(f" {money.counted(unit, Decimal(1))}")


def _round(value: Decimal, places: Decimal) -> Decimal:
    return value.quantize(places, rounding=ROUND_HALF_UP)
