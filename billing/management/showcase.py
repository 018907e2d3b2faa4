"""The demo's five models of pricing, one customer each: what it pays by, and what its usage looks like."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

from billing.management.traffic import PROFILES, events, pick, sent
from billing.pricing.schemes import Tier
from billing.pricing.spec import CreditSpec, MatchSpec, PriceSpec, VersionSpec

type Call = Callable[[datetime, Random], Iterator[dict[str, Any]]]

REOPENED_WITHIN: Final = timedelta(hours=72)  # a ticket that comes back before is not charged: its event is void
REOPENED: Final = 0.06  # of the tickets that were resolved
REASON: Final = f"Reopened within {REOPENED_WITHIN // timedelta(hours=1)} hours: not charged."

_MILLION: Final = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Showcase:
    """A model of pricing and the customer that pays by it. `call` makes the events of one call."""

    model: str
    customer: dict[str, str]
    owner: tuple[str, str]
    meters: tuple[dict[str, Any], ...]
    plan: tuple[str, str]
    spec: VersionSpec
    call: Call
    calls_a_day: int
    calls_per_minute: int

    @property
    def key(self) -> str:
        return self.customer["key"]


def _count(key: str, name: str, unit: str, event_type: str, *dimensions: str, **more: Any) -> dict[str, Any]:
    """A meter that counts the events of a type."""
    said = {"key": key, "name": name, "unit": unit, "event_type": event_type, "dimensions": [*dimensions]}
    return {**said, "aggregation": "count", **more}


# --- tokens: a price per million, by model, cheaper beyond a volume ---------------------------------------------------


def _tokens(key: str, first: str, then: str, large: str) -> PriceSpec:
    tiers = (Tier(Decimal(20_000_000), Decimal(first)), Tier(None, Decimal(then)))
    special = MatchSpec({"model": "large-2"}, tiers=(Tier(None, Decimal(large)),))
    return PriceSpec(key, key, "USD", scheme="graduated", per=_MILLION, tiers=tiers, match=(special,))


_GLOBEX: Final = next(profile for profile in PROFILES if profile.customer == "globex")

TOKENS = Showcase(
    model="tokens",
    customer={"key": "globex", "name": "Globex", "timezone": "Asia/Kolkata", "email": "billing@globex.test"},
    owner=("charlie@globex.test", "Charlie Chatterjee"),
    meters=(),  # the same as Acme's
    plan=("tokens", "Pay per token"),
    spec=VersionSpec(
        prices=(
            _tokens("input_tokens", first="0.60", then="0.45", large="5.00"),
            _tokens("output_tokens", first="2.40", then="1.80", large="20.00"),
        )
    ),
    call=lambda at, random: events(_GLOBEX, at, random),
    calls_a_day=300,
    calls_per_minute=_GLOBEX.calls_per_minute,
)


# --- calls: the first ones are free, then tiers, and a minimum spend --------------------------------------------------


def _api_call(at: datetime, random: Random) -> Iterator[dict[str, Any]]:
    properties = {
        "endpoint": pick({"geocode": 60, "route": 30, "tiles": 10}, random),
        "api_key": pick({"web": 70, "mobile": 30}, random),
        "latency_ms": round(random.lognormvariate(3.5, 0.6)),
    }
    yield sent("callisto", "api.call", at, random, properties)


CALLS = Showcase(
    model="calls",
    customer={"key": "callisto", "name": "Callisto Maps", "timezone": "Europe/Lisbon", "email": "ap@callisto.test"},
    owner=("carla@callisto.test", "Carla Costa"),
    meters=(_count("api_calls", "API calls", "call", "api.call", "endpoint", "api_key"),),
    plan=("calls", "Pay per call"),
    spec=VersionSpec(
        minimum_spend=Decimal(25),
        prices=(
            PriceSpec(
                "api_calls",
                "api_calls",
                "USD",
                scheme="graduated",
                included=Decimal(500),
                tiers=(Tier(Decimal(1000), Decimal("0.02")), Tier(None, Decimal("0.012"))),
            ),
        ),
    ),
    call=_api_call,
    calls_a_day=120,
    calls_per_minute=12,
)


# --- credits: prepaid, several for a better picture -------------------------------------------------------------------


def _image(at: datetime, random: Random) -> Iterator[dict[str, Any]]:
    properties = {
        "quality": pick({"draft": 50, "standard": 35, "hd": 15}, random),
        "style": pick({"photo": 60, "drawing": 40}, random),
    }
    yield sent("pixelforge", "image.generated", at, random, properties)


CREDITS = Showcase(
    model="credits",
    customer={"key": "pixelforge", "name": "Pixelforge", "timezone": "America/Chicago", "email": "ap@pixelforge.test"},
    owner=("piet@pixelforge.test", "Piet Pixley"),
    meters=(_count("images", "Images", "image", "image.generated", "quality", "style"),),
    plan=("credits", "Prepaid credits"),
    spec=VersionSpec(
        base_fee=Decimal(29),
        credits=(CreditSpec("credits", Decimal(1500), rollover_max=Decimal(300)),),
        prices=(
            PriceSpec(
                "images",
                "images",
                "credits",
                Decimal(2),
                match=(MatchSpec({"quality": "draft"}, Decimal(1)), MatchSpec({"quality": "hd"}, Decimal(6))),
            ),
        ),
        postpaid=False,
    ),
    call=_image,
    calls_a_day=60,
    calls_per_minute=3,
)


# --- a subscription with included usage and overage up to a cap -------------------------------------------------------


def _recording(at: datetime, random: Random) -> Iterator[dict[str, Any]]:
    properties = {
        "minutes": str(round(Decimal(random.lognormvariate(2.5, 0.8)), 1)),
        "language": pick({"en": 60, "de": 25, "fr": 15}, random),
    }
    yield sent("papertrail", "recording.transcribed", at, random, properties)


CAPPED = Showcase(
    model="subscription",
    customer={"key": "papertrail", "name": "Papertrail", "timezone": "Europe/Paris", "email": "ap@papertrail.test"},
    owner=("paula@papertrail.test", "Paula Petit"),
    meters=(
        {
            "key": "transcribed_minutes",
            "name": "Transcribed minutes",
            "unit": "minute",
            "event_type": "recording.transcribed",
            "aggregation": "sum",
            "value": "minutes",
            "dimensions": ["language"],
        },
    ),
    plan=("team", "Team"),
    spec=VersionSpec(
        base_fee=Decimal(49),
        prices=(
            PriceSpec(
                "minutes",
                "transcribed_minutes",
                "USD",
                Decimal("0.02"),
                included=Decimal(5_000),
                maximum_amount=Decimal(150),
            ),
        ),
    ),
    call=_recording,
    calls_a_day=60,
    calls_per_minute=4,
)


# --- outcomes: a support product that is paid per ticket which it resolved --------------------------------------------


def _ticket(at: datetime, random: Random) -> Iterator[dict[str, Any]]:
    number = random.randrange(10_000, 99_999)
    properties = {
        "ticket": f"T-{number}",
        "channel": pick({"chat": 65, "email": 25, "voice": 10}, random),
        "handled_by": pick({"ai": 80, "person": 20}, random),
        "outcome": pick({"resolved": 75, "handed_over": 25}, random),
        "customer_confirmed": random.random() < 0.7,  # noqa: PLR2004 -- seven in ten say so
        "transcript": f"https://desk.test/transcripts/{number}",
        "messages": random.randint(2, 24),
    }
    yield sent("deskly", "ticket.closed", at, random, properties)


def is_reopened(event: dict[str, Any], random: Random) -> bool:
    """Whether this ticket, which was charged as resolved, comes back."""
    properties = event["properties"]
    is_charged = (properties.get("handled_by"), properties.get("outcome")) == ("ai", "resolved")
    return is_charged and random.random() < REOPENED


OUTCOMES = Showcase(
    model="outcomes",
    customer={"key": "deskly", "name": "Deskly", "timezone": "Europe/Dublin", "email": "ap@deskly.test"},
    owner=("dara@deskly.test", "Dara Daly"),
    meters=(
        _count(
            "resolved_tickets",
            "Tickets resolved and not reopened within 72 hours",
            "ticket",
            "ticket.closed",
            "channel",
            filters=[
                {"property": "handled_by", "op": "eq", "value": "ai"},
                {"property": "outcome", "op": "eq", "value": "resolved"},
            ],
        ),
    ),
    plan=("outcomes", "Pay per outcome"),
    spec=VersionSpec(
        prices=(
            PriceSpec(
                "resolved",
                "resolved_tickets",
                "USD",
                Decimal("0.99"),
                match=(MatchSpec({"channel": "voice"}, Decimal("1.49")),),
            ),
        )
    ),
    call=_ticket,
    calls_a_day=40,
    calls_per_minute=4,
)

SHOWCASES: Final = (TOKENS, CALLS, CREDITS, CAPPED, OUTCOMES)


# --- what the vendor pays --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What `per` of a meter's quantity costs the vendor, in USD, since some days before the demo was made."""

    meter: str
    where: dict[str, str]
    amount: str
    per: Decimal = Decimal(1)
    days_ago: int = 14


# One model became cheaper last week; nobody has said yet what a ticket that is resolved by voice costs.
COSTS: Final = (
    Cost("input_tokens", {"model": "large-2"}, "2.50", _MILLION),
    Cost("input_tokens", {"model": "small-1"}, "0.15", _MILLION),
    Cost("input_tokens", {"model": "nano-1"}, "0.08", _MILLION),
    Cost("output_tokens", {"model": "large-2"}, "15.00", _MILLION),
    Cost("output_tokens", {"model": "large-2"}, "10.00", _MILLION, days_ago=6),
    Cost("output_tokens", {"model": "small-1"}, "0.60", _MILLION),
    Cost("output_tokens", {"model": "nano-1"}, "0.45", _MILLION),
    Cost("searches", {}, "0.005"),
    Cost("api_calls", {}, "0.004"),
    Cost("images", {"quality": "draft"}, "0.01"),
    Cost("images", {}, "0.04"),
    Cost("images", {"quality": "hd"}, "0.15"),
    Cost("transcribed_minutes", {}, "0.006"),
    Cost("resolved_tickets", {"channel": "chat"}, "0.31"),
    Cost("resolved_tickets", {"channel": "email"}, "0.22"),
)
