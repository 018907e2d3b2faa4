"""What is sent: each event follows from its number alone, so that it is the same whoever sends it, however often.

Pure; what it should add up to is known without asking the database.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

CUSTOMERS = 40
MODELS = ("large-2", "small-1", "nano-1")
KEYS = 7
TYPE = "llm.completion"
SOURCE = "chaos"
SPREAD_SECONDS = 3 * 3600  # events occurred in so many seconds before the run
TIMES = 3  # each event is sent so often
SIZES = (1, 5, 20, 21, 100, 500, 1000, 1000, 1000)  # both ways of storing, and mostly many at once

type Totals = dict[tuple[str, str, str, str], tuple[Decimal, int]]  # customer, meter, model, key: quantity, events


@dataclass(frozen=True, slots=True)
class Facts:
    """What one event says; `cached_tokens` is absent from some."""

    customer: str
    model: str
    key: str
    input_tokens: int
    cached_tokens: int | None
    seconds: Decimal
    user: str
    failed: bool


def facts(number: int) -> Facts:
    mixed = number * 2654435761 % 2**32  # neighbours differ
    return Facts(
        # One customer has 30 percent of the traffic.
        customer=f"c{0 if number % 10 < 3 else 1 + mixed % (CUSTOMERS - 1)}",
        model=MODELS[mixed // 7 % len(MODELS)],
        key=f"key-{mixed // 21 % KEYS}",
        input_tokens=mixed // 147 % 20_000,
        cached_tokens=None if number % 4 == 0 else mixed // 311 % 5_000,
        seconds=Decimal(mixed // 13 % 90_000).scaleb(-3),
        user=f"user-{mixed // 29 % 400}",
        failed=number % 23 == 0,
    )


def written(number: int, begun: datetime) -> str:
    """The event as JSON."""
    it = facts(number)
    occurred_at = begun - timedelta(seconds=number % SPREAD_SECONDS)
    cached = "" if it.cached_tokens is None else f'"cached_tokens":{it.cached_tokens},'
    return (
        f'{{"id":"{number}","source":"{SOURCE}","type":"{TYPE}","customer":"{it.customer}",'
        f'"timestamp":"{occurred_at.isoformat()}","properties":{{"model":"{it.model}","api_key":"{it.key}",{cached}'
        f'"input_tokens":{it.input_tokens},"seconds":{it.seconds},"user":"{it.user}",'
        f'"status":"{"failed" if it.failed else "ok"}"}}}}'
    )


def body(numbers: Iterable[int], begun: datetime) -> bytes:
    return f"[{','.join(written(number, begun) for number in numbers)}]".encode()


def batches(events: int, random: Random) -> list["array[int]"]:
    """Every event TIMES times, in as many different orders, cut into batches which are shuffled as well."""
    found = []
    for _ in range(TIMES):
        numbers = array("l", range(events))
        random.shuffle(numbers)
        start = 0
        while start < events:
            size = random.choice(SIZES)
            found.append(numbers[start : start + size])
            start += size
    random.shuffle(found)
    return found


def totals(numbers: Iterable[int]) -> Totals:
    """What these events add up to, each counted once, for each meter that adds up, and its dimensions."""
    sums: dict[tuple[str, str, str, str], list[Decimal | int]] = defaultdict(lambda: [Decimal(0), 0])

    def add(meter: str, customer: str, model: str, key: str, quantity: int | Decimal) -> None:
        cell = sums[customer, meter, model, key]
        cell[0] += quantity
        cell[1] += 1

    for number in numbers:
        it = facts(number)
        add("input_tokens", it.customer, it.model, it.key, it.input_tokens)
        add("seconds", it.customer, "", it.key, it.seconds)
        if it.cached_tokens is not None:
            add("cached_tokens", it.customer, it.model, "", it.cached_tokens)
        if not it.failed:
            add("calls", it.customer, it.model, it.key, 1)
    return {cell: (quantity, events) for cell, (quantity, events) in sums.items()}
