"""What the credits page shows: plain values, and how a reading becomes them. No queries here.

Amounts are exact Decimals in the unit of their card; instants are aware.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from billing import money
from billing.credits.journal import Movement
from billing.credits.models import CreditGrant, TransactionCode
from billing.credits.outlook import Outlook
from billing.credits.queries import Balance, GrantBalance
from billing.money import exact
from dashboard.building import freshness_view, is_prepaid, version_of
from dashboard.overview import Freshness
from dashboard.reading import Reading

type Point = tuple[datetime, Decimal]

AHEAD = timedelta(days=120)  # of the chart, at most: what is further off is said in words
SECOND = timedelta(seconds=1)
CAUSES = 2  # names that a row of the ledger shows


@dataclass(frozen=True, slots=True)
class GrantLine:
    """A grant in its place of the burn order. `lapse`: what will be lost of it at this pace; None where it has no
    expiry in sight, or nothing is known of the pace. `ended_at`: since when it is expired or void."""

    name: str
    kind: str
    amount: Decimal  # what was given, with what was corrected and what rolled over to it
    rolled_in: Decimal
    rolled_out: Decimal
    remaining: Decimal
    used: Decimal
    lost: Decimal  # expired or voided
    usable_from: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    cost_basis: Decimal | None
    meters: Sequence[str]
    lapse: Decimal | None

    @property
    def is_named(self) -> bool:
        """Whether its name is another than that of its kind."""
        return self.name != self.kind

    @property
    def is_standing(self) -> bool:
        return self.ended_at is None and self.remaining > 0

    @property
    def percent(self) -> Decimal:
        return self.remaining * 100 / self.amount if self.amount else Decimal(0)

    @property
    def last_moment(self) -> datetime | None:
        return self.expires_at and self.expires_at - timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DayLine:
    """What grants paid on a day, and what was left at its end; the last one is still running."""

    start: datetime
    used: Decimal
    left: Decimal


@dataclass(frozen=True, slots=True)
class Mark:
    """An expiry ahead, and what it will take."""

    at: datetime
    lapse: Decimal


@dataclass(frozen=True, slots=True)
class BurnDown:
    """What was available, corner by corner, and what will be at this pace. `start` and `end` bound the drawing."""

    start: datetime
    end: datetime
    past: Sequence[Point]
    ahead: Sequence[Point]
    marks: Sequence[Mark]
    days: Sequence[DayLine]


@dataclass(frozen=True, slots=True)
class CreditCard:
    """One unit. `outlook` is None where there is too little usage to say."""

    unit: str
    available: Decimal
    reserved: Decimal
    unsettled: Decimal
    overage: Decimal
    outlook: Outlook | None
    grants: Sequence[GrantLine]
    ended: Sequence[GrantLine]
    burn_down: BurnDown

    @property
    def next_expiry(self) -> GrantLine | None:
        lapsing = [grant for grant in self.grants if grant.expires_at and grant.remaining > 0]
        return min(lapsing, key=lambda grant: grant.expires_at, default=None)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """`balance`: what all grants held after it, where every transaction is listed; `rest`: causes beside `causes`."""

    id: str
    label: str
    recorded_at: datetime
    unit: str
    amount: Decimal
    moved: Decimal
    beyond: Decimal
    balance: Decimal | None
    causes: Sequence[str]
    rest: int


@dataclass(frozen=True, slots=True)
class CreditsPage:
    version: str
    freshness: Freshness
    timezone: str
    period_start: datetime
    parked_reason: str
    settled_through: datetime | None
    cards: Sequence[CreditCard]


def credits_page(reading: Reading) -> CreditsPage:
    freshness = freshness_view(reading.freshness, reading.timezone)
    shown = [balance for balance in reading.balances if is_prepaid(balance)]
    return CreditsPage(
        version=version_of(reading.freshness),
        freshness=freshness,
        timezone=reading.timezone,
        period_start=reading.local(reading.interval.start),
        parked_reason=next((balance.parked_reason for balance in shown), ""),
        settled_through=next((balance.settled_through for balance in shown), None),
        cards=[_card(reading, balance) for balance in shown],
    )


def _card(reading: Reading, balance: Balance) -> CreditCard:
    lines = [_line(reading, item, balance.outlook) for item in balance.grants]
    return CreditCard(
        unit=balance.unit,
        available=balance.available,
        reserved=balance.reserved,
        unsettled=balance.unsettled,
        overage=balance.overage,
        outlook=balance.outlook,
        grants=[line for line in lines if line.is_standing],
        ended=[line for line in lines if not line.is_standing][::-1],
        burn_down=_burn_down(reading, balance),
    )


def _line(reading: Reading, item: GrantBalance, outlook: Outlook | None) -> GrantLine:
    grant = item.grant
    return GrantLine(
        name=grant.reason or grant.get_kind_display(),
        kind=grant.get_kind_display(),
        amount=item.total,
        rolled_in=grant.rolled_in,
        rolled_out=item.rolled_out,
        remaining=item.remaining,
        used=item.used,
        lost=money.total((item.expired, item.voided)),
        usable_from=grant.effective_at if grant.effective_at > reading.at else None,
        expires_at=grant.expires_at,
        ended_at=grant.ended_at(reading.at),
        cost_basis=grant.cost_basis,
        meters=grant.meters,
        lapse=outlook.lapses.get(grant.pk) if outlook else None,
    )


# --- the burn-down --------------------------------------------------------------------------------------------------


@exact()
def _burn_down(reading: Reading, balance: Balance) -> BurnDown:
    past = _past(reading, balance)
    end = max(reading.interval.end, _horizon(reading, balance))
    ahead = _ahead(balance.outlook, end) if balance.outlook else []
    expiries = {item.grant.pk: item.grant.expires_at for item in balance.grants}
    lapses = balance.outlook.lapses if balance.outlook else {}
    return BurnDown(
        start=reading.local(reading.interval.start),
        end=reading.local(end),
        past=[(reading.local(at), amount) for at, amount in past],
        ahead=[(reading.local(at), amount) for at, amount in ahead],
        marks=[
            Mark(reading.local(expiries[pk]), lapse)
            for pk, lapse in lapses.items()
            if lapse > 0 and expiries[pk] <= end
        ],
        days=list(_days(reading, balance, past)),
    )


def _horizon(reading: Reading, balance: Balance) -> datetime:
    """Until they are gone; where that is not in sight, until the next of them expires."""
    outlook = balance.outlook
    if outlook and outlook.runs_out_at:
        ends = [outlook.runs_out_at]
    else:
        ends = [item.grant.expires_at for item in balance.grants if item.grant.expires_at and item.remaining > 0]
    return min([*ends, reading.at + AHEAD]) if ends else reading.at


def _ahead(outlook: Outlook, end: datetime) -> Iterator[Point]:
    """The path up to `end`, where it is cut."""
    before: Point | None = None
    for at, amount in outlook.path:
        if at > end:
            if before is not None:
                share = Decimal((end - before[0]) // SECOND) / max((at - before[0]) // SECOND, 1)
                yield end, before[1] + (amount - before[1]) * share
            return
        before = at, amount
        yield before


def _past(reading: Reading, balance: Balance) -> list[Point]:
    """At each edge what was usable just before it and from it on: they differ where grants begin and end."""
    edges, paid = reading.burn_edges, reading.paid
    left = {item.grant.pk: item.total - item.rolled_out - item.used for item in balance.grants}
    points: list[Point] = [(reading.at, balance.balance)]
    for number in range(len(edges) - 2, -1, -1):  # back in time: what was paid later was still there
        for pk in left:
            left[pk] += paid[number].get(pk, 0)
        edge = edges[number]
        before, since = _usable(balance, left, edge, before=True), _usable(balance, left, edge, before=False)
        points += [(edge, since)] if before == since or number == 0 else [(edge, since), (edge, before)]
    return points[::-1]


def _usable(balance: Balance, left: Mapping[int, Decimal], at: datetime, *, before: bool) -> Decimal:
    def holds(grant: CreditGrant) -> bool:
        until = min((end for end in (grant.expires_at, grant.voided_at) if end), default=None)
        if before:
            return grant.effective_at < at and (until is None or until >= at)
        return grant.effective_at <= at and (until is None or until > at)

    return money.total(left[item.grant.pk] for item in balance.grants if holds(item.grant))


def _days(reading: Reading, balance: Balance, past: Sequence[Point]) -> Iterator[DayLine]:
    own = {item.grant.pk for item in balance.grants}
    edges = reading.burn_edges
    for day in reading.burn_days:
        pieces = [paid for edge, paid in zip(edges, reading.paid, strict=False) if day.start <= edge < day.end]
        yield DayLine(
            start=reading.local(day.start),
            used=money.total(amount for paid in pieces for pk, amount in paid.items() if pk in own),
            left=next(amount for at, amount in reversed(past) if at <= day.end),
        )


# --- the ledger -----------------------------------------------------------------------------------------------------

LABELS = {
    TransactionCode.GRANT: "Granted",
    TransactionCode.USAGE: "Usage",
    TransactionCode.EXPIRY: "Expired",
    TransactionCode.VOID: "Voided",
    TransactionCode.ROLLOVER: "Rolled over",
    TransactionCode.ADJUSTMENT: "Adjusted",
}


def ledger_rows(
    movements: Sequence[Movement], balances: Mapping[str, Decimal] | None
) -> tuple[list[LedgerRow], Mapping[str, Decimal]]:
    """The rows, newest first, and the balances before the last of them. `balances`: after the first; None: unknown."""
    left = dict(balances or {})
    rows = []
    for movement in movements:
        balance = left.get(movement.unit, Decimal(0)) if balances is not None else None
        rows.append(_row(movement, balance))
        left[movement.unit] = money.CONTEXT.subtract(left.get(movement.unit, Decimal(0)), movement.amount)
    return rows, left


def _row(movement: Movement, balance: Decimal | None) -> LedgerRow:
    transaction = movement.transaction
    return LedgerRow(
        id=transaction.public_id,
        label=LABELS[TransactionCode(transaction.code)],
        recorded_at=transaction.recorded_at,
        unit=movement.unit,
        amount=movement.amount,
        moved=movement.moved,
        beyond=movement.beyond,
        balance=balance,
        causes=movement.causes[:CAUSES],
        rest=len(movement.causes[CAUSES:]),
    )
