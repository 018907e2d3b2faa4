"""What a small AI company's usage looks like, for the demo: a day's rhythm, a few models and keys, skewed sizes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

COMPLETION, SEARCH = "llm.completion", "search.query"

# Share of a day's calls in each hour, as offices and their batch jobs make them.
RHYTHM = [2, 1, 1, 1, 1, 2, 3, 6, 10, 12, 13, 12, 10, 12, 13, 12, 10, 8, 6, 5, 4, 4, 3, 3]
WEEKEND = 0.35


@dataclass(frozen=True, slots=True)
class Profile:
    """Who calls what: the weights of models and keys, and how many calls there are in a minute of live traffic."""

    customer: str
    models: dict[str, int]
    keys: dict[str, int]
    calls_per_minute: int
    searches: float  # per call


PROFILES = [
    Profile(
        "acme",
        {"large-2": 35, "small-1": 45, "nano-1": 20},
        {"ingest-worker": 50, "support-chat": 35, "research": 15},
        calls_per_minute=240,
        searches=0.08,
    ),
    Profile(
        "acme-labs",
        {"large-2": 80, "small-1": 20},
        {"notebooks": 100},
        calls_per_minute=12,
        searches=0.3,
    ),
    Profile(
        "globex",
        {"large-2": 10, "small-1": 90},
        {"translator": 70, "summaries": 30},
        calls_per_minute=60,
        searches=0.02,
    ),
]


def events(profile: Profile, at: datetime, random: Random) -> Iterator[dict[str, Any]]:
    """The events of one call: a completion, and now and then a search beside it."""
    yield sent(profile.customer, COMPLETION, at, random, _completion(profile, random))
    if random.random() < profile.searches:
        properties = {"api_key": pick(profile.keys, random), "engine": "web"}
        yield sent(profile.customer, SEARCH, at, random, properties)


def history(
    call: Callable[[datetime, Random], Iterable[dict[str, Any]]],
    *,
    since: datetime,
    until: datetime,
    calls_a_day: int,
    random: Random,
) -> Iterator[dict[str, Any]]:
    """Events of the days before now, by the rhythm of the day and the week; `call` makes those of one call."""
    hour = since
    while hour < until:
        share = RHYTHM[hour.hour] / sum(RHYTHM) * (WEEKEND if hour.weekday() > 4 else 1)  # noqa: PLR2004 -- Saturday
        length = min(timedelta(hours=1), until - hour)
        for _ in range(round(calls_a_day * share * (length / timedelta(hours=1)) * random.uniform(0.7, 1.3))):
            yield from call(hour + length * random.random(), random)
        hour += length


def sent(customer: str, kind: str, at: datetime, random: Random, properties: dict[str, Any]) -> dict[str, Any]:
    """An event as the vendor's gateway sends it."""
    return {
        "id": f"req_{random.getrandbits(64):016x}",
        "source": "gateway-1",
        "type": kind,
        "customer": customer,
        "timestamp": at.isoformat(),
        "properties": properties,
    }


def _completion(profile: Profile, random: Random) -> dict[str, Any]:
    output = min(8_000, round(random.lognormvariate(5.3, 0.9)))
    return {
        "model": pick(profile.models, random),
        "api_key": pick(profile.keys, random),
        "input_tokens": min(120_000, round(random.lognormvariate(7.3, 1.1))),
        "output_tokens": output,
        "latency_ms": 180 + output * 9,
    }


def pick(weights: dict[str, int], random: Random) -> str:
    """One of these, as often as its weight says."""
    return random.choices(list(weights), list(weights.values()))[0]
