"""Taking events: what comes in is judged, stored and answered, item by item."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction

from accounts.gathering import Gathered
from accounts.models import ApiKey
from billing.metering import appending, counting, decoding, limits, store
from billing.metering.counting import InvalidValue
from billing.metering.decoding import Refusal
from billing.metering.identity import IDENTITIES_KEPT
from billing.metering.judging import DEFAULT_SOURCE, UNTIMELY, Event, Window, judge, judge_by_clock, window
from billing.metering.models import UnmatchedReason

MOST_GATHERED: Final = 250  # events of one body, up to which others may share its transaction
_MARGIN: Final = timedelta(days=1)  # identities are forgotten by the clock of another process
_SAMPLE: Final = 1_000  # characters kept of a refused item


@dataclass(frozen=True, slots=True)
class Ending:
    """A stored event that names an authorization."""

    index: int
    event_id: str
    customer_key: str
    authorization: str


@dataclass(slots=True)
class IngestAnswer:
    """How many items came to what, and each one that was not plainly accepted, in the order they were sent.

    `endings`: the authorizations that stored events end, for the room that knows them.
    """

    accepted: int = 0
    duplicate: int = 0
    conflict: int = 0
    unmatched: int = 0
    rejected: int = 0
    results: list[dict[str, Any]] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)

    def warn(self, ending: Ending, warning: str) -> None:
        """Say something about an item that was stored all the same."""
        mine = next((result for result in self.results if result["index"] == ending.index), None)
        if mine is None:
            mine = {"index": ending.index, "id": ending.event_id, "status": "accepted"}
            self.results.append(mine)
        mine["warning"] = warning

    def as_dict(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "conflict": self.conflict,
            "unmatched": self.unmatched,
            "rejected": self.rejected,
            "results": sorted(self.results, key=lambda result: result["index"]),
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that was refused, and why."""

    index: int
    id: str | None
    source: str
    refusal: Refusal
    sample: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The items of one request: events, and those that are refused already."""

    events: Sequence[Event]
    refused: Sequence[Refused]
    api_key_id: int | None
    at: datetime


def judged(*, body: bytes, content_type: str, api_key: ApiKey | None, at: datetime, backfill: bool = False) -> Judged:
    """What the items of a body come to before anything is stored. Raises decoding.BodyError when the body as a whole
    cannot be read, and limits.Limited when the key has sent too much."""
    cut = decoding.split(body, content_type)
    if api_key:
        limits.charge(api_key, len(cut.items))
    events, refused = judge_items(cut.items, cut.shape, window(at, backfill=backfill))
    if any(one.refusal.code in UNTIMELY for one in refused):
        events, refused = _judged_by_clocks(cut, events, refused, backfill)
    return Judged(events, refused, api_key.pk if api_key else None, at)


def _judged_by_clocks(
    cut: decoding.Body, events: list[Event], refused: Sequence[Refused], backfill: bool
) -> tuple[list[Event], list[Refused]]:
    """Items that come too early or too late by our clock may be timely by the test clock of their customer."""
    untimely = {one.index: cut.items[one.index] for one in refused if one.refusal.code in UNTIMELY}
    sent = {index: decoding.read(item, cut.shape) for index, item in untimely.items() if isinstance(item, bytes)}
    clocks = store.clock_times({one.customer for one in sent.values()})
    still: list[Refused] = []
    for one in refused:
        clock = clocks.get(sent[one.index].customer) if one.index in sent else None
        if clock is None:
            still.append(one)
            continue
        try:
            events.append(judge(sent[one.index], one.index, window(clock, backfill=backfill)))
        except Refusal as refusal:
            still.append(replace(one, refusal=refusal))
    return sorted(events, key=lambda event: event.index), still


@transaction.atomic(savepoint=False)
def record(requests: Sequence[Judged], *, permanent: bool = False) -> list[IngestAnswer]:
    """Store judged events; what was refused before is answered and counted with what is refused now."""
    answers = [IngestAnswer() for _ in requests]
    events = [event for request in requests for event in request.events]
    catalogue = _Catalogue.held_for(events) if events else None
    taken: list[tuple[list[appending.Item], IngestAnswer]] = []
    for request, answer in zip(requests, answers, strict=True):
        refused = list(request.refused)
        if catalogue:
            items, invalid = _matched(request, catalogue, permanent)
            refused += invalid
            taken.append((items, answer))
        if refused:
            _answer_refused(refused, answer)
            store.append_refused(_grouped(refused), api_key_id=request.api_key_id, at=request.at)
    _append(taken, permanent)
    return answers


class Ingest:
    """Takes the events of a body, each on its own, in one transaction that only appends; small bodies that come at the
    same time share it. Not inside a transaction of the caller's.

    Once it returns, what is answered as accepted or unmatched is stored for good. `backfill` takes events back to
    1970 and keeps their identities for ever. Raises as `judged` does.

    `record` stores them: a later room does more in the same transaction.
    """

    def __init__(self, record: Callable[..., list[IngestAnswer]]) -> None:
        self._record = record
        self._gathered = Gathered(record, weigh=lambda sent: len(sent.events), most=decoding.MAX_EVENTS, patient=True)

    def __call__(
        self, *, body: bytes, content_type: str, api_key: ApiKey | None, at: datetime, backfill: bool = False
    ) -> IngestAnswer:
        sent = judged(body=body, content_type=content_type, api_key=api_key, at=at, backfill=backfill)
        if backfill:
            return self._backfill(sent)
        if len(sent.events) > MOST_GATHERED:
            [answer] = self._record([sent])
            return answer
        return self._gathered(sent)

    @transaction.atomic
    def _backfill(self, sent: Judged) -> IngestAnswer:
        """Only here can an event come again after its identity was forgotten."""
        appending.recall(sent.events, recorded_before=sent.at - IDENTITIES_KEPT + _MARGIN)
        [answer] = self._record([sent], permanent=True)
        return answer


ingest: Final = Ingest(record)


def judge_items(
    items: Sequence[bytes | Refusal], shape: decoding.Shape, taken: Window, source: str = ""
) -> tuple[list[Event], list[Refused]]:
    """Items that are events, and those that are refused; these count for `source` where they name none."""
    events: list[Event] = []
    refused: list[Refused] = []
    for index, item in enumerate(items):
        try:
            if isinstance(item, Refusal):
                raise item
            events.append(judge(decoding.read(item, shape), index, taken))
        except Refusal as refusal:
            raw = b"" if isinstance(item, Refusal) else item
            event_id, named = decoding.names(raw)
            sample = raw[: 4 * _SAMPLE].decode(errors="ignore")[:_SAMPLE]
            refused.append(Refused(index, event_id, named or source, refusal, sample))
    return events, refused


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """What decides where events count. Until the transaction ends, no customer or meter comes between."""

    customers: Mapping[str, int]
    clocks: Mapping[str, datetime]
    counters: Mapping[str, list[counting.Counter]]
    revisions: Mapping[str, int]

    @classmethod
    def held_for(cls, events: Sequence[Event]) -> "_Catalogue":
        keys, types = {event.customer_key for event in events}, {event.type for event in events}
        customers, clocks, counters = store.held_catalogue(keys, types)
        return cls(customers, clocks, counters, counting.revisions(counters))


def _matched(request: Judged, catalogue: _Catalogue, permanent: bool) -> tuple[list[appending.Item], list[Refused]]:
    """The events with their customers and what they add to the counters, and those whose values are refused, or whose
    time is by their customer's test clock."""
    customers, counters, revisions = catalogue.customers, catalogue.counters, catalogue.revisions
    items: list[appending.Item] = []
    refused: list[Refused] = []
    for event in request.events:
        customer_id = customers.get(event.customer_key)
        try:
            if catalogue.clocks and event.customer_key in catalogue.clocks:
                judge_by_clock(event, window(catalogue.clocks[event.customer_key], backfill=permanent))
                event.recorded_at = request.at
            feeds = counting.feeds(counters.get(event.type, ()), event)
        except (InvalidValue, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else Refusal("invalid_value", str(error), "properties")
            refused.append(Refused(event.index, event.id, event.source, refusal, event.properties_json[:_SAMPLE]))
            continue
        if customer_id is None:
            items.append(appending.Unmatched(event, UnmatchedReason.UNKNOWN_CUSTOMER.value))
        elif event.type not in counters:
            items.append(appending.Unmatched(event, UnmatchedReason.NO_METER.value))
        else:
            items.append(appending.Matched(event, customer_id, feeds, revisions[event.type]))
    return items, refused


def _append(taken: Sequence[tuple[list[appending.Item], IngestAnswer]], permanent: bool) -> None:
    first: dict[str, appending.Item] = {}
    for items, _ in taken:
        for item in items:
            first.setdefault(item.event.digest, item)
    known = appending.append(list(first.values()), permanent=permanent) if first else {}
    for items, answer in taken:
        for item in items:
            digest = item.event.digest
            winner = known.get(digest)
            if winner is None and item is first[digest]:
                _answer_stored(item, answer)
            else:
                _answer_repeat(item.event, winner or first[digest].event.payload, answer)


def _answer_repeat(event: Event, payload: str, answer: IngestAnswer) -> None:
    if event.payload == payload:
        answer.duplicate += 1
        answer.results.append({"index": event.index, "id": event.id, "status": "duplicate"})
    else:
        answer.conflict += 1
        answer.results.append(_conflict(event))


def _answer_stored(item: appending.Item, answer: IngestAnswer) -> None:
    event = item.event
    if isinstance(item, appending.Unmatched):
        answer.unmatched += 1
        result = {"index": event.index, "id": event.id, "status": "unmatched", "reason": item.reason}
        answer.results.append(result)
    else:
        answer.accepted += 1
    if event.authorization is not None:
        answer.endings.append(Ending(event.index, event.id, event.customer_key, event.authorization))


def _conflict(event: Event) -> dict[str, Any]:
    detail = "Another event with this source and id said something else; the first one counts."
    return {"index": event.index, "id": event.id, "status": "conflict", "detail": detail}


def _answer_refused(refused: Sequence[Refused], answer: IngestAnswer) -> None:
    answer.rejected += len(refused)
    for one in refused:
        result = {"index": one.index, "id": one.id, "status": "rejected", "code": one.refusal.code}
        if one.refusal.field:
            result["field"] = one.refusal.field
        answer.results.append(result | {"detail": one.refusal.detail})


def _grouped(refused: Sequence[Refused]) -> list[store.RefusedGroup]:
    groups: dict[tuple[str, str], store.RefusedGroup] = {}
    for one in refused:
        source, code = one.source or DEFAULT_SOURCE, one.refusal.code
        new = store.RefusedGroup(source, code, 0, one.sample, one.refusal.detail)
        groups.setdefault((source, code), new).items += 1
    return list(groups.values())
