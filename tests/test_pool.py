"""A connection that the server has closed is not lent to anybody."""

import psycopg
import pytest
from psycopg import OperationalError

from config.pool import check
from tests.processes import addresses


@pytest.fixture
def connection(db):
    with psycopg.connect(addresses()["DATABASE_URL"], autocommit=True) as one:
        yield one


def test_one_that_is_silent_may_be_lent(connection):
    check(connection)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_one_that_the_server_ended_may_not(connection):
    with psycopg.connect(addresses()["DATABASE_URL"], autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    with pytest.raises(OperationalError):
        check(connection)


def test_one_that_the_server_told_something_may(connection):
    connection.execute("LISTEN news")
    with psycopg.connect(addresses()["DATABASE_URL"], autocommit=True) as other:
        other.execute("NOTIFY news")
    check(connection)
    assert connection.execute("SELECT 1").fetchone() == (1,)
