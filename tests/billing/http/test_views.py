"""A small view with everything on it, asked the way clients ask."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import DataError, OperationalError
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory

from accounts.auth import note_use
from accounts.models import ApiKey, Customer, Membership, Scope
from billing.http import (
    ApiError,
    ApiView,
    ExactDecimalField,
    InstantField,
    KeyField,
    StrictSerializer,
    cursor_page,
    customer_or_404,
    read_body,
    within_reach,
)
from tests.factories import make_api_key

pytestmark = pytest.mark.django_db


class Thing(StrictSerializer):
    key = KeyField()
    amount = ExactDecimalField(minimum=0, required=False)
    at = InstantField(required=False)


class Things(ApiView):
    def get(self, request):
        return cursor_page(Customer.objects.all(), request, serialize=lambda row: row.key, order=("-created_at", "id"))

    def post(self, request):
        return Response(Thing(read_body(request, Thing)).data, status=201)


class CustomerThings(ApiView):
    customer_key_may_read = True

    def get(self, request, key):
        return Response({"key": customer_or_404(request, key).key})

    def post(self, request, key):
        return Response({})


def ask(view, method="get", data=None, *, secret=None, path="/things", content_type="application/json", **kwargs):
    request = APIRequestFactory().generic(
        method.upper(),
        path,
        data if isinstance(data, bytes) else json.dumps(data),
        content_type=content_type,
        headers={"Authorization": f"Bearer {secret}"} if secret else {},
    )
    return view.as_view()(request, **kwargs).render()


def refusal(response):
    assert response["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert set(body) == {"type", "title", "status", "code", "detail", "errors"}
    assert body["status"] == response.status_code
    return body["status"], body["code"], [(error["field"], error["code"]) for error in body["errors"]]


@pytest.fixture
def secret():
    return make_api_key()[1]


def test_what_was_sent_comes_back_exactly(secret):
    sent = b'{"key": "a.b:c-d_1", "amount": 0.1000, "at": "2026-11-23T12:00:00.250+02:00"}'
    response = ask(Things, "post", sent, secret=secret)
    assert response.status_code == 201
    assert response.data == {"key": "a.b:c-d_1", "amount": "0.1", "at": "2026-11-23T10:00:00.25Z"}


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        ({}, [("key", "missing_field")]),
        ({"key": "a", "owner": "me"}, [("owner", "unknown_field")]),
        ({"key": "a\n"}, [("key", "invalid_field")]),
        ({"key": ""}, [("key", "invalid_field")]),
        ({"key": None}, [("key", "invalid_field")]),
        ({"key": "a" * 129}, [("key", "invalid_field")]),
        ({"key": "a", "amount": "NaN"}, [("amount", "invalid_field")]),
        ({"key": "a", "amount": True}, [("amount", "invalid_field")]),
        ({"key": "a", "amount": "-1"}, [("amount", "invalid_field")]),
        ({"key": "a", "amount": "1e400"}, [("amount", "invalid_field")]),
        ({"key": "a", "amount": {}}, [("amount", "invalid_field")]),
        ({"key": "a", "at": "2026-11-23T10:00:00"}, [("at", "invalid_field")]),
        ({"key": "a", "at": "2026-02-30T10:00:00Z"}, [("at", "invalid_field")]),
        ({"key": "a", "at": "0001-01-01T00:00:00+14:00"}, [("at", "invalid_field")]),
        ({"key": "a", "at": 1700000000}, [("at", "invalid_field")]),
        ([], [("", "invalid_field")]),
        ("text", [("", "invalid_field")]),
    ],
)
def test_a_wrong_field_is_named(data, errors, secret):
    assert refusal(ask(Things, "post", data, secret=secret)) == (400, errors[0][1], errors)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"NaN",
        b'{"amount": Infinity}',
        b'{"amount": 1e99999999999999999999}',
        b"[" * 100_000,
        b"[" * 33 + b"]" * 33,
        b"9" * 5000,
        b'"\xff"',
        b'"\\ud800"',
        b'{"key": "a\\u0000"}',
        '{"key": "a"}'.encode("utf-16"),
    ],
)
def test_a_body_that_is_no_json_is_malformed(body, secret):
    assert refusal(ask(Things, "post", body, secret=secret)) == (400, "malformed", [])


def test_a_huge_body_is_refused_before_it_is_parsed(secret):
    assert refusal(ask(Things, "post", b" " * 2_500_001, secret=secret)) == (413, "too_large", [])


def test_another_content_type_is_refused(secret):
    answer = ask(Things, "post", b"key=a", secret=secret, content_type="application/x-www-form-urlencoded")
    assert refusal(answer) == (415, "unsupported_media_type", [])


def test_another_method_is_refused(secret):
    assert refusal(ask(Things, "delete", secret=secret)) == (405, "method_not_allowed", [])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ApiError("conflict", "No.", 409), (409, "conflict", [])),
        (DjangoValidationError({"name": ["Too long."]}), (400, "invalid_field", [("name", "invalid_field")])),
        (DjangoValidationError("Wrong."), (400, "invalid_field", [("", "invalid_field")])),
        (Customer.DoesNotExist(), None),
        (OperationalError("lock timeout"), (503, "unavailable", [])),
        (DataError("out of range"), (400, "invalid_field", [])),
    ],
)
def test_what_a_service_raises_becomes_an_answer(error, expected, secret):
    class Failing(ApiView):
        def get(self, request):
            raise error

    if expected is None:
        with pytest.raises(type(error)):
            ask(Failing, secret=secret)
    else:
        assert refusal(ask(Failing, secret=secret)) == expected


# --- keys


def test_without_a_key_nothing_is_answered():
    response = ask(Things)
    assert refusal(response) == (401, "unauthenticated", [])
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "state",
    [
        {"revoked_at": datetime.now(UTC)},
        {"expires_at": datetime.now(UTC) - timedelta(seconds=1)},
        {"digest": "of something else"},
    ],
    ids=["revoked", "expired", "unknown"],
)
def test_a_key_that_is_revoked_expired_or_unknown_gets_the_same_answer(state):
    _, secret = make_api_key(**state)
    response = ask(Things, secret=secret)
    assert refusal(response) == (401, "unauthenticated", [])
    assert response.data["detail"] == "The API key is unknown, expired or revoked."


def test_a_key_with_odd_bytes_is_unknown():
    assert refusal(ask(Things, secret="hr_ü\u00ff")) == (401, "unauthenticated", [])


def test_revoking_a_key_stops_it_at_once(secret):
    assert ask(Things, secret=secret).status_code == 200
    ApiKey.objects.update(revoked_at=datetime.now(UTC))
    assert ask(Things, secret=secret).status_code == 401


def test_a_key_needs_the_scope():
    _, reader = make_api_key(Scope.BILLING_READ)
    assert ask(Things, secret=reader).status_code == 200
    assert refusal(ask(Things, "post", {"key": "a"}, secret=reader)) == (403, "forbidden", [])


def test_the_use_of_a_key_is_noted_at_most_once_a_minute(secret):
    ask(Things, secret=secret)
    key = ApiKey.objects.get()
    assert key.last_used_at is not None
    note_use(key)
    assert ApiKey.objects.get().last_used_at == key.last_used_at


def test_a_customer_key_reads_its_own_customer_and_nobody_else(acme, globex):
    _, secret = make_api_key(customer=acme)
    assert ask(CustomerThings, secret=secret, key="acme").data == {"key": "acme"}
    other = ask(CustomerThings, secret=secret, key="globex")
    unknown = ask(CustomerThings, secret=secret, key="nobody")
    assert refusal(other) == (404, "not_found", [])
    assert other.content == unknown.content


def test_a_customer_key_does_only_what_a_view_opens_to_it(acme):
    _, secret = make_api_key(customer=acme)
    assert refusal(ask(Things, secret=secret)) == (403, "forbidden", [])
    assert refusal(ask(CustomerThings, "post", {}, secret=secret, key="acme")) == (403, "forbidden", [])


def test_an_operator_key_reaches_every_customer_and_a_customer_key_its_own(rf, alice, charlie, acme):
    operator, _ = make_api_key()
    own, _ = make_api_key(customer=acme)
    members = Membership.objects.order_by("id")
    request = rf.get("/")
    request.auth = operator
    assert [member.user for member in within_reach(members, request)] == [alice, charlie]
    request.auth = own
    assert [member.user for member in within_reach(members, request)] == [alice]


# --- paging


def walk(secret, limit):
    cursor, pages = "", []
    while cursor is not None:
        page = ask(Things, secret=secret, path=f"/things?limit={limit}&cursor={cursor}").data
        pages.append(page["data"])
        cursor = page["next_cursor"]
    return pages


def test_pages_hold_every_row_once_also_when_rows_share_an_instant(secret):
    Customer.objects.bulk_create(Customer(key=f"c{n}", name="C") for n in range(7))
    keys = [f"c{n}" for n in range(7)]
    assert walk(secret, 3) == [keys[:3], keys[3:6], keys[6:]]
    assert walk(secret, 7) == [keys]


@pytest.mark.parametrize("limit", ["0", "501", "-1", "ten", "1.5", "²", ""])
def test_a_wrong_limit_is_named(limit, secret):
    answer = ask(Things, secret=secret, path=f"/things?limit={limit}")
    assert refusal(answer) == (400, "invalid_field", [("limit", "invalid_field")])


@pytest.mark.parametrize("cursor", ["x", "W10", "WzEsMl0", "WyJ4IiwieSJd", "ü"])
def test_a_wrong_cursor_is_named(cursor, secret):
    answer = ask(Things, secret=secret, path=f"/things?cursor={cursor}")
    assert refusal(answer) == (400, "invalid_field", [("cursor", "invalid_field")])
