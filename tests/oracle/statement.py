"""What a billing period comes to, computed from raw events and the documents of the HTTP API, in fractions.

No counters, no cumulative sums, no cells, no shared code. It knows one whole billing period under one plan version, and
grants that are usable all through it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

CENT, PICO = 100, 10**12
ZERO = Fraction(0)

type Document = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A row of a price that was used: how much, and what it costs in the price's unit."""

    price: str
    row: int
    unit: str
    quantity: Fraction
    amount: Fraction


@dataclass(frozen=True)
class Statement:
    lines: list[Line]
    overage: dict[tuple[str, int], Fraction]  # in the currency, by price and row
    true_ups: Fraction
    discounts: Fraction
    amount_due: Fraction


def statement(
    *,
    currency: str,
    meters: Iterable[Document],
    version: Document,
    events: Sequence[Document],
    void: Iterable[str] = (),
    grants: Mapping[str, str] | None = None,
    percent_off: str = "0",
) -> Statement:
    """`void`: ids of events that do not count; `grants`: by unit, what was given beside the plan's own credits."""
    by_key = {meter["key"]: meter for meter in meters}
    counting = [event for event in events if event["id"] not in set(void)]
    lines = [line for price in version["prices"] for line in _lines(price, by_key[price["meter"]], counting)]
    left = _given(version, grants or {})
    beyond = {(line.price, line.row): _beyond(line, left) for line in lines}
    rates = {term["unit"]: Fraction(term["unit_amount"]) for term in version["overage"]}
    overage = {
        (line.price, line.row): _rounded(beyond[line.price, line.row] * rates[line.unit], PICO)
        for line in lines
        if line.unit in rates and beyond[line.price, line.row]
    }
    in_money = [line for line in lines if line.unit == currency]
    gross = [line.amount for line in in_money] + list(overage.values())
    due = [beyond[line.price, line.row] for line in in_money] + list(overage.values())
    fee = Fraction(version["base_fee"])
    true_ups = _true_ups(version, lines, rates | {currency: Fraction(1)}, sum(map(_cents, gross), fee))
    payable = sum(map(_cents, due), fee) + true_ups
    discounts = _cents(payable * Fraction(percent_off) / 100)
    return Statement(lines, overage, true_ups, discounts, payable - discounts)


# --- usage ------------------------------------------------------------------------------------------------------


def _lines(price: Document, meter: Document, events: Iterable[Document]) -> list[Line]:
    """The default row, and every match row that was used."""
    used: dict[int, list[Fraction]] = defaultdict(list)
    for event in events:
        properties = event["properties"]
        if event["type"] == meter["event_type"] and all(_passes(one, properties) for one in meter.get("filters", [])):
            quantity = 1 if meter["aggregation"] == "count" else properties.get(meter["value"])
            if quantity is not None:
                used[_row_of(price, properties)].append(Fraction(str(quantity)))
    rows = [price, *price["match"]]
    return [
        Line(price["key"], row, price["unit"], sum(used[row], ZERO), _cost(price, rows[row], used[row], row))
        for row in sorted({0, *used})
    ]


def _passes(one: Document, properties: Document) -> bool:
    assert one["op"] == "eq", "the models need no other"
    return str(properties.get(one["property"])) == str(one["value"])


def _row_of(price: Document, properties: Document) -> int:
    fitting = [
        (len(row["where"]), -number)
        for number, row in enumerate(price["match"], 1)
        if all(_one_of(properties.get(name), wanted) for name, wanted in row["where"].items())
    ]
    return -max(fitting)[1] if fitting else 0


def _one_of(value: object, wanted: object) -> bool:
    return value in (wanted if isinstance(wanted, list) else [wanted])


# --- schemes ----------------------------------------------------------------------------------------------------


def _cost(price: Document, row: Document, quantities: Sequence[Fraction], number: int) -> Fraction:
    quantity = sum(quantities, ZERO)
    billable = max(quantity - Fraction(row.get("included", 0)), ZERO)
    per = Fraction(price["per"])
    if price["scheme"] == "per_unit":
        amount = _rounded(billable * Fraction(row["unit_amount"]) / per, PICO)
    elif price["scheme"] == "graduated":
        amount = _graduated(row["tiers"], billable, per, entered=number == 0 or quantity > 0)
    elif price["scheme"] == "volume":
        amount = _volume(row["tiers"], billable, per, entered=number == 0 or quantity > 0)
    elif price["scheme"] == "package":
        amount = ceil(billable / (Fraction(row["package_size"]) * per)) * Fraction(row["package_amount"])
    else:
        amount = billable * Fraction(row["rate"]) / 100 / per + len(quantities) * Fraction(row["fixed_amount"])
    most = row.get("maximum_amount")
    return amount if most is None else min(amount, Fraction(most))


def _graduated(tiers: Iterable[Document], billable: Fraction, per: Fraction, *, entered: bool) -> Fraction:
    amount, below = ZERO, ZERO
    for tier in tiers:
        if not entered:
            break
        top = billable if tier["up_to"] is None else min(billable, Fraction(tier["up_to"]))
        part = (top - below) * Fraction(tier["unit_amount"]) / per
        amount += _rounded(part + Fraction(tier["flat_amount"]), PICO)
        entered, below = billable > top, top
    return amount


def _volume(tiers: Iterable[Document], billable: Fraction, per: Fraction, *, entered: bool) -> Fraction:
    if not entered:
        return ZERO
    tier = next(tier for tier in tiers if tier["up_to"] is None or billable <= Fraction(tier["up_to"]))
    return _rounded(billable * Fraction(tier["unit_amount"]) / per + Fraction(tier["flat_amount"]), PICO)


# --- what is paid, and by whom ----------------------------------------------------------------------------------


def _given(version: Document, grants: Mapping[str, str]) -> dict[str, Fraction]:
    left: dict[str, Fraction] = defaultdict(Fraction)
    for term in version["credits"]:
        left[term["unit"]] += Fraction(term["amount"])
    for unit, amount in grants.items():
        left[unit] += Fraction(amount)
    return left


def _beyond(line: Line, left: dict[str, Fraction]) -> Fraction:
    """What no grant pays: lines take in their order."""
    paid = min(line.amount, left[line.unit])
    left[line.unit] -= paid
    return line.amount - paid


def _true_ups(version: Document, lines: Iterable[Line], rates: Mapping[str, Fraction], charged: Fraction) -> Fraction:
    """Rows first, then the whole."""
    prices = {price["key"]: price for price in version["prices"]}
    added = ZERO
    for line in lines:
        least = [prices[line.price], *prices[line.price]["match"]][line.row].get("minimum_amount")
        if least is not None and line.unit in rates:
            added += max(_cents(Fraction(least) * rates[line.unit]) - _cents(line.amount * rates[line.unit]), ZERO)
    least = version["minimum_spend"]
    return added if least is None else added + max(Fraction(least) - charged - added, ZERO)


def _cents(amount: Fraction) -> Fraction:
    return _rounded(amount, CENT)


def _rounded(amount: Fraction, steps: int) -> Fraction:
    """Half up; amounts are not negative."""
    return Fraction(floor(amount * steps + Fraction(1, 2)), steps)


def plain(amount: Fraction) -> Decimal:
    """As a decimal: every amount here is a whole number of pico-units."""
    return Decimal(int(amount * PICO)).scaleb(-12)
