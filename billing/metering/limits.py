"""How much is taken at once. Who sends more is told when to come again, and nothing of that body is stored."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore
from typing import Final

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from accounts.models import ApiKey

logger = logging.getLogger(__name__)


class Limited(Exception):  # noqa: N818 -- an answer
    """Not now. Send the same body again after so many seconds."""

    def __init__(self, status: int, code: str, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.retry_after = status, code, detail, retry_after


_places: Final = BoundedSemaphore(settings.INGEST_AT_ONCE)


@contextmanager
def place() -> Iterator[None]:
    """One of the places for bodies that this process takes at once; the other threads stay free for pages and other
    endpoints. Raises Limited (503) when all are taken."""
    if not _places.acquire(blocking=False):
        raise Limited(503, "unavailable", "Too many requests with events came at once. Send the same request again.")
    try:
        yield
    finally:
        _places.release()


def charge(api_key: ApiKey, events: int) -> None:
    """Count events towards the key's rate, in all processes together. Raises Limited (429) while it is exceeded.

    A batch may be larger than what is left; the key then pays by waiting longer. Nobody is limited while
    Valkey is away.
    """
    rate: int = settings.INGEST_EVENTS_PER_SECOND
    if not rate:
        return
    try:
        wait = _valkey().eval(_CHARGE, 1, f"headroom:rate:{api_key.pk}", events / rate, _AHEAD_SECONDS)
    except redis.RedisError as error:
        logger.warning("Nobody's rate is limited: %s", error)
        return
    if wait is not None:
        detail = f"This key may send {rate:,} events a second. Send the same request again, later."
        raise Limited(429, "too_many_requests", detail, wait)


@cache
def _valkey() -> "redis.Redis":
    """Events wait for it, so it is not waited for."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)
    )


_AHEAD_SECONDS: Final = 1  # what may come in one moment
# Kept is the instant at which all that was taken would have come in at the rate (GCRA). The clock is Valkey's.
# The answer: in how many whole seconds to come again.
_CHARGE: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local through = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
if through - now > tonumber(ARGV[2]) then
    return math.ceil(through - now - ARGV[2])
end
through = through + ARGV[1]
redis.call('SET', KEYS[1], string.format('%.6f', through), 'PX', math.ceil((through - now) * 1000))
return nil
"""
