"""Spend as CSV: the finest rows of the page, which sum to each of its numbers."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from accounts.models import Customer
from billing import money
from billing.credits.journal import every_entry, signed
from billing.credits.models import LedgerEntry
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
        header=tuple(map(safe, header)),
        rows=[_cells(reading, row) for row in reading.groups_by_day],
    )


def _cells(reading: Reading, row: SeriesRow) -> tuple[str, ...]:
    meter = reading.meters.get(row.group["meter"])
    return (
        reading.local(row.start).isoformat(),
        reading.local(row.end).isoformat(),
        *(safe(row.group[dimension] or "") for dimension in reading.dimensions),
        safe(row.group["meter"] or ""),
        safe(row.group["price"] or ""),
        "" if row.quantity is None else money.plain(row.quantity),
        safe(meter.unit) if meter and row.quantity is not None else "",
        money.plain(row.amount),
        reading.unit,
    )


def safe(text: str) -> str:
    """The value as a spreadsheet shows it, never as a formula that it runs."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


LEDGER_HEADER = (
    "recorded_at",
    "effective_at",
    "transaction",
    "code",
    "account",
    "grant",
    "grant_name",
    "meter",
    "price",
    "match",
    "period_start",
    "segment_start",
    "amount",
    "unit",
)


def ledger_table(customer: Customer, timezone: str) -> Table:
    """One row per entry on a grant (or on overage), newest first. Per unit those on grants sum to what they hold."""
    zone = ZoneInfo(timezone)
    return Table(
        name=f"{customer.key}-credits.csv",
        header=LEDGER_HEADER,
        rows=(_ledger_cells(entry, zone) for entry in every_entry(customer)),
    )


def _ledger_cells(entry: LedgerEntry, zone: ZoneInfo) -> tuple[str, ...]:
    transaction, account, cell = entry.transaction, entry.account, entry.cell
    grant = account.grant
    return (
        transaction.recorded_at.astimezone(zone).isoformat(),
        transaction.effective_at.astimezone(zone).isoformat(),
        transaction.public_id,
        transaction.code,
        account.kind,
        grant.public_id if grant else "",
        safe(grant.reason or grant.get_kind_display()) if grant else "",
        safe(cell.price.meter.key) if cell else "",
        safe(cell.price.key) if cell else "",
        str(cell.row) if cell else "",
        cell.period.starts_at.astimezone(zone).isoformat() if cell else "",
        cell.segment_starts_at.astimezone(zone).isoformat() if cell else "",
        money.plain(signed(entry)),
        safe(account.unit),
    )


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
