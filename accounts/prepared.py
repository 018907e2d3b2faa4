"""Statements that are asked all the time: the server plans them once for each connection, not each time."""

from typing import Any

import psycopg
from django.db import connection


def prepared() -> Any:
    """A cursor as `connection.cursor()` is one, but what it executes is prepared after a few times, where the settings
    allow it. Values are sent beside the statement, so that each needs a cast where the server cannot tell its type."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor: Any = psycopg.Cursor(connection.connection)
    return connection.make_debug_cursor(cursor) if connection.queries_logged else connection.make_cursor(cursor)
