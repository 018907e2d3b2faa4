"""Usage from a file: CSV or JSONL, whatever its columns are called."""

import sys
from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import batched
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Customer
from accounts.zones import zone_names
from billing.clock import now
from billing.metering import importing, queries, services
from billing.metering.decoding import Refusal
from billing.metering.models import ImportRun

ROWS_AT_ONCE = 1_000
EXAMPLE = """
example:
  python manage.py import_usage usage.csv --customer acme --type llm.completion --timezone UTC \\
      --map timestamp=TIMESTAMP input_tokens=ContextTokens output_tokens=GeneratedTokens --set model=large-2

A row is imported once, however often you run this: its identity is the file's content and the row's number.
An interrupted import goes on where it stopped.
"""


class Command(BaseCommand):
    help = "Import usage from a CSV or JSONL file."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        shape = {"formatter_class": RawDescriptionHelpFormatter, "epilog": EXAMPLE}
        return super().create_parser(prog_name, subcommand, **kwargs | shape)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--customer", help="Key of the customer, unless a column is mapped to it.")
        parser.add_argument("--type", help="Type of the events, unless a column is mapped to it.")
        parser.add_argument(
            "--map",
            nargs="+",
            action="extend",
            required=True,
            metavar="FIELD=COLUMN",
            help="timestamp, customer, type or any property, and the column (in JSONL the dotted path) it comes from.",
        )
        parser.add_argument(
            "--set", nargs="+", action="extend", default=[], metavar="PROPERTY=VALUE", help="The same for each row."
        )
        parser.add_argument("--timezone", help="Of times without offset, such as Europe/Berlin.")
        parser.add_argument("--format", choices=["csv", "jsonl"], help="By the file's name when not given.")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.is_file():
            raise CommandError(f"There is no file {path}.")
        meaning = self._meaning(path, options)
        file = importing.fingerprint(path)
        run = services.start_import(file=file, options=meaning, name=path.name, at=now())
        if run.finished_at:
            self.stdout.write(f"{path.name} was imported on {run.finished_at:%Y-%m-%d %H:%M} UTC; nothing was added.")
        else:
            self._import(path, meaning, run, file.lines)
        self._report(run)

    def _meaning(self, path: Path, options: Mapping[str, Any]) -> importing.Options:
        meaning = importing.Options(
            format=options["format"] or ("jsonl" if path.suffix in {".jsonl", ".ndjson"} else "csv"),
            columns=_pairs("--map", options["map"]),
            constants=_pairs("--set", options["set"]),
            customer=options["customer"],
            type=options["type"],
            timezone=options["timezone"],
        )
        if "timestamp" not in meaning.columns:
            raise CommandError("Map the time of each row: --map timestamp=COLUMN.")
        for name in ("customer", "type"):
            if options[name] is None and name not in meaning.columns:
                raise CommandError(f"Say --{name}, or map a column to it.")
        if meaning.customer is not None and not Customer.objects.filter(key=meaning.customer).exists():
            raise CommandError(f"There is no customer {meaning.customer}. Make it first.")
        if meaning.timezone is not None and meaning.timezone not in zone_names():
            raise CommandError(f"{meaning.timezone} is no IANA time zone. Use one like Europe/Berlin.")
        return meaning

    def _import(self, path: Path, meaning: importing.Options, run: ImportRun, lines: int) -> None:
        if run.next_row:
            self.stdout.write(f"Going on after row {run.next_row:,}.")
        came_to: Counter[str] = Counter()
        progress = Progress(lines)
        try:
            rows = (row for row in importing.items(path, meaning, run.digest) if row[0] > run.next_row)
            for batch in batched(rows, ROWS_AT_ONCE):
                _insist_on_a_zone(batch)
                answer = services.import_rows(run=run, rows=batch, at=now()).as_dict()
                came_to.update({name: number for name, number in answer.items() if name != "results"})
                progress.show(batch[-1][0])
        except importing.UnreadableFile as error:
            raise CommandError(str(error)) from error
        finally:
            progress.end()
        services.finish_import(run=run, at=now())
        self.stdout.write(
            ", ".join(f"{number:,} {name}" for name, number in came_to.items()) or "The file has no rows."
        )

    def _report(self, run: ImportRun) -> None:
        run.refresh_from_db()
        self.stdout.write(f"In all {run.accepted:,} rows of {run.name} are imported, {run.refused:,} are not.")
        for code, items, detail, sample in queries.refused_of_source(run.digest):
            self.stdout.write(f"  {items:,} x {code}: {detail}" + (f"\n      for instance {sample}" if sample else ""))


def _pairs(option: str, words: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise CommandError(f"{option} {word}: Write NAME=VALUE.")
        pairs[name] = value
    return pairs


def _insist_on_a_zone(batch: Iterable[tuple[int, Any]]) -> None:
    """A file of naive times would be refused row by row, and each row is refused for good: better to stop and ask."""
    for row, item in batch:
        if isinstance(item, Refusal) and item.code == "timestamp_without_offset":
            raise CommandError(f"Row {row} has a time without offset. Say --timezone, for instance --timezone UTC.")


class Progress:
    """One line that fills; in a log, one line per tenth."""

    WIDTH = 40

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self.told = -1
        self.live = sys.stderr.isatty()

    def show(self, done: int) -> None:
        share = min(done / self.total, 1.0)
        if self.live:
            bar = "#" * round(share * self.WIDTH)
            sys.stderr.write(f"\r[{bar:<{self.WIDTH}}] {share:4.0%} {done:,} rows")
            sys.stderr.flush()
        elif (tenth := int(share * 10)) > self.told:
            self.told = tenth
            sys.stderr.write(f"{tenth * 10} % ({done:,} rows)\n")

    def end(self) -> None:
        if self.live:
            sys.stderr.write("\n")
