"""What the pool of connections asks of one before it lends it."""

import select

from psycopg import Connection
from psycopg_pool import ConnectionPool


def check(connection: Connection) -> None:
    """Ask the server only where it has said something unasked: that it ended the session, mostly. Its end closes the
    socket, so one that is silent is as good as one that answered, without a round trip before each request."""
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        ConnectionPool.check_connection(connection)
