"""Spend as CSV: the finest rows of the page, which sum to each of its numbers."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from billing import money
from billing.rating.queries import SeriesRow
from dashboard.reading import Reading

# A spreadsheet takes a cell that begins like this for a formula. Amounts are ours and stay numbers.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    header: tuple[str, ...]
    rows: Iterable[tuple[str, ...]]


def table(reading: Reading) -> Table:
    """One row per day, dimension values and price. Instants carry the customer's offset; amounts are exact."""
    interval = reading.interval
    header = ("start", "end", *reading.dimensions, "meter", "price", "quantity", "quantity_unit", "amount", "unit")
    first, last = reading.local(interval.start), reading.local(interval.end - timedelta(microseconds=1))
    return Table(
        name=f"{reading.customer.key}-spend-{first:%Y-%m-%d}-to-{last:%Y-%m-%d}.csv",
        header=tuple(map(_safe, header)),
        rows=[_cells(reading, row) for row in reading.groups_by_day],
    )


def _cells(reading: Reading, row: SeriesRow) -> tuple[str, ...]:
    meter = reading.meters.get(row.group["meter"])
    return (
        reading.local(row.start).isoformat(),
        reading.local(row.end).isoformat(),
        *(_safe(row.group[dimension] or "") for dimension in reading.dimensions),
        _safe(row.group["meter"] or ""),
        _safe(row.group["price"] or ""),
        "" if row.quantity is None else money.plain(row.quantity),
        _safe(meter.unit) if meter and row.quantity is not None else "",
        money.plain(row.amount),
        reading.unit,
    )


def _safe(text: str) -> str:
    """The value as a spreadsheet shows it, never as a formula that it runs."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


class _Echo:
    """A file for csv.writer that hands each line back."""

    def write(self, line: str) -> str:
        return line


def lines(table: Table) -> Iterator[str]:
    """The file line by line (RFC 4180)."""
    writer = csv.writer(_Echo())
    yield writer.writerow(table.header)
    for row in table.rows:
        yield writer.writerow(row)
