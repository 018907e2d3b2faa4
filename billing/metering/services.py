"""Actions of metering: count events, import them, define meters."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import batched
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet

from billing.errors import Conflict
from billing.metering import (
    appending,
    backfilling,
    capping,
    corrections,
    counting,
    decoding,
    folding,
    ingesting,
    minutes,
    partitions,
    queries,
    store,
)
from billing.metering.backfilling import PAGE, counted_by
from billing.metering.counter_models import NamedValue
from billing.metering.counting import InvalidValue
from billing.metering.decoding import Refusal
from billing.metering.identity import IDENTITIES_KEPT
from billing.metering.importing import Fingerprint
from billing.metering.importing import Options as ImportOptions
from billing.metering.judging import window
from billing.metering.models import (
    Aggregation,
    Backfill,
    ImportRun,
    Meter,
    RefusedItems,
    UnmatchedReason,
    UsageEvent,
    Watermark,
)
from billing.money import plain
from billing.periods import minute_floor, starts_on_quarter

MOST_REPLAYED: Final = 5_000  # unmatched events that one transaction moves
REFUSED_KEPT: Final = timedelta(days=90)
MOST_FORGOTTEN: Final = 10_000  # identities in one transaction


# --- what waits, and what is forgotten -------------------------------------------------------------------------


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
    revisions = counting.revisions(counters)
    moved: dict[int, appending.Matched] = {}
    invalid: list[int] = []
    for row_id, customer_id, event in rows:
        try:
            current = corrections.corrected(event, words.get(event.digest, []))
            feeds = counting.feeds(counters[event.type], current) if current else []
            moved[row_id] = appending.Matched(event, customer_id, feeds, revisions[event.type])
        except InvalidValue:
            invalid.append(row_id)
    appending.append_events(list(moved.values()))
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
def import_rows(*, run: ImportRun, rows: Sequence[tuple[int, bytes | Refusal]], at: datetime) -> ingesting.IngestAnswer:
    """Take the next rows of a file, which begin after `run.next_row`, and note how far it has come, at once.

    Their identities are the file's digest and the row's number, and are kept for ever: a row is imported once.
    """
    run = ImportRun.objects.select_for_update().get(pk=run.pk)
    rows = [row for row in rows if row[0] > run.next_row]  # another process may have taken some
    items = [item for _, item in rows]
    events, refused = ingesting.judge_items(items, decoding.Shape.NATIVE, window(at, backfill=True), source=run.digest)
    [answer] = ingesting.record([ingesting.Judged(events, refused, None, at)], permanent=True)
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


def claim_free(*, customer_ids: Collection[int]) -> list[int]:
    """Inside a transaction: claim these customers, passing over whoever is claimed already; which it got."""
    free = Watermark.objects.filter(pk__in=customer_ids).select_for_update(skip_locked=True)
    return list(free.order_by("pk").values_list("pk", flat=True))


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
    """Later rooms say here what a price, unit cost or budget names: (meter, dimension, value), value None for events
    without the dimension. It replaces what `named_by` said before; nothing releases it. Such a value counts by itself
    however many others its customer uses, from the first quarter hour on in which none was counted under `(other)`.

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


FROZEN_ONCE_COUNTED: Final = ("event_type", "aggregation", "value", "filters")
_SAYS_WHAT_COUNTS: Final = (*FROZEN_ONCE_COUNTED, "dimensions")  # which may come and go
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
    meter.revision = store.next_revision()
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
    counting_differs = [name for name in _SAYS_WHAT_COUNTS if name in changed]
    before = _dimensions_before(meter, counting_differs, changes) if counting_differs else None
    for name in changed:
        setattr(meter, name, changes[name])
    check(meter)
    if counting_differs:
        meter.revision = store.next_revision()
        _start_backfill(meter, before, at)
    meter.save(update_fields=[*changed, "revision"])
    if "event_type" in changed:
        replay_unmatched(event_types=[meter.event_type], at=at)
    return meter


@transaction.atomic
def delete_meter(*, meter: Meter) -> None:
    """Forget a meter that has counted nothing. Raises Conflict `meter_counted`, ProtectedError where something names
    it."""
    store.change_catalogue()
    if queries.is_counted(meter):
        raise Conflict("Events were counted with this meter, so it stays.", code="meter_counted")
    meter.delete()


def _dimensions_before(meter: Meter, counting_differs: Sequence[str], changes: Mapping[str, Any]) -> list[str] | None:
    """Whether the meter may count otherwise from now on: the dimensions by which it counted, None if it has not."""
    if backfilling.unfinished([meter.pk]):
        detail = "Stored events are being counted with this meter. Change it when that is done."
        raise Conflict(detail, code="backfill_running", field=counting_differs[0])
    if not queries.is_counted(meter):
        return None
    if frozen := [name for name in counting_differs if name in FROZEN_ONCE_COUNTED]:
        raise MeterIsCounted(frozen[0])
    return meter.dimensions


def _refuse_to_lose_named(meter: Meter, dimensions: Collection[str]) -> None:
    named = NamedValue.objects.filter(meter=meter, dimension__in=dimensions).order_by("pk").first()
    if named is not None:
        detail = f'"{named.dimension}" stays, because {named.named_by} names it.'
        raise Conflict(detail, code="dimension_named", field="dimensions")


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
        appending.append_deltas(backfilling.next_page(current, counting.counter(definition)))
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
