"""Actions on authorizations. Each is one transaction; what they guarantee is told in docs/decisions/0015."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from django.db import transaction

from accounts.ids import new_id
from accounts.models import ApiKey, Customer
from billing.authorizations import facts as facts_of
from billing.authorizations import store
from billing.authorizations.decision import ANY, Allow, Deny, Pool, Reason, Stop, decide
from billing.authorizations.facts import Amount, Facts, Usage
from billing.authorizations.models import Authorization, EndedBy
from billing.authorizations.store import Locked, NewHold
from billing.budgets.models import Budget
from billing.errors import Conflict
from billing.metering import ingesting
from billing.metering import services as metering
from billing.money import ZERO, exact

KEPT: Final = timedelta(days=7)  # how long an authorization can be asked for after its end
MOST_FORGOTTEN: Final = 10_000

type Wanted = Sequence[Usage] | Amount


@dataclass(frozen=True, slots=True)
class Allowed:
    """An open hold. `amounts` and `available_after` by unit; the latter None where nothing limits."""

    id: str
    amounts: Mapping[str, Decimal]
    available_after: Mapping[str, Decimal | None]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Denied:
    """Nothing is held. `budget` and `stop` tell which budget stopped it."""

    reason: Reason
    budget: Budget | None = None
    stop: Stop | None = None


@transaction.atomic
def authorize(*, customer: Customer, wanted: Wanted, ttl: timedelta, at: datetime) -> Allowed | Denied:
    """Hold what is wanted for `ttl`, of the credits and of every budget that stops; or hold nothing.

    What can be read without a lock is read first. Under the lock it is used if it is still true, which is nearly
    always, and read again otherwise.
    """
    while (facts := facts_of.read(customer, wanted, at)) is not None:
        locked = _locked(customer, facts, at)
        if locked.version == facts.version:
            return _decided(customer, facts, locked, at, at + ttl)
    return Denied("no_subscription")


def _locked(customer: Customer, facts: Facts, at: datetime) -> Locked:
    """The customer's accounts, locked; with an account for everything that is judged."""
    locked = store.lock(customer.pk, at)
    units = [unit for unit in facts.asked if locked.of_unit(unit) is None]
    budgets = {stop.budget: stop.unit for stop in facts.stops if locked.of_budget(stop.budget) is None}
    if units or budgets:
        store.open_accounts(customer.pk, units, budgets)
        locked = store.lock(customer.pk, at)
    return locked


@exact()
def _decided(customer: Customer, facts: Facts, locked: Locked, at: datetime, expires_at: datetime) -> Allowed | Denied:
    pools = {unit: _reserved(pool, customer, locked) for unit, pool in facts.pools.items()}
    stops = [replace(stop, reserved=_account(locked, stop.budget).reserved) for stop in facts.stops]
    decision = decide(facts.asked, pools, stops)
    if isinstance(decision, Deny):
        stop = decision.stop
        return Denied(decision.reason, facts.budgets[stop.budget] if stop else None, stop)
    public_id = new_id("auth")
    store.write(
        public_id=public_id,
        customer_id=customer.pk,
        at=at,
        expires_at=expires_at,
        holds=_holds(decision, locked),
    )
    amounts = {unit: sum(asked.values(), ZERO) for unit, asked in facts.asked.items()}
    after = {unit: _available_after(pools[unit], stops, decision, amount) for unit, amount in amounts.items()}
    return Allowed(public_id, amounts, after, expires_at)


def _reserved(pool: Pool, customer: Customer, locked: Locked) -> Pool:
    if pool.is_scoped:
        sums = store.reserved_sums(customer.pk, only_ended=False)
        mine = {one.meter: one.amount for one in sums if one.budget is None and one.unit == pool.unit}
        return replace(pool, reserved=mine)
    account = locked.of_unit(pool.unit)
    return replace(pool, reserved={ANY: account.reserved if account else ZERO})


def _account(locked: Locked, budget: int) -> store.Account:
    account = locked.of_budget(budget)
    assert account is not None
    return account


def _holds(decision: Allow, locked: Locked) -> list[NewHold]:
    holds = []
    for (unit, meter), amount in decision.credits.items():
        account = locked.of_unit(unit)
        assert account is not None
        holds.append(NewHold(account.id, meter, amount))
    holds += [NewHold(_account(locked, budget).id, ANY, amount) for budget, amount in decision.budgets.items()]
    return [hold for hold in holds if hold.amount > 0]


def _available_after(pool: Pool, stops: Sequence[Stop], decision: Allow, amount: Decimal) -> Decimal | None:
    """The least that any limit in this unit leaves."""
    left = [stop.left - decision.budgets[stop.budget] for stop in stops if stop.unit == pool.unit]
    if pool.overage is None:
        left.append(pool.available - amount)
    return min(left, default=None)


# --- ends -------------------------------------------------------------------------------------------------------


@transaction.atomic
def release(*, authorization: Authorization, at: datetime) -> Authorization:
    """End it: the call did not run. Conflict `authorization_not_open` when something has ended it."""
    return _end(authorization, EndedBy.RELEASE, at)


@transaction.atomic
def capture(*, authorization: Authorization, at: datetime) -> Authorization:
    """End it: the usage is sent separately. Conflict `authorization_not_open` when something has ended it."""
    return _end(authorization, EndedBy.CAPTURE, at)


class Refused(Exception):  # noqa: N818 -- an answer
    """Some events of a capture cannot be taken, so nothing is recorded and the authorization stays open."""

    def __init__(self, answer: ingesting.IngestAnswer) -> None:
        super().__init__("Some events cannot be taken.")
        self.answer = answer


@transaction.atomic
def capture_with_events(
    *, authorization: Authorization, events: Sequence[Mapping[str, Any]], api_key: ApiKey, at: datetime
) -> tuple[Authorization, ingesting.IngestAnswer]:
    """Record the events and end the authorization, or neither. It stays reserved until the events are settled.

    Raises Refused, decoding.BodyError, or Conflict `authorization_not_open`.
    """
    body = _encoder.encode(list(events))
    sent = ingesting.judged(body=body, content_type="application/json", api_key=api_key, at=at)
    [answer] = ingesting.record([sent])
    if answer.rejected or answer.conflict:
        raise Refused(answer)
    named = (authorization.public_id, authorization.customer.key)
    if not _end_by_events([named], EndedBy.CAPTURE, at):
        raise _not_open(authorization, at)
    return _again(authorization), answer


_encoder: Final = msgspec.json.Encoder(decimal_format="number")


@transaction.atomic
def _record(requests: Sequence[ingesting.Judged], *, permanent: bool = False) -> list[ingesting.IngestAnswer]:
    """Store events; those that name an open authorization end it at once. An unknown or ended one is a warning."""
    answers = ingesting.record(requests, permanent=permanent)
    endings = [ending for answer in answers for ending in answer.endings]
    if endings:
        # Of all requests together, so that locks are taken in one order. They came at one time, but for microseconds.
        names = [(ending.authorization, ending.customer_key) for ending in endings]
        ended = _end_by_events(names, EndedBy.EVENT, max(request.at for request in requests))
        for answer in answers:
            _warn(answer, ended)
    return answers


def _warn(answer: ingesting.IngestAnswer, ended: set[tuple[str, str]]) -> None:
    """Of those that were not open. The first event of its customer that names one has ended it; a second finds it
    ended."""
    for ending in answer.endings:
        named = ending.authorization, ending.customer_key
        if named in ended:
            ended.remove(named)
        else:
            answer.warn(ending, "authorization_not_open")


take: Final = ingesting.Ingest(_record)


def _end_by_events(names: Sequence[tuple[str, str]], ended_by: EndedBy, at: datetime) -> set[tuple[str, str]]:
    """End those that are open, in the transaction that stores their events; the fold that counts the events tells."""
    ended = store.end_by_events(names, ended_by, at)
    if ended:
        metering.note_endings(customer_ids=list(ended.values()), authorizations=[name for name, _ in ended])
    return set(ended)


def settle_all(*, customer_ids: Collection[int], at: datetime) -> set[int]:
    """Inside the claims, after everything is counted and settled: free the authorizations whose events are, and those
    that have expired. Whose there were any."""
    counted = metering.take_endings(customer_ids=customer_ids)
    return store.settle(customer_ids, counted, at)


def forget(*, at: datetime) -> int:
    """Forget authorizations that were settled long ago, by the clock of their customer; in short transactions. How
    many."""
    forgotten = 0
    while number := store.forget(kept=KEPT, at=at, most=MOST_FORGOTTEN):
        forgotten += number
    return forgotten


def _end(authorization: Authorization, ended_by: EndedBy, at: datetime) -> Authorization:
    if not store.end(authorization.customer_id, authorization.public_id, ended_by, at):
        raise _not_open(authorization, at)
    return _again(authorization)


def _again(authorization: Authorization) -> Authorization:
    return Authorization.objects.select_related("customer").get(pk=authorization.pk)


def _not_open(authorization: Authorization, at: datetime) -> Conflict:
    found = _again(authorization)
    how = EndedBy(found.ended_by).label.lower() if found.ended_by else "expiry"
    return Conflict(f"The authorization is not open: {how} has ended it.", code="authorization_not_open")
