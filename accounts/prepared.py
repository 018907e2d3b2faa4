"""Statements that are asked all the time: the server plans them once for each connection, not each time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

type Send = Callable[[str, Mapping[str, Any]], Any]  # a cursor


def prepared() -> Any:
    """A cursor as `connection.cursor()` is one, but what it executes is prepared after a few times, where the settings
    allow it. Values are sent beside the statement, so that each needs a cast where the server cannot tell its type."""
    connection = connections[DEFAULT_DB_ALIAS]  # looked up once: `django.db.connection` does so at each use
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor: Any = psycopg.Cursor(connection.connection)
    return connection.make_debug_cursor(cursor) if connection.queries_logged else connection.make_cursor(cursor)


@contextmanager
def together() -> Iterator[Send]:
    """Send statements in one round trip, each as `prepared` does. What they answer is read afterwards."""
    connection = connections[DEFAULT_DB_ALIAS]
    connection.ensure_connection()

    def send(statement: str, parameters: Mapping[str, Any]) -> Any:
        cursor = prepared() if connection.queries_logged else psycopg.Cursor(connection.connection)
        cursor.execute(statement, parameters)
        return cursor

    with connection.wrap_database_errors, connection.connection.pipeline():
        yield send


def array(values: Iterable[object]) -> str:
    """The values as PostgreSQL writes an array, None as NULL. To adapt a list takes the driver ten times as long."""
    written = ["NULL" if value is None else _quoted(str(value)) for value in values]
    return "{" + ",".join(written) + "}"


def _quoted(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    return '"' + text.replace('"', '\\"') + '"'
