"""A match row's condition as a line that an operator types: `model = mini | nano; region = none`."""

from collections.abc import Iterator, Mapping
from typing import Any

ABSENT = "none"


def parse(text: str) -> dict[str, str | list[str | None] | None]:
    """`dimension = value`, several values between bars, several dimensions between semicolons; `none` is absent.

    Raises ValueError with a sentence.
    """
    where: dict[str, str | list[str | None] | None] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        dimension, equals, values = (piece.strip() for piece in part.partition("="))
        if not (dimension and equals and values):
            raise ValueError(f'Write "{part}" as dimension = value, for instance model = large-2.')
        if dimension in where:
            raise ValueError(f'"{dimension}" is named twice. Put its values between bars: {dimension} = a | b.')
        options = [_value(value.strip()) for value in values.split("|")]
        where[dimension] = options if len(options) > 1 else options[0]
    return where


def format_where(where: Mapping[str, Any]) -> str:
    """The inverse of `parse`."""
    return "; ".join(f"{dimension} = {_options(value)}" for dimension, value in where.items())


def _value(text: str) -> str | None:
    return None if text == ABSENT else text


def _options(value: Any) -> str:
    options = value if isinstance(value, list) else [value]
    return " | ".join(ABSENT if option is None else option for option in options)


def named_values(where: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Each dimension and value that the condition is about, as sent or stored."""
    for dimension, wanted in where.items():
        yield from ((dimension, value) for value in (wanted if isinstance(wanted, list) else [wanted]))
