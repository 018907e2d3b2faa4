"""Who asks, and what each of them may expect."""

from dataclasses import dataclass

from django.http import HttpResponse
from django.test import Client

from accounts.models import Scope

# What an answer means for access. IN: the view itself answered, be it with a 400 for an empty body.
IN, SIGN_IN, FORBIDDEN, HIDDEN, WRONG_METHOD = "in", "sign in", "forbidden", "hidden", "wrong method"


def outcome(response: HttpResponse) -> str:
    assert response.status_code < 500, response.content[:500]
    if response.status_code == 302 and "/login/" in response["Location"]:
        return SIGN_IN
    return {401: SIGN_IN, 403: FORBIDDEN, 404: HIDDEN, 405: WRONG_METHOD}.get(response.status_code, IN)


@dataclass(frozen=True)
class Pages:
    """Browsers: what each actor gets. `owner` and `viewer` belong to Acme, `stranger` owns Globex."""

    anonymous: str
    viewer: str
    owner: str
    stranger: str
    operator: str


EVERYBODY = Pages(IN, IN, IN, IN, IN)
SIGNED_IN = Pages(SIGN_IN, IN, IN, IN, IN)
MEMBERS = Pages(SIGN_IN, IN, IN, HIDDEN, IN)  # an operator may visit, and only look
EDITORS = Pages(SIGN_IN, FORBIDDEN, IN, HIDDEN, FORBIDDEN)  # owners and billing members
OWNERS = EDITORS  # no billing member is among the actors; test_team.py asks as one
WITHOUT_SECOND_FACTOR = Pages(SIGN_IN, HIDDEN, HIDDEN, HIDDEN, HIDDEN)  # pages that make sense with one only
NOWHERE = Pages(HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN)


@dataclass(frozen=True)
class Keys:
    """Programs. Nobody gets anywhere without a key, nor an operator key without the scope."""

    scope: Scope
    own: str  # a key of Acme
    other: str  # a key of Globex


def operator_keys(scope: Scope) -> Keys:
    """Operator keys only."""
    return Keys(scope, FORBIDDEN, FORBIDDEN)


def and_own(scope: Scope) -> Keys:
    """Also a key of Acme; to a key of Globex the thing does not exist."""
    return Keys(scope, IN, HIDDEN)


def own_rows(scope: Scope) -> Keys:
    """Also keys of customers, which see their own rows: the answer to Globex must not name Acme."""
    return Keys(scope, IN, IN)


def send(client: Client, method: str, path: str, body: object = None, **headers: str) -> HttpResponse:
    content = {} if method in {"GET", "HEAD"} else {"data": body or {}, "content_type": "application/json"}
    return getattr(client, method.lower())(path, **content, headers=headers)
