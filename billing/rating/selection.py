"""What a question about usage or spend is about: its range, its buckets, its groups and its filters.

Read from the query string in one way for every endpoint, and from there on plain values.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final, cast

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from accounts.models import Customer
from billing.http import ApiError, FieldError, invalid, not_found, plain_instant
from billing.http.fields import read_instant
from billing.metering.folding import MINUTES_KEPT
from billing.periods import Granularity, Interval, buckets, calendar_period, quarter_ceil, quarter_floor
from billing.subscriptions import queries as subscriptions
from billing.subscriptions.models import Subscription

MAX_ROWS: Final = 10_000
GRANULARITIES: Final = ("hour", "day", "week", "month", "total")
MINUTE: Final = "minute"
_PARAMETERS: Final = ("from", "to", "granularity", "group_by", "subscription")
_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def _parameters(granularities: tuple[str, ...], granularity: str) -> list[OpenApiParameter]:
    return [
        OpenApiParameter(
            "from", str, description="RFC 3339; rounded down to a quarter hour. Default: the billing period."
        ),
        OpenApiParameter("to", str, description="RFC 3339, exclusive; rounded up to a quarter hour."),
        OpenApiParameter("granularity", str, enum=granularities, description=granularity),
        OpenApiParameter("group_by", str, description="Names of dimensions, with commas between them."),
        OpenApiParameter("subscription", str, description="Whose billing period is the default range."),
        OpenApiParameter("{dimension}", str, description="Only what has this value: `model=large-2`."),
    ]


# For the schema: what every such endpoint takes beside its own parameters.
PARAMETERS: Final = _parameters(GRANULARITIES, "Of the customer's zone; day when absent.")
MINUTE_PARAMETERS: Final = _parameters(
    (MINUTE, *GRANULARITIES),
    "Of the customer's zone; day when absent. Minutes: the last 48 hours, without groups, filters and amounts.",
)


@dataclass(frozen=True, slots=True)
class Selection:
    """A range on quarter hours, cut into buckets of the customer's zone. Bucket i is [edges[i], edges[i + 1]). Minutes
    have neither groups nor filters."""

    interval: Interval
    timezone: str
    edges: tuple[datetime, ...]
    group_by: tuple[str, ...]
    filters: dict[str, str]
    granularity: str


def read_selection(
    request: Request,
    customer: Customer,
    *,
    at: datetime,
    dimensions: Collection[str],
    names: Collection[str] = (),
    own: Collection[str] = (),
    minutes: bool = False,
) -> Selection:
    """The selection that the query string describes.

    `dimensions` and `names` (such as price) may be grouped by and filtered on; `own` are parameters that the
    endpoint reads itself; `minutes` says whether it has them. Raises ApiError: what is unknown, empty ranges, more than
    10,000 buckets (422).
    """
    sent = _sent_once(request, {*_PARAMETERS, *own, *names, *dimensions})
    subscription = _subscription(customer, sent.get("subscription"))
    period = subscriptions.current_period(customer, at, subscription)
    timezone = period.timezone if period else customer.timezone
    default = Interval(period.starts_at, period.ends_at) if period else calendar_period("month", at, timezone)
    granularity = _granularity(sent, minutes)
    groupable = [*names, *dimensions]
    group_by = _group_by(sent.get("group_by", ""), groupable)
    filters = {name: value for name, value in sent.items() if name in groupable and name not in {*_PARAMETERS, *own}}
    if granularity == MINUTE:
        _refuse_groups(group_by, filters)
        interval = _minutes_interval(sent, at)
    else:
        interval = _interval(sent, default)
    return Selection(interval, timezone, _edges(interval, granularity, timezone), group_by, filters, granularity)


def _granularity(sent: dict[str, str], minutes: bool) -> str:
    granularity = sent.get("granularity", "day")
    if granularity == MINUTE and not minutes:
        raise invalid("granularity", "Minutes are kept of the usage of a meter only. Use hour here.")
    if granularity not in (*GRANULARITIES, MINUTE):
        known = (MINUTE, *GRANULARITIES) if minutes else GRANULARITIES
        raise invalid("granularity", f"Use one of {', '.join(known)}.")
    return granularity


def _refuse_groups(group_by: tuple[str, ...], filters: dict[str, str]) -> None:
    if field := "group_by" if group_by else next(iter(filters), None):
        raise invalid(
            field, "Minutes are kept of the whole meter, whatever its dimensions. Use hour, or leave this out."
        )


def _minutes_interval(sent: dict[str, str], at: datetime) -> Interval:
    first = quarter_floor(at - MINUTES_KEPT)
    interval = _interval(sent, Interval(first, quarter_ceil(at)))
    if interval.start < first:
        raise invalid("from", f"Minutes are kept for 48 hours: ask from {plain_instant(first)} on, or use hour.")
    return interval


def too_many_rows() -> ApiError:
    detail = f"More than {MAX_ROWS:,} rows. Ask for a shorter range, a coarser granularity or fewer groups."
    return ApiError("range_too_large", detail, 422)


def _sent_once(request: Request, known: Iterable[str]) -> dict[str, str]:
    sent = request.query_params
    sentence = f"There is no such parameter or dimension. Known are: {', '.join(sorted(known))}."
    unknown: list[FieldError] = [
        {"field": name, "code": "unknown_field", "detail": sentence} for name in sent if name not in set(known)
    ]
    if unknown:
        raise ApiError("unknown_field", f"{unknown[0]['field']}: {sentence}", errors=unknown)
    for name, values in sent.lists():
        if len(values) > 1:
            raise invalid(name, "Send it once.")
        if "\0" in values[0]:
            raise invalid(name, "A value has no NUL character.")
    return sent.dict()


def _subscription(customer: Customer, public_id: str | None) -> Subscription | None:
    if public_id is None:
        return None
    found = subscriptions.subscriptions(customer).filter(public_id=public_id).first()
    if found is None:
        raise not_found("subscription")
    return found


def _interval(sent: dict[str, str], default: Interval) -> Interval:
    start = quarter_floor(_instant(sent, "from", default.start))
    end = quarter_ceil(_instant(sent, "to", default.end))
    if start >= end:
        raise invalid("to" if "to" in sent else "from", "The range is empty: send a `from` that is before `to`.")
    return Interval(start, end)


def _instant(sent: dict[str, str], name: str, default: datetime) -> datetime:
    if name not in sent:
        return default
    try:
        instant = read_instant(sent[name])
    except ValueError as error:
        raise invalid(name, f"{error} In an address, write the + of an offset as %2B.") from None
    if not _FIRST <= instant <= _LAST:
        raise invalid(name, "Choose an instant of the years 2000 to 2099.")
    return instant


def _edges(interval: Interval, granularity: str, timezone: str) -> tuple[datetime, ...]:
    cut = buckets(interval, cast(Granularity, granularity), timezone)
    found = (interval.start, *(bucket.end for bucket in islice(cut, MAX_ROWS + 1)))
    if len(found) - 1 > MAX_ROWS:
        raise too_many_rows()
    return found


def _group_by(text: str, known: Collection[str]) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if name not in known:
            raise invalid("group_by", f'There is no "{name}" to group by. Known are: {", ".join(known) or "none"}.')
        if names.count(name) > 1:
            raise invalid("group_by", f'"{name}" is named twice.')
    return names
