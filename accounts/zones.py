"""The IANA time zones that this installation knows."""

from functools import cache
from zoneinfo import available_timezones


@cache
def zone_names() -> frozenset[str]:
    return frozenset(available_timezones())
