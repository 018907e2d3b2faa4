"""Actions of metering: take events, count them, define meters."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import batched
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Max, QuerySet

from accounts.gathering import Gathered
from accounts.models import ApiKey
from billing.errors import Conflict
from billing.metering import (
    backfilling,
    capping,
    corrections,
    counting,
    decoding,
    folding,
    limits,
    minutes,
    partitions,
    queries,
    store,
)
from billing.metering.backfilling import PAGE, counted_by
from billing.metering.counting import InvalidValue
from billing.metering.decoding import Refusal
from billing.metering.importing import Fingerprint
from billing.metering.importing import Options as ImportOptions
from billing.metering.judging import DEFAULT_SOURCE, UNTIMELY, Event, Window, judge, judge_by_clock, window
from billing.metering.models import (
    Aggregation,
    Backfill,
    ImportRun,
    Meter,
    NamedValue,
    RefusedItems,
    UnmatchedReason,
    UsageEvent,
    Watermark,
)
from billing.money import plain
from billing.periods import minute_floor, starts_on_quarter

MOST_REPLAYED: Final = 5_000  # unmatched events that one transaction moves
IDENTITIES_KEPT: Final = timedelta(days=42)  # longer than events are accepted back
REFUSED_KEPT: Final = timedelta(days=90)
MOST_FORGOTTEN: Final = 10_000  # identities in one transaction
MOST_GATHERED: Final = 250  # events of one body, up to which others may share its transaction
_SAMPLE: Final = 1_000  # characters kept of a refused item


# --- taking events ----------------------------------------------------------------------------------------------


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
    events, refused = _judged(cut.items, cut.shape, window(at, backfill=backfill))
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
    taken: list[tuple[list[store.Item], IngestAnswer]] = []
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
        self._gathered = Gathered(record, weigh=lambda sent: len(sent.events), most=decoding.MAX_EVENTS)

    def __call__(
        self, *, body: bytes, content_type: str, api_key: ApiKey | None, at: datetime, backfill: bool = False
    ) -> IngestAnswer:
        sent = judged(body=body, content_type=content_type, api_key=api_key, at=at, backfill=backfill)
        if backfill or len(sent.events) > MOST_GATHERED:
            [answer] = self._record([sent], permanent=backfill)
            return answer
        return self._gathered(sent)


ingest: Final = Ingest(record)


def _judged(
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
        return cls(customers, clocks, counters, _revisions(counters))


def _matched(request: Judged, catalogue: _Catalogue, permanent: bool) -> tuple[list[store.Item], list[Refused]]:
    """The events with their customers and what they add to the counters, and those whose values are refused, or whose
    time is by their customer's test clock."""
    customers, counters, revisions = catalogue.customers, catalogue.counters, catalogue.revisions
    items: list[store.Item] = []
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
            items.append(store.Unmatched(event, UnmatchedReason.UNKNOWN_CUSTOMER.value))
        elif event.type not in counters:
            items.append(store.Unmatched(event, UnmatchedReason.NO_METER.value))
        else:
            items.append(store.Matched(event, customer_id, feeds, revisions[event.type]))
    return items, refused


def _revisions(counters: Mapping[str, Iterable[counting.Counter]]) -> dict[str, int]:
    return {kind: max(one.definition.revision for one in found) for kind, found in counters.items()}


def _append(taken: Sequence[tuple[list[store.Item], IngestAnswer]], permanent: bool) -> None:
    first: dict[str, store.Item] = {}
    for items, _ in taken:
        for item in items:
            first.setdefault(item.event.digest, item)
    known = store.append(list(first.values()), permanent=permanent) if first else {}
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


def _answer_stored(item: store.Item, answer: IngestAnswer) -> None:
    event = item.event
    if isinstance(item, store.Unmatched):
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


@transaction.atomic
def replay_unmatched(*, customer_keys: Sequence[str] = (), event_types: Sequence[str] = (), at: datetime) -> int:
    """Count events that waited for a customer or a meter which exists by now, each exactly once; how many.

    Call it with what was just made, in the transaction that made it: no event slips between the two. At most
    MOST_REPLAYED move at once; a sweeper (without arguments) moves the rest, and what an import of customers left.
    They keep their `recorded_at`. One whose value a new meter cannot take stays, visibly.
    """
    if customer_keys or event_types:
        store.change_catalogue()
    else:
        store.hold_catalogue()
    rows = store.matchable(customer_keys, event_types, MOST_REPLAYED)
    words = corrections.of([event.digest for _, _, event in rows])
    counters = store.counters({event.type for _, _, event in rows})
    revisions = _revisions(counters)
    moved: dict[int, store.Matched] = {}
    invalid: list[int] = []
    for row_id, customer_id, event in rows:
        try:
            current = corrections.corrected(event, words.get(event.digest, []))
            feeds = counting.feeds(counters[event.type], current) if current else []
            moved[row_id] = store.Matched(event, customer_id, feeds, revisions[event.type])
        except InvalidValue:
            invalid.append(row_id)
    store.append_events(list(moved.values()))
    store.remove_unmatched(list(moved))
    store.keep_unmatched(invalid, UnmatchedReason.INVALID_VALUE)
    store.name_missing_meters(customer_keys)
    return len(moved)


def purge_minutes(*, at: datetime) -> int:
    """Forget the minutes that nobody can ask for any more, in short transactions; how many."""
    purged = 0
    while number := minutes.forget(at - folding.MINUTES_STORED, MOST_FORGOTTEN):
        purged += number
    return purged


def purge_refused(*, at: datetime) -> int:
    """Forget counts and samples of what was refused long ago; how many rows."""
    gone, _ = RefusedItems.objects.filter(recorded_at__lt=at - REFUSED_KEPT).delete()
    return gone


def purge_identities(*, at: datetime) -> int:
    """Forget identities that no sender can repeat any more, in short transactions; how many."""
    purged = 0
    while number := store.forget_identities(at - IDENTITIES_KEPT, MOST_FORGOTTEN):
        purged += number
    return purged


# --- importing ----------------------------------------------------------------------------------------------------


def start_import(*, file: Fingerprint, options: ImportOptions, name: str, at: datetime) -> ImportRun:
    """The run of this file with these options: a new one, or the one that was interrupted or finished before."""
    run, _ = ImportRun.objects.get_or_create(
        digest=file.digest, mapping_digest=options.digest(), defaults={"name": name, "started_at": at}
    )
    return run


@transaction.atomic
def import_rows(*, run: ImportRun, rows: Sequence[tuple[int, bytes | Refusal]], at: datetime) -> IngestAnswer:
    """Take the next rows of a file, which begin after `run.next_row`, and note how far it has come, at once.

    Their identities are the file's digest and the row's number, and are kept for ever: a row is imported once.
    """
    run = ImportRun.objects.select_for_update().get(pk=run.pk)
    rows = [row for row in rows if row[0] > run.next_row]  # another process may have taken some
    items = [item for _, item in rows]
    events, refused = _judged(items, decoding.Shape.NATIVE, window(at, backfill=True), source=run.digest)
    [answer] = record([Judged(events, refused, None, at)], permanent=True)
    run.next_row = rows[-1][0] if rows else run.next_row
    run.accepted += answer.accepted + answer.unmatched
    run.refused += answer.rejected + answer.conflict
    run.save(update_fields=["next_row", "accepted", "refused"])
    return answer


def finish_import(*, run: ImportRun, at: datetime) -> None:
    ImportRun.objects.filter(pk=run.pk, finished_at=None).update(finished_at=at)


def note_endings(*, customer_ids: Sequence[int], authorizations: Sequence[str]) -> None:
    """In the transaction that stores the events: they ended these holds of these customers, pair by pair."""
    store.append_endings(customer_ids, authorizations)


def take_endings(*, customer_ids: Collection[int]) -> list[str]:
    """Inside the claims: the holds whose events are counted by now, each once."""
    return store.take_endings(customer_ids)


# --- counting -----------------------------------------------------------------------------------------------------


def claim_next(*, skip: Collection[int], most: int) -> list[int]:
    """Inside a transaction: claim the dirty customers that were counted longest ago, passing over `skip` and whoever
    is claimed already; none when nothing waits."""
    return folding.claim_dirty(skip, most)


def claim(*, customer_id: int) -> None:
    """Inside a transaction: wait for the customer's claim and hold it until the transaction ends."""
    Watermark.objects.select_for_update().get(pk=customer_id)


def fold(*, customer_id: int, at: datetime) -> datetime | None:
    """As `fold_all`, for one customer; None when nothing moved."""
    return fold_all(customer_ids=[customer_id], at=at).get(customer_id)


def fold_all(*, customer_ids: Collection[int], at: datetime) -> dict[int, datetime]:
    """Inside the claims: move the customers' deltas into their counters. By customer, where anything moved: the start
    of the earliest quarter hour that did."""
    found = folding.move_deltas(customer_ids, at)
    for customer_id, moved in found.items():
        if moved.recounts:
            _recount(customer_id, moved.recounts)
    return {customer_id: moved.since for customer_id, moved in found.items()}


def _recount(customer_id: int, quarters: Iterable[tuple[int, datetime]]) -> None:
    """Of max and latest meters: find again what decides. Events that are stored and not yet folded may be among them;
    to fold them afterwards changes nothing."""
    store.hold_catalogue()
    counters = {one.id: counting.counter(one) for one in store.definitions_of({meter for meter, _ in quarters})}
    backfills = backfilling.unfinished(counters)
    for meter_id, starts_at in quarters:
        counter = counters[meter_id]
        by_dimensions: dict[str, counting.Feed] = {}
        by_minute: dict[datetime, counting.Feed] = {}
        for page in batched(corrections.of_quarter(customer_id, counter.definition.event_type, starts_at), PAGE):
            fed = [(counted_by([counter], event, customer_id, backfills), event) for event in page]
            feeds = [(feed, event) for counted, event in fed for feed in counting.counted_feeds(counted, event)]
            elsewhere = capping.placed(customer_id, starts_at, {feed.dimensions for feed, _ in feeds})
            for feed, event in feeds:
                _decide(by_dimensions, elsewhere.get(feed.dimensions, feed.dimensions), feed)
                _decide(by_minute, minute_floor(event.occurred_at), feed)
        folding.set_decisive(customer_id, meter_id, starts_at, by_dimensions=by_dimensions, by_minute=by_minute)


def _decide[Place](decisive: dict[Place, counting.Feed], place: Place, feed: counting.Feed) -> None:
    kept = decisive.setdefault(place, feed)
    if (feed.rank or "") > (kept.rank or ""):
        decisive[place] = feed


def publish(*, customer_id: int) -> None:
    """Inside the claim: tell the customer's pages that something they show has moved."""
    publish_all(customer_ids=[customer_id])


def publish_all(*, customer_ids: Collection[int]) -> None:
    """Inside the claims: tell pages that something they show has moved."""
    Watermark.objects.filter(pk__in=customer_ids).update(version=F("version") + 1)


def track(*, customer_id: int, starts_at: datetime, ends_at: datetime) -> None:
    """Inside the claim: keep totals of a range, which lies on quarter hours, from now on. Repeating changes nothing."""
    assert starts_on_quarter(starts_at)
    assert starts_on_quarter(ends_at)
    folding.track_period(customer_id, starts_at, ends_at)


@transaction.atomic
def name_values(*, named_by: str, namings: Iterable[capping.Naming]) -> None:
    """Later rooms say here what a price or budget names: (meter, dimension, value), value None for events without the
    dimension. It replaces what `named_by` said before; nothing releases it. Such a value counts by itself however
    many others its customer uses, from the first quarter hour on in which none was counted under `(other)`.

    Raises Conflict `no_such_dimension` for one that its meter has lost meanwhile.
    """
    namings = list(namings)
    meters = {one.pk: one for one in _locked_meters({meter_id for meter_id, *_ in namings})}
    for meter_id, dimension, _ in namings:
        if dimension not in meters[meter_id].dimensions:
            detail = f'The meter {meters[meter_id].key} has no dimension "{dimension}" any more.'
            raise Conflict(detail, code="no_such_dimension")
    capping.name(named_by, namings)


def _locked_meters(ids: Collection[int]) -> QuerySet[Meter]:
    """They keep their dimensions until the transaction ends."""
    return Meter.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True)


# --- meters -------------------------------------------------------------------------------------------------------


class MeterIsCounted(Exception):  # noqa: N818 -- a state of the meter
    """The change would give a new meaning to what is counted already."""

    def __init__(self, field_name: str) -> None:
        super().__init__(f"{field_name} is frozen: events were counted with it. Make another meter instead.")
        self.field = field_name


FROZEN_ONCE_COUNTED: Final = (
    "event_type",
    "aggregation",
    "value",
    "dimensions",
    "filters",
)  # dimensions may come and go
# What answers about usage and spend take as parameters of their own.
RESERVED_DIMENSIONS: Final = frozenset(
    {"price", "meter", "unit", "from", "to", "granularity", "group_by", "subscription", "cursor", "limit"}
)


@transaction.atomic
def create_meter(
    *,
    key: str,
    event_type: str,
    aggregation: str,
    at: datetime,
    value: str = "",
    name: str = "",
    unit: str = "unit",
    dimensions: Sequence[str] = (),
    filters: Sequence[Mapping[str, Any]] = (),
) -> Meter:
    """Define a meter. It counts from now on, in every process, and the events that waited for it are counted at once;
    other stored events of its type by and by (see `backfill`).

    Raises ValidationError by field.
    """
    meter = Meter(
        key=key,
        name=name or key,
        unit=unit,
        event_type=event_type,
        aggregation=aggregation,
        value=value,
        dimensions=list(dimensions),
        filters=_storable(filters),
    )
    store.change_catalogue()
    check(meter)
    meter.revision = _next_revision()
    meter.save(force_insert=True)
    _start_backfill(meter, None, at)
    replay_unmatched(event_types=[event_type], at=at)
    meter.refresh_from_db(fields=["created_at"])
    return meter


@transaction.atomic
def update_meter(*, meter: Meter, at: datetime, **changes: Any) -> Meter:
    """Change a meter's fields, all but its key. Raises MeterIsCounted for a field that gave counted events their
    meaning, ValidationError by field.

    Dimensions may be added at any time, and removed while nothing names them: the stored events are counted again by
    and by. Raises Conflict `dimension_named`; `backfill_running` for a change of what is counted while an earlier one
    is still being worked through.
    """
    store.change_catalogue()
    meter = Meter.objects.select_for_update().get(pk=meter.pk)
    if "filters" in changes:
        changes["filters"] = _storable(changes["filters"])
    changed = [name for name, value in changes.items() if getattr(meter, name) != value]
    _refuse_to_lose_named(meter, set(meter.dimensions).difference(changes.get("dimensions", meter.dimensions)))
    counting_differs = [name for name in FROZEN_ONCE_COUNTED if name in changed]
    before = _dimensions_before(meter, counting_differs, changes) if counting_differs else None
    for name in changed:
        setattr(meter, name, changes[name])
    check(meter)
    if counting_differs:
        meter.revision = _next_revision()
        _start_backfill(meter, before, at)
    meter.save(update_fields=[*changed, "revision"])
    if "event_type" in changed:
        replay_unmatched(event_types=[meter.event_type], at=at)
    return meter


def _dimensions_before(meter: Meter, counting_differs: Sequence[str], changes: Mapping[str, Any]) -> list[str] | None:
    """Whether the meter may count otherwise from now on: the dimensions by which it counted, None if it has not."""
    if backfilling.unfinished([meter.pk]):
        detail = "Stored events are being counted with this meter. Change it when that is done."
        raise Conflict(detail, code="backfill_running", field=counting_differs[0])
    if not queries.is_counted(meter):
        return None
    if frozen := [name for name in counting_differs if name != "dimensions"]:
        raise MeterIsCounted(frozen[0])
    return meter.dimensions


def _refuse_to_lose_named(meter: Meter, dimensions: Collection[str]) -> None:
    named = NamedValue.objects.filter(meter=meter, dimension__in=dimensions).order_by("pk").first()
    if named is not None:
        detail = f'"{named.dimension}" stays, because {named.named_by} names it.'
        raise Conflict(detail, code="dimension_named", field="dimensions")


def _next_revision() -> int:
    """Inside `store.change_catalogue`: nobody counts, so events before and after it carry different numbers."""
    return 1 + (Meter.objects.aggregate(last=Max("revision"))["last"] or 0)


def _start_backfill(meter: Meter, dimensions_before: list[str] | None, at: datetime) -> None:
    if UsageEvent.objects.exists():
        Backfill.objects.create(
            meter=meter,
            dimensions_before=dimensions_before,
            sees_from=partitions.archived_through(),
            started_at=at,
        )


def backfill(*, at: datetime) -> bool:
    """Count the next page of stored events with a meter that came, or changed, after them, in one transaction.
    Whether there was anything to do. Several may run at once: they work on different meters."""
    with transaction.atomic():
        store.hold_catalogue()  # before the row, as corrections do
        waiting = Backfill.objects.filter(finished_at=None).order_by("pk")
        current = waiting.select_for_update(skip_locked=True, of=("self",)).first()
        if current is None:
            return False
        [definition] = store.definitions_of([current.meter_id])
        store.append_deltas(backfilling.next_page(current, counting.counter(definition)))
        current.finished_at = at if current.percent == 100 else None  # noqa: PLR2004 -- percent
        current.save()
    return True


def _storable(filters: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Filters as JSON holds them: fractions as text, which is compared as exactly."""
    return [{name: _without_decimals(value) for name, value in one.items()} for one in filters]


def _without_decimals(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    return [_without_decimals(one) for one in value] if isinstance(value, list) else value


def check(meter: Meter) -> None:
    """ValidationError by field unless the meter makes sense."""
    errors: dict[str, Any] = {}
    try:
        meter.full_clean(validate_constraints=False)
    except ValidationError as error:
        errors = dict(error.error_dict)
    if meter.aggregation != Aggregation.COUNT and not meter.value:
        errors["value"] = ValidationError("Name the property that is measured, by its path.", "missing_field")
    if meter.aggregation == Aggregation.COUNT and meter.value:
        errors["value"] = ValidationError("A count takes no value.", "invalid_field")
    if problem := counting.filters_problem(meter.filters):
        errors["filters"] = ValidationError(problem, "invalid_field")
    if reserved := RESERVED_DIMENSIONS.intersection(meter.dimensions):
        detail = f'"{min(reserved)}" cannot be a dimension: questions about usage have a parameter of that name.'
        errors["dimensions"] = ValidationError(detail, "reserved_name")
    if len(set(meter.dimensions)) < len(meter.dimensions):
        errors["dimensions"] = ValidationError("A dimension is named twice.", "invalid_field")
    if errors:
        raise ValidationError(errors)
