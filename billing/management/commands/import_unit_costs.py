"""`manage.py import_unit_costs --provider openai --meter input_tokens output_tokens`: list prices as unit costs.

Without --apply it only says what it would record. A second run records nothing.
"""

from argparse import RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.admin_pages import sentences
from billing.clock import now
from billing.metering.models import Meter
from billing.metering.queries import used_values
from billing.periods import quarter_floor
from billing.pricing import list_prices
from billing.pricing.list_prices import NotInstalledError, PriceList, Proposal, UnknownNameError
from billing.pricing.schemes import figure
from billing.pricing.where import format_where

SEEN: Final = timedelta(days=90)
EXAMPLE: Final = """
example:
  python manage.py import_unit_costs --provider openai \\
      --meter input_tokens output_tokens cached_tokens=cache_read_tokens --map large-2=gpt-4.1 --from 2026-11-01

Every value of the dimension that was used in the last 90 days is looked up as the name of a model; --map says which
model another name stands for. A request's discounts and tiers are not in a list price.
"""


class Command(BaseCommand):
    help = "Record list prices of models as unit costs."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        shape = {"formatter_class": RawDescriptionHelpFormatter, "epilog": EXAMPLE}
        return super().create_parser(prog_name, subcommand, **kwargs | shape)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--provider", required=True, help="Whose prices, for instance openai or anthropic.")
        parser.add_argument(
            "--meter",
            nargs="+",
            action="extend",
            required=True,
            metavar="METER[=UNIT]",
            help="Key of a meter and what it counts, unless its key says that: input_tokens, cache_read_tokens ...",
        )
        parser.add_argument("--dimension", default="model", help="What tells the models apart (model).")
        parser.add_argument("--map", nargs="+", action="extend", default=[], metavar="VALUE=MODEL")
        parser.add_argument("--from", dest="effective", help="A day or instant of UTC; now when not given.")
        parser.add_argument("--apply", action="store_true", help="Record them.")

    def handle(self, *args: Any, **options: Any) -> None:
        at = now()
        effective_at = _instant(options["effective"]) if options["effective"] else at
        meters = dict(_meters(options["meter"], options["dimension"]))
        named = dict(_pairs("--map", options["map"]))
        seen = {value for meter in meters for value in used_values(meter, options["dimension"], at - SEEN)}
        try:
            proposals = list_prices.propose(
                PriceList(options["provider"], effective_at),
                meters=meters,
                dimension=options["dimension"],
                models={value: named.get(value, value) for value in seen | named.keys()},
                effective_at=effective_at,
            )
        except (NotInstalledError, UnknownNameError) as error:
            raise CommandError(str(error)) from None
        self._say(proposals, quarter_floor(effective_at))
        if options["apply"]:
            self._apply(proposals, effective_at, at)
        elif any(one.kind in ("new", "changed") for one in proposals):
            self.stdout.write("Nothing is recorded yet: say --apply.")

    def _say(self, proposals: list[Proposal], effective_at: datetime) -> None:
        for one in proposals:
            self.stdout.write(f"{one.kind:8} {one.meter.key}, {format_where(one.where)}: {_words(one)}")
        kinds = Counter(one.kind for one in proposals)
        counted = ", ".join(f"{kinds[kind]} {kind}" for kind in ("new", "changed", "same", "unknown"))
        self.stdout.write(f"From {effective_at:%Y-%m-%d %H:%M} UTC: {counted}.")

    def _apply(self, proposals: list[Proposal], effective_at: datetime, at: datetime) -> None:
        try:
            recorded = list_prices.record(proposals, effective_at=effective_at, at=at)
        except ValidationError as error:
            raise CommandError(" ".join(sentences(error))) from None
        self.stdout.write(f"{len(recorded)} recorded.")


def _words(one: Proposal) -> str:
    if one.price is None:
        return "the list has no price"
    text = f"{figure(one.price.amount)} {list_prices.CURRENCY} per {figure(one.price.per)} ({one.price.model})"
    if one.kind == "changed" and one.before is not None:
        text += f", was {figure(one.before.unit_amount)} {one.before.currency} per {figure(one.before.per)}"
    return f"{text}; {one.price.note}" if one.price.note else text


def _meters(words: Iterable[str], dimension: str) -> Iterable[tuple[Meter, str]]:
    for word in words:
        key, _, unit = word.partition("=")
        meter = Meter.objects.filter(key=key).first()
        if meter is None:
            raise CommandError(f"--meter {word}: There is no meter {key}.")
        if dimension not in meter.dimensions:
            raise CommandError(f"--meter {word}: It has no dimension {dimension}; say --dimension, or add it.")
        yield meter, unit or key


def _pairs(option: str, words: Iterable[str]) -> Iterable[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition("=")
        if not (name and value):
            raise CommandError(f"{option} {word}: Write NAME=VALUE.")
        yield name, value


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--from {text}: Write a day or an instant, for instance 2026-11-01.") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
