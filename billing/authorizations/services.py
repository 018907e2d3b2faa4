"""Actions on authorizations. Each is one transaction; what they guarantee is told in docs/decisions/0015."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from django.db import OperationalError, connection, transaction

from accounts.gathering import Gathered
from accounts.ids import new_id
from accounts.models import ApiKey
from billing.authorizations import memory, reading, store
from billing.authorizations.decision import ANY, Allow, Deny, Pool, Reason, Stop, decide
from billing.authorizations.facts import Case, Name, Standing, UnknownMeter, Unpriced, Wanted
from billing.authorizations.models import Authorization, EndedBy
from billing.authorizations.reading import Stopping
from billing.authorizations.store import NewAuthorization, NewHold, Place
from billing.budgets import services as budgets
from billing.errors import Conflict
from billing.metering import ingesting
from billing.metering import queries as counters
from billing.metering import services as metering
from billing.money import exact, total

logger = logging.getLogger(__name__)

KEPT: Final = timedelta(days=7)  # how long an authorization can be asked for after its end
MOST_FORGOTTEN: Final = 10_000
MOST_TOGETHER: Final = 50  # questions in one transaction


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
    budget: Stopping | None = None
    stop: Stop | None = None


class UnknownCustomer(Exception):  # noqa: N818 -- an answer
    """There is no such customer."""


@dataclass(frozen=True, slots=True)
class Question:
    customer: str
    wanted: Wanted
    ttl: timedelta
    at: datetime


type Answer = Allowed | Denied | UnknownCustomer | UnknownMeter


def authorize(*, customer: str, wanted: Wanted, ttl: timedelta, at: datetime) -> Allowed | Denied:
    """Hold what is wanted by the customer with this key for `ttl`, of the credits and of every budget that stops; or
    hold nothing. `at` is now; a customer on a test clock has its own. Questions that come at the same time share a
    transaction, but for those that have much to read.

    Raises UnknownCustomer, UnknownMeter.
    """
    question = Question(customer, wanted, ttl, at)
    if connection.in_atomic_block or memory.takes_long(customer):
        [answer] = _answer([question])
    else:
        answer = _gathered(question)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(questions: Sequence[Question]) -> list[Answer]:
    while (round_ := _round(questions)).missing:
        store.open_accounts(round_.missing)
    return round_.answers


_gathered: Final = Gathered(_answer, most=MOST_TOGETHER)


def _round(questions: Sequence[Question]) -> "_Round":
    """One that rests on nothing that moved while it was read, written unless accounts have to be opened or locked."""
    commits = not connection.in_atomic_block
    with transaction.atomic(savepoint=False):
        done = _judged(questions)
        if not done.missing:
            store.write(done.authorizations, done.holds, commits=commits)
    return done


def _judged(questions: Sequence[Question]) -> "_Round":
    moments: dict[str, datetime] = {}
    for question in questions:
        moments[question.customer] = max(question.at, moments.get(question.customer, question.at))
    while True:
        found, unlocked = reading.read(moments)
        done = _Round({key: Standing(key, facts) for key, facts in found.items()}, questions, unlocked)
        if done.is_true():
            return done


class _Round:
    """The answers to some questions, in their order, and what is to be written for them."""

    def __init__(
        self, standings: Mapping[str, Standing], questions: Sequence[Question], missing: Iterable[Place]
    ) -> None:
        self.missing: set[Place] = set(missing)
        self.authorizations: list[NewAuthorization] = []
        self.holds: list[NewHold] = []
        self._standings = standings
        with exact():
            self.answers = [self._answer(question) for question in questions]

    def is_true(self) -> bool:
        """Whether all that was read beside the facts is of the same moment; then it is remembered."""
        read = [one for one in self._standings.values() if one.recalled.has_read]
        now = reading.versions([one.facts.customer for one in read]) if read else {}
        if any(now[one.facts.customer] != one.facts.version for one in read):
            return False
        for one in read:
            one.recalled.keep()
        return True

    def _answer(self, question: Question) -> Answer:
        standing = self._standings.get(question.customer)
        if standing is None:
            return UnknownCustomer()
        try:
            case = standing.case(question.wanted)
        except Unpriced:
            return Denied("no_subscription")
        except UnknownMeter as unknown:
            return unknown
        decision = decide(case.asked, case.pools, case.stops)
        if isinstance(decision, Deny):
            stop = decision.stop
            return Denied(decision.reason, standing.stopping[stop.budget] if stop else None, stop)
        return self._allow(standing, case, decision, question.ttl)

    def _allow(self, standing: Standing, case: Case, decision: Allow, ttl: timedelta) -> Allowed:
        new = NewAuthorization(new_id("auth"), standing.facts.customer, standing.facts.at, standing.facts.at + ttl)
        self.authorizations.append(new)
        units = {stop.budget: stop.unit for stop in case.stops}
        for (unit, meter), amount in decision.credits.items():
            self._hold(standing, new, (unit, None), meter, amount)
        for budget, amount in decision.budgets.items():
            self._hold(standing, new, (units[budget], budget), ANY, amount)
        amounts = {unit: total(asked.values()) for unit, asked in case.asked.items()}
        after = {
            unit: _available_after(case.pools[unit], case.stops, decision, amount) for unit, amount in amounts.items()
        }
        return Allowed(new.public_id, amounts, after, new.expires_at)

    def _hold(self, standing: Standing, new: NewAuthorization, name: Name, meter: str, amount: Decimal) -> None:
        if amount <= 0:
            return
        account = standing.accounts.get(name)
        if account is None:
            self.missing.add((new.customer, *name))
            return
        self.holds.append(NewHold(new.public_id, account, meter, amount))
        standing.hold(name, meter, amount)


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


def follow_all(*, customer_ids: Collection[int], moved: Collection[int], at: datetime) -> None:
    """Inside the claims, once everything is counted and settled, which moved the books of some of the customers: watch
    their budgets, free authorizations whose events are counted or that have expired, and publish."""
    if moved:
        _watch(moved, at)
    # Last, because authorizations wait from here on.
    counted = metering.take_endings(customer_ids=customer_ids)
    if changed := {*moved, *store.settle(customer_ids, counted, at)}:
        metering.publish_all(customer_ids=changed)


def _watch(customer_ids: Collection[int], at: datetime) -> None:
    """An alert that cannot be written must not keep events from being counted. A database that is busy is no such
    case: then all of it is done again."""
    try:
        with transaction.atomic():
            budgets.watch_all(as_of=counters.counted_through_all(customer_ids), at=at)
    except OperationalError:
        raise
    except Exception:
        if len(customer_ids) == 1:
            logger.exception("The budgets of customer %s could not be watched", *customer_ids)
        else:  # the others' can
            for customer_id in customer_ids:
                _watch([customer_id], at)


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
