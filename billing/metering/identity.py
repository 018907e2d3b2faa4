"""Which event is it, and did it say the same before? Pure functions over bytes.

An identity is (source, id), compared by bytes. Its payload is what makes a repeat the same event: customer, type,
timestamp as sent, properties with sorted keys and normalised numbers. The envelope (how it came) is not part of it.
"""

from datetime import timedelta
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

IDENTITIES_KEPT: Final = timedelta(days=42)  # longer than events are accepted back, but for back-filling

_EXACT: Final = Context(prec=10_000)  # more digits than an event has room for
LARGEST_EXPONENT: Final = 1_000
_WRITTEN_OUT: Final = 40  # digits; beyond, a few bytes with an exponent would become a page

# Sorted keys; decimals as numbers, so that 1.5 and "1.5" stay two things.
_encoder = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def canonical(value: Any) -> bytes:
    """JSON in which equal values are equal bytes, given numbers that went through `number`."""
    return _encoder.encode(value)


def number(text: str) -> int | Decimal:
    """A JSON number with a fraction or exponent, exactly, and in one form: 1.0, 1e0 and 1 are all the integer 1."""
    try:
        value = Decimal(text)
    except InvalidOperation as error:  # an exponent that not even Decimal holds
        raise ValueError("A number is out of range.") from error
    if not value:
        return 0
    if not -LARGEST_EXPONENT <= value.adjusted() <= LARGEST_EXPONENT:
        raise ValueError(f"A number is beyond 10^{LARGEST_EXPONENT} or closer to zero than 10^-{LARGEST_EXPONENT}.")
    if value.adjusted() <= _WRITTEN_OUT and value == (whole := value.to_integral_value(context=_EXACT)):
        return int(whole)
    return value.normalize(_EXACT)


def event_digest(source: str, event_id: str) -> str:
    """128 bits of (source, id) as 32 hexadecimal digits. The length in front tells ("a", "bc") from ("ab", "c")."""
    return blake2b(_measured(source) + event_id.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def _measured(source: str) -> bytes:
    first = source.encode()
    return b"%d:%b" % (len(first), first)


def member_digest(value: str) -> str:
    """128 bits of a value that a unique meter counts, as 32 hexadecimal digits."""
    return blake2b(value.encode(), digest_size=16).hexdigest()


def payload_digest(customer: str, event_type: str, timestamp: str | None, properties: bytes) -> str:
    """128 bits of what the event said, as 32 hexadecimal digits. `properties` are canonical JSON; an absent timestamp
    is absent, whenever the event came."""
    head = _encoder.encode((customer, event_type, timestamp))
    return blake2b(b"%d:%b%b" % (len(head), head, properties), digest_size=16).hexdigest()
