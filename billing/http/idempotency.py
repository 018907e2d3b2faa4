"""A POST with an Idempotency-Key happens once: its effect and its stored answer commit together.

An advisory lock, held to the end of that transaction, tells a second request that the first still runs. A crash
leaves neither effect nor lock, so the client may simply send again.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

from django.db import connection, transaction
from django.db.models.functions import Now
from rest_framework import status
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.auth import api_key
from accounts.models import ApiKey, IdempotentRequest
from accounts.services import ANSWERS_KEPT
from billing.http.errors import ApiError, invalid

MAX_LENGTH: Final = 255


def answer_once(request: Request, act: Callable[[], Response], *, secret_answer: bool) -> Response:
    """`act()`, or what it answered before under the same Idempotency-Key.

    Only a 2xx is stored; of an answer with a secret only its id, and the repeat is 409 `already_created`.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return act()
    if not 1 <= len(key) <= MAX_LENGTH or not key.isprintable():
        raise invalid("Idempotency-Key", f"Send 1 to {MAX_LENGTH} printable characters.")
    digest = _digest(request)
    with transaction.atomic():
        _lock(api_key(request), key)
        if stored := _stored(api_key(request), key):
            return _again(stored, digest, secret_answer=secret_answer)
        response = act()
        if status.is_success(response.status_code):
            _store(request, key, digest, response, secret_answer=secret_answer)
        return response


def _lock(owner: ApiKey, key: str) -> None:
    number = int.from_bytes(hashlib.sha256(f"{owner.pk}:{key}".encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [number])
        (locked,) = cursor.fetchone()
    if not locked:
        detail = "A request with this Idempotency-Key is still running. Ask again in a moment."
        raise ApiError("idempotency_in_progress", detail, 409, headers={"Retry-After": "1"})


def _stored(owner: ApiKey, key: str) -> IdempotentRequest | None:
    mine = IdempotentRequest.objects.filter(api_key=owner, key=key)
    mine.filter(created_at__lt=Now() - ANSWERS_KEPT).delete()
    return mine.first()


def _again(stored: IdempotentRequest, digest: str, *, secret_answer: bool) -> Response:
    if stored.request_digest != digest:
        detail = "This Idempotency-Key was used with another request. Use a new one for each request."
        raise ApiError("idempotency_conflict", detail, 409)
    if secret_answer:
        detail = "This was created before; its secret is shown only once. Revoke it and create another."
        raise ApiError("already_created", detail, 409, extra=stored.body)
    return Response(stored.body, status=stored.status, headers={"Idempotency-Replayed": "true"})


def _store(request: Request, key: str, digest: str, response: Response, *, secret_answer: bool) -> None:
    answer: Any = json.loads(JSONRenderer().render(response.data) or b"null")
    IdempotentRequest.objects.create(
        api_key=api_key(request),
        key=key,
        request_digest=digest,
        status=response.status_code,
        body={"id": answer["id"]} if secret_answer else answer,
    )


def _digest(request: Request) -> str:
    """Of method, address and body as sent. Reading the body here also keeps it for the parser."""
    described = f"{request.method} {request.get_full_path()}\n".encode()
    return hashlib.sha256(described + request.body).hexdigest()
