"""From the rows of a CSV or JSONL file to the items of our API. Reads files; knows no database and no clock."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from billing.metering.counting import lookup
from billing.metering.decoding import Refusal
from billing.metering.identity import canonical, number

type FileFormat = Literal["csv", "jsonl"]
type Row = Callable[[str], Any]  # the value of a column, None when absent

ENVELOPE: Final = ("timestamp", "customer", "type")  # targets that are no properties
_CHUNK: Final = 1024 * 1024
_BEYOND_MICROSECONDS: Final = re.compile(r"([.,]\d{6})\d+")
_line = msgspec.json.Decoder(dict[str, Any], float_hook=number)


class UnreadableFile(Exception):  # noqa: N818 -- the file's state
    """The file or the mapping makes no sense as a whole."""


@dataclass(frozen=True, slots=True)
class Options:
    """What gives a row its meaning. `columns`: our field or property -> column (in JSONL a dotted path)."""

    format: FileFormat
    columns: Mapping[str, str]
    constants: Mapping[str, str]
    customer: str | None
    type: str | None
    timezone: str | None

    def digest(self) -> str:
        return hashlib.sha256(canonical(self)).hexdigest()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Which file it is, whatever its name, and roughly how many rows it has."""

    digest: str
    lines: int


def fingerprint(path: Path) -> Fingerprint:
    """SHA-256 of the content and the number of lines, in one pass."""
    digest, lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            lines += chunk.count(b"\n")
    return Fingerprint(digest.hexdigest(), lines)


def items(path: Path, options: Options, source: str) -> Iterator[tuple[int, bytes | Refusal]]:
    """Each row's number, from 1, and the event that it is as JSON, or why it is none."""
    read = _csv_rows if options.format == "csv" else _jsonl_rows
    # What is no UTF-8 is refused with its row, when it is encoded again.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for row_number, row in enumerate(read(file, options), start=1):
            try:
                yield row_number, row if isinstance(row, Refusal) else _item(row, options, source, row_number)
            except UnicodeEncodeError:
                yield row_number, Refusal("invalid_field", "The row is not UTF-8.")
            except Refusal as refusal:
                yield row_number, refusal


def _item(row: Row, options: Options, source: str, row_number: int) -> bytes:
    fields: dict[str, Any] = {"customer": options.customer, "type": options.type}
    properties: dict[str, Any] = dict(options.constants)
    for target, column in options.columns.items():
        value = row(column)
        if value is not None:
            (fields if target in ENVELOPE else properties)[target] = value
    if "timestamp" not in fields:
        raise Refusal("missing_field", "timestamp: The row has none.", "timestamp")
    fields["timestamp"] = _timestamp(fields["timestamp"], options.timezone)
    return canonical(fields | {"id": str(row_number), "source": source, "properties": properties})


def _timestamp(value: Any, timezone: str | None) -> str:
    """The instant in UTC, cut to microseconds. A time without offset is one of the given zone."""
    try:
        instant = datetime.fromisoformat(_BEYOND_MICROSECONDS.sub(r"\1", value.strip()))
        if instant.tzinfo is None:
            if timezone is None:
                raise Refusal("timestamp_without_offset", "timestamp: The time has no offset.", "timestamp")
            instant = instant.replace(tzinfo=ZoneInfo(timezone))
        return instant.astimezone(UTC).isoformat()
    except (AttributeError, ValueError, OverflowError) as error:
        sentence = "timestamp: Write times as 2026-11-23 10:00:00, with or without offset."
        raise Refusal("invalid_field", sentence, "timestamp") from error


# --- formats ------------------------------------------------------------------------------------------------------


def _csv_rows(file: Any, options: Options) -> Iterator[Row | Refusal]:
    reader = csv.reader(file)
    header = next(reader, None) or []
    if missing := sorted(set(options.columns.values()) - set(header)):
        raise UnreadableFile(f"The file has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}.")
    places = {name: place for place, name in enumerate(header)}
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refusal("invalid_field", f"The row cannot be read: {error}.")
            continue
        if len(cells) == len(header):
            yield lambda column, cells=cells: cells[places[column]] or None  # type: ignore[misc] # bound now
        elif cells:
            yield Refusal("invalid_field", f"The row has {len(cells)} columns, the header {len(header)}.")


def _jsonl_rows(file: Any, options: Options) -> Iterator[Row | Refusal]:
    for line in file:
        if not line.strip():
            continue
        try:
            fields = _line.decode(line)
        except (msgspec.MsgspecError, ValueError) as error:
            yield Refusal("invalid_field", f"The line is no JSON object: {error}.")
        else:
            yield lambda path, fields=fields: lookup(fields, path)  # type: ignore[misc] # bound now
