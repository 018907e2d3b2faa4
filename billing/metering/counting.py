"""What an event adds to the counters: events x meters -> quantities per dimension set. Pure functions."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from billing.metering.identity import canonical, member_digest, number
from billing.metering.judging import Event
from billing.money import LIMIT, parse_decimal, plain

type Properties = Mapping[str, Any]
type Test = Callable[[Properties], bool]

COMPARISONS: Final[dict[str, Callable[[Decimal, Decimal], bool]]] = {
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
}
OPERATORS: Final = ("eq", "ne", "in", "nin", "exists", *COMPARISONS)

_ZERO: Final = Decimal(0)
_filters: Final = msgspec.json.Decoder(list[dict[str, Any]], float_hook=number)


class InvalidValue(Exception):  # noqa: N818 -- the event is refused; that is an answer
    """The value that a meter takes is present, but no decimal of zero or more."""


class Feed(msgspec.Struct, frozen=True, gc=False):
    """What one event adds to one meter. `dimensions` is a JSON object with sorted keys; absent ones are left out.

    Of a max or latest meter the quantity with the greatest `rank` decides. A unique meter counts `member`s.
    """

    meter_id: int
    dimensions: str
    quantity: Decimal
    rank: str | None = None
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """A meter as counting needs it. Hashable, so that it is compiled once; `filters` is its JSON."""

    id: int
    key: str
    event_type: str
    aggregation: str
    value: str
    dimensions: tuple[str, ...]
    filters: str
    revision: int = 0


# What one event adds to one meter, whatever its dimensions are: quantity, rank and member of `Feed`.
type Addition = tuple[Decimal, str | None, str | None]

_ONE_EVENT: Final = (Decimal(1), None, None)


class Counter:
    """A compiled meter."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.dimensions = tuple(sorted(definition.dimensions))
        self._tests = [compiled(**one) for one in _filters.decode(definition.filters)]

    @property
    def is_ranked(self) -> bool:
        """Whether one event decides."""
        return self.definition.aggregation in ("max", "latest")

    def addition(self, event: Event) -> Addition | None:
        """None when the event is filtered out or lacks the value. InvalidValue when the value is bad."""
        properties, path, aggregation = event.properties, self.definition.value, self.definition.aggregation
        for test in self._tests:
            if not test(properties):
                return None
        if aggregation == "count":
            return _ONE_EVENT
        value = properties[path] if path in properties else lookup(properties, path)
        if value is None:
            return None
        if aggregation == "unique":
            return _ZERO, None, member_digest(text_of(value) or "")
        # Most are whole numbers.
        quantity = Decimal(value) if type(value) is int and 0 <= value <= LIMIT else self._quantity(value)
        if aggregation == "sum":
            return quantity, None, None
        return quantity, size_rank(quantity) if aggregation == "max" else time_rank(event), None

    def _quantity(self, value: object) -> Decimal:
        try:
            quantity = parse_decimal(value)
        except ValueError as error:
            raise InvalidValue(f"{self.definition.value}: {error}") from error
        if quantity < 0:
            raise InvalidValue(f"{self.definition.value}: Send zero or more; corrections have their own endpoint.")
        return quantity


def size_rank(quantity: Decimal) -> str:
    """Sorts as the quantities do, which are not negative."""
    return f"{quantity:032.12f}"


def time_rank(event: Event) -> str:
    """Sorts as (occurred_at, recorded_at, source, id) do. Names hold no control characters, so one may part them."""
    instants = (event.occurred_at, event.recorded_at)
    occurred_at, recorded_at = (one.astimezone(UTC).isoformat(timespec="microseconds") for one in instants)
    return f"{occurred_at} {recorded_at} {event.source}\x01{event.id}"


@lru_cache(maxsize=4096)
def counter(definition: Definition) -> Counter:
    """The compiled meter; a changed one is another definition."""
    return Counter(definition)


def revisions(counters: Mapping[str, Iterable[Counter]]) -> dict[str, int]:
    """By type of event: the highest revision of its meters."""
    return {kind: max(one.definition.revision for one in found) for kind, found in counters.items()}


def feeds(counters: Iterable[Counter], event: Event) -> list[Feed]:
    """What the event adds to each meter of its type. InvalidValue when one of them cannot take it."""
    found: list[Feed] = []
    names, dimensions = None, ""
    for one in counters:
        added = one.addition(event)
        if added is not None:
            if names != one.dimensions:  # meters mostly share them
                names = one.dimensions
                dimensions = dimension_set(names, event.properties)
            quantity, rank, member = added
            found.append(Feed(one.definition.id, dimensions, quantity, rank, member))
    return found


def dimension_set(names: tuple[str, ...], properties: Properties) -> str:
    """The dimensions with these names, which are sorted, as Feed has them."""
    return _as_json(names, tuple([text_of(lookup(properties, name)) for name in names]))


@lru_cache(maxsize=65536)
def _as_json(names: tuple[str, ...], values: tuple[str | None, ...]) -> str:
    return canonical({name: value for name, value in zip(names, values, strict=True) if value is not None}).decode()


def counted_feeds(counters: Iterable[Counter], event: Event) -> list[Feed]:
    """What a stored event adds. A meter that came later and cannot take its value does not count it."""
    found: list[Feed] = []
    for one in counters:
        with suppress(InvalidValue):
            found += feeds([one], event)
    return found


def lookup(properties: Properties, path: str) -> Any:
    """The property at a dotted path, None when absent. A property whose own name has the dots comes first."""
    if path in properties:
        return properties[path]
    found: Any = properties
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def text_of(value: Any) -> str | None:
    """A property as a dimension value: text as it is, numbers in plain notation, objects as JSON, null as absent."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return plain(value) if isinstance(value, Decimal) else canonical(value).decode()


# --- filters --------------------------------------------------------------------------------------------------


def compiled(*, property: str, op: str, value: Any = None) -> Test:
    """One filter of a meter as a test. Values are compared as text, so that 200 and "200" are equal; `gt gte lt lte`
    compare numbers, and what is no number passes none of them. An absent property equals nothing."""
    if op == "exists":
        wanted = value is not False
        return lambda properties: (lookup(properties, property) is not None) is wanted
    if op in COMPARISONS:
        bound, holds = parse_decimal(value), COMPARISONS[op]
        return lambda properties: _compare(lookup(properties, property), bound, holds)
    texts = frozenset(text_of(one) for one in (value if op in ("in", "nin") else [value]))
    wanted = op in ("eq", "in")
    return lambda properties: (text_of(lookup(properties, property)) in texts) is wanted


def _compare(value: object, bound: Decimal, holds: Callable[[Decimal, Decimal], bool]) -> bool:
    try:
        return holds(parse_decimal(value), bound)
    except ValueError:
        return False


def filters_problem(filters: Any) -> str | None:
    """Why these are no filters of a meter, in a sentence; None when they are."""
    if not isinstance(filters, list):
        return "Filters are a list."
    found = (problem(one) for one in filters)
    return next((f"Filter {number}: {sentence}" for number, sentence in enumerate(found, start=1) if sentence), None)


def problem(filter_: Any) -> str | None:
    """Why this is no filter, in a sentence; None when it is one."""
    if not isinstance(filter_, dict):
        return "A filter is an object."
    if unknown := filter_.keys() - {"property", "op", "value"}:
        return f"{min(unknown)} is not known in a filter."
    if not isinstance(filter_.get("property"), str) or not filter_["property"]:
        return "A filter names a property."
    op, value = filter_.get("op"), filter_.get("value")
    if op not in OPERATORS:
        return f"op is one of {', '.join(OPERATORS)}."
    return _value_problem(op, value)


def _value_problem(op: str, value: Any) -> str | None:
    if op == "exists":
        return None if value is None or isinstance(value, bool) else "exists takes true or false."
    if op in ("in", "nin"):
        fits = isinstance(value, list) and value and all(map(_is_scalar, value))
        return None if fits else f"{op} takes a list of values."
    if op in COMPARISONS:
        try:
            parse_decimal(value)
        except ValueError as error:
            return f"{op} takes a number. {error}"
        return None
    return None if _is_scalar(value) else f"{op} takes a string, a number or a boolean."


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | Decimal)
