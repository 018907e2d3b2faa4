"""Programs sign in with a key: `Authorization: Bearer hr_...`.

A key has so much randomness that a plain SHA-256 protects it. An indexed query finds it, each time: a revoked or
expired key stops at once. Requests that come at the same time share the query.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth.models import AnonymousUser
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Q
from django.db.models.functions import Now
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.gathering import Gathered
from accounts.models import ApiKey, Scope
from accounts.prepared import array, prepared

if TYPE_CHECKING:  # at run time DRF's views import this module
    from rest_framework.views import APIView

USE_NOTED_EVERY = timedelta(minutes=1)
# Written out: putting it together anew took a quarter of the time of a request with one event.
_FIELDS: Final = [field.attname for field in ApiKey._meta.concrete_fields]
_VALID: Final = f"""
SELECT coalesce(last_used_at >= statement_timestamp() - %s::interval, false), {", ".join(_FIELDS)} FROM accounts_apikey
WHERE digest = ANY(%s::text[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())
"""  # noqa: S608 -- names of columns


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def note_use(key: ApiKey) -> None:
    """At most one UPDATE a minute and key, so that a busy key does not queue its requests behind one row."""
    unnoted = Q(last_used_at=None) | Q(last_used_at__lt=Now() - USE_NOTED_EVERY)
    ApiKey.objects.filter(unnoted, pk=key.pk).update(last_used_at=Now())


def _valid_keys(digests: Sequence[str]) -> list[ApiKey | None]:
    with prepared() as cursor:
        cursor.execute(_VALID, [USE_NOTED_EVERY, array(digests)])
        found = [_key(noted, values) for noted, *values in cursor.fetchall()]
    by_digest = {key.digest: key for key in found}
    return [by_digest.get(one) for one in digests]


def _key(noted: bool, values: Sequence[Any]) -> ApiKey:
    key = ApiKey.from_db(DEFAULT_DB_ALIAS, _FIELDS, values)
    key.noted = noted  # type: ignore[attr-defined] # whether its use was, of late
    return key


_valid_key: Final = Gathered(_valid_keys, patient=True)


class ApiKeyAuthentication(BaseAuthentication):
    """Sets `request.auth` to the ApiKey; `request.user` stays anonymous."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ApiKey] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        key = _valid_key(digest(secret.strip().decode("latin-1")))
        if key is None:
            raise AuthenticationFailed("The API key is unknown, expired or revoked.")
        if not key.noted:  # type: ignore[attr-defined] # see `_key`
            note_use(key)
        return AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Headroom"'


def api_key(request: Request) -> ApiKey:
    """The key that an authenticated request came with."""
    if not isinstance(request.auth, ApiKey):
        raise NotAuthenticated
    return request.auth


def require_scope(key: ApiKey, scope: Scope) -> None:
    """PermissionDenied, naming the scope, unless this is an operator key that has it."""
    if key.customer_id is not None:
        raise PermissionDenied("A customer's key cannot do this. Use an operator key.")
    if scope not in key.scopes:
        raise PermissionDenied(f"This needs a key with the scope {scope}.")


class HasScope(BasePermission):
    """Operator keys need the view's `read_scope` or `write_scope`; customer keys what the view opens to them."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        key: Any = request.auth
        if not isinstance(key, ApiKey):
            return False
        verb = "read" if request.method in SAFE_METHODS else "write"
        if key.customer_id is None or not getattr(view, f"customer_key_may_{verb}"):
            require_scope(key, getattr(view, f"{verb}_scope"))
        return True


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema names it. drf-spectacular finds this class by its base."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API key: `hr_...`"}
