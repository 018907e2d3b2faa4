"""Actions of metering on single events: taking one back and replacing what it said."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.models import ApiKey
from billing.errors import Conflict
from billing.metering import appending, backfilling, corrections, counting, decoding, partitions, store
from billing.metering.counting import InvalidValue
from billing.metering.judging import Event
from billing.metering.models import EventCorrection, EventIdentity


@transaction.atomic
def void_event(
    *, source: str, event_id: str, at: datetime, reason: str = "", api_key: ApiKey | None = None
) -> EventCorrection:
    """From now on the event counts for nothing; its id stays taken. Repeating changes nothing: the first void stands.

    Raises corrections.UnknownEvent; Conflict `too_old` when the event's row lies in an archive.
    """
    found = _correctable(source, event_id)
    if found.current is None:
        return found.corrections[-1]
    return _correct(found, None, reason, api_key, at)


@transaction.atomic
def amend_event(
    *,
    source: str,
    event_id: str,
    properties: dict[str, Any],
    at: datetime,
    reason: str = "",
    api_key: ApiKey | None = None,
) -> EventCorrection | None:
    """The event counts as if it had been sent with these properties, which are all of them. Repeating changes nothing:
    answers the correction that holds, None where there is none because the event said this from the start.

    Raises as `void_event`, Conflict `event_void`, ValidationError for properties that an event could not have.
    """
    found = _correctable(source, event_id)
    if found.current is None:
        raise Conflict("The event is void. Send another event with another id.", code="event_void")
    changed = _amended(found.event, properties)
    if changed.properties == found.current.properties:
        return found.corrections[-1] if found.corrections else None
    return _correct(found, changed, reason, api_key, at)


def _correctable(source: str, event_id: str) -> corrections.Found:
    store.hold_catalogue()
    try:
        return corrections.find(source, event_id, lock=True)
    except corrections.ArchivedEvent as error:
        detail = "The event is archived: it was counted too long ago to be corrected."
        raise Conflict(detail, code="too_old") from error


def _amended(event: Event, properties: dict[str, Any]) -> Event:
    try:
        changed = corrections.amended(event, properties)
    except ValueError as error:
        raise ValidationError({"properties": ValidationError(str(error), "invalid_field")}) from error
    if len(changed.properties) > decoding.MAX_PROPERTIES:
        detail = f"Send at most {decoding.MAX_PROPERTIES} properties."
        raise ValidationError({"properties": ValidationError(detail, "too_many_properties")})
    if len(changed.properties_json.encode()) > decoding.MAX_EVENT_BYTES:
        detail = f"An event is at most {decoding.MAX_EVENT_BYTES:,} bytes."
        raise ValidationError({"properties": ValidationError(detail, "too_large")})
    return changed


def _correct(
    found: corrections.Found, changed: Event | None, reason: str, api_key: ApiKey | None, at: datetime
) -> EventCorrection:
    counters = store.counters({found.event.type}).get(found.event.type, [])
    try:
        counting.feeds(counters if changed else [], changed or found.event)
    except InvalidValue as error:
        raise ValidationError({"properties": ValidationError(str(error), "invalid_value")}) from error
    if found.customer_id is not None and found.current is not None:
        # What a backfill has not reached it will count as corrected.
        backfills = backfilling.unfinished([one.definition.id for one in counters], hold=True)
        counters = backfilling.counted_by(counters, found.event, found.customer_id, backfills)
        before = counting.counted_feeds(counters, found.current)
        after = counting.counted_feeds(counters, changed) if changed else []
        deltas = corrections.changes(found.event, found.customer_id, before, after)
        _refuse_what_cannot_be_counted_again(found.event, deltas)
        appending.append_deltas(deltas)
    _keep_identity(found.event)
    return corrections.append(found.event, changed, reason=reason, api_key_id=api_key.pk if api_key else None, at=at)


def _refuse_what_cannot_be_counted_again(event: Event, deltas: Sequence[appending.Delta]) -> None:
    ranked = any(change.rank == corrections.RECOUNT for delta in deltas for change in delta.changes)
    if ranked and corrections.may_be_archived(event.occurred_at, partitions.archived_through()):
        detail = "Events of the same quarter hour are archived, and one of them may decide what a meter says."
        raise Conflict(detail, code="too_old")


def _keep_identity(event: Event) -> None:
    """A corrected event can be found for ever, and a void id cannot be sent again. What the event said to the letter is
    forgotten with an identity; whatever comes with this id now is in conflict."""
    EventIdentity.objects.update_or_create(
        digest=event.digest,
        defaults={"permanent": True},
        create_defaults={"payload": uuid.UUID(int=0), "recorded_at": event.recorded_at, "permanent": True},
    )
