"""Lists are read by keyset: page 1,000 costs what page 1 does, and rows that appear meanwhile move nothing."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.http.errors import invalid
from billing.http.fields import plain_instant

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500


def cursor_page[M: Model](
    queryset: QuerySet[M],
    request: Request,
    *,
    serialize: Callable[[M], object],
    order: Sequence[str] = ("id",),
) -> Response:
    """`{"data": [...], "next_cursor": ...}` of the page that `?cursor=&limit=` asks for.

    `order`: columns of the model, "-" before a descending one; together they must be unique and never null.
    """
    limit = _limit(request.query_params.get("limit", str(DEFAULT_LIMIT)))
    if cursor := request.query_params.get("cursor"):
        queryset = queryset.filter(_after(order, _read_cursor(cursor, queryset.model, order)))
    rows = list(queryset.order_by(*order)[: limit + 1])
    more = len(rows) > limit
    rows = rows[:limit]
    next_cursor = _write_cursor([getattr(rows[-1], name.lstrip("-")) for name in order]) if more else None
    return Response({"data": [serialize(row) for row in rows], "next_cursor": next_cursor})


def page_of(name: str, row: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """The schema of one page of a list of such rows, for `extend_schema`."""
    fields = {"data": row(many=True), "next_cursor": serializers.CharField(allow_null=True)}
    page: serializers.Serializer[Any] = inline_serializer(name, fields)
    return page


def _limit(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MAX_LIMIT:  # noqa: PLR2004 -- digits
        return int(text)
    raise invalid("limit", f"Send a whole number from 1 to {MAX_LIMIT}.")


def _after(order: Sequence[str], values: Sequence[object]) -> Q:
    """Rows behind these values: (a, b) > (x, y) is a > x, or a = x and b > y."""
    after, equal = Q(), Q()
    for name, value in zip(order, values, strict=True):
        column, comparison = name.lstrip("-"), "lt" if name.startswith("-") else "gt"
        after |= equal & Q(**{f"{column}__{comparison}": value})
        equal &= Q(**{column: value})
    # Says nothing new, but an index can start from it, which it cannot from the alternatives.
    first, bound = order[0].lstrip("-"), "lte" if order[0].startswith("-") else "gte"
    return Q(**{f"{first}__{bound}": values[0]}) & after


def _write_cursor(values: Sequence[Any]) -> str:
    texts = [plain_instant(value) if hasattr(value, "isoformat") else str(value) for value in values]
    return base64.urlsafe_b64encode(json.dumps(texts).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, model: type[Model], order: Sequence[str]) -> list[object]:
    try:
        texts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        columns = [model._meta.get_field(name.lstrip("-")) for name in order]
        if not isinstance(texts, list) or not all(isinstance(text, str) and "\x00" not in text for text in texts):
            raise ValueError(cursor)
        return [column.to_python(text) for column, text in zip(columns, texts, strict=True)]  # type: ignore[union-attr]
    except (ValueError, ValidationError, binascii.Error):
        raise invalid("cursor", "This is no cursor of this list. Start without one.") from None
