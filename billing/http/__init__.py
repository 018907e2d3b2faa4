"""HTTP manners that the API of every room shares."""

from billing.http.errors import ApiError, FieldError, invalid, not_found, problem_details, unknown_route
from billing.http.fields import (
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    documents_only,
    is_key,
    plain_instant,
    read_body,
    read_instant,
    read_query,
)
from billing.http.paging import cursor_page, page_of
from billing.http.parsing import DecimalJSONParser, depth_exceeds, parse_json
from billing.http.views import ApiView, customer_or_404, own_customer, within_reach

__all__ = [
    "ApiError",
    "ApiView",
    "DecimalJSONParser",
    "ExactDecimalField",
    "FieldError",
    "InstantField",
    "KeyField",
    "StrictSerializer",
    "cursor_page",
    "customer_or_404",
    "depth_exceeds",
    "documents_only",
    "invalid",
    "is_key",
    "not_found",
    "own_customer",
    "page_of",
    "parse_json",
    "plain_instant",
    "problem_details",
    "read_body",
    "read_instant",
    "read_query",
    "unknown_route",
    "within_reach",
]
