"""What every view of the API is made of."""

from functools import partial, wraps
from typing import Any, ClassVar

from django.db.models import Model, QuerySet
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.auth import ApiKeyAuthentication, HasScope, api_key
from accounts.models import Customer, Scope
from billing.http.errors import not_found
from billing.http.fields import is_key
from billing.http.idempotency import answer_once
from billing.http.parsing import DecimalJSONParser


class ApiView(APIView):
    """An endpoint for keys with a scope. What customer keys may do is opened view by view."""

    authentication_classes = [ApiKeyAuthentication]
    permission_classes = [HasScope]
    parser_classes = [DecimalJSONParser]
    read_scope: ClassVar[Scope] = Scope.BILLING_READ
    write_scope: ClassVar[Scope] = Scope.BILLING_WRITE
    customer_key_may_read: ClassVar[bool] = False
    customer_key_may_write: ClassVar[bool] = False
    idempotent: ClassVar[bool] = True  # its POST honours an Idempotency-Key
    secret_answer: ClassVar[bool] = False  # its POST answers with something that must not be stored
    own_errors: ClassVar[tuple[int, ...]] = ()  # statuses for the schema, beside those that it finds by itself

    def committed(self, request: Request, response: Response) -> Response:
        """The answer to a POST once its effect is committed, also to a repeat: here another server may be asked."""
        return response

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        post = cls.__dict__.get("post")
        if post is None or not cls.idempotent:
            return

        @wraps(post)
        def once(self: ApiView, request: Request, *args: Any, **kwargs: Any) -> Response:
            act = partial(post, self, request, *args, **kwargs)
            return self.committed(request, answer_once(request, act, secret_answer=self.secret_answer))

        cls.post = once  # type: ignore[attr-defined]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> tuple[BaseRenderer, str]:
        """As DRF's. Most ask for whatever there is: that is answered without comparing types, which costs a fifth of
        all that HTTP does for a request."""
        if request.META.get("HTTP_ACCEPT", "*/*") == "*/*":
            renderer = self.renderer_classes[0]
            return renderer(), renderer.media_type
        found: tuple[BaseRenderer, str] = super().perform_content_negotiation(request, force)
        return found


def own_customer(request: Request) -> Customer | None:
    """The customer whose key this is; None for an operator key."""
    return api_key(request).customer


def customer_or_404(request: Request, key: str) -> Customer:
    """The customer with this key. To a customer's key, others do not exist."""
    own = own_customer(request)
    if own is not None and own.key == key:
        return own
    found = (
        Customer.objects.select_related("test_clock").filter(key=key).first() if own is None and is_key(key) else None
    )
    if found is None:
        raise not_found("customer")
    return found


def within_reach[M: Model](queryset: QuerySet[M], request: Request, *, path: str = "customer") -> QuerySet[M]:
    """Only rows of the key's own customer; all of them for an operator key. `path` leads from a row to its customer."""
    own = own_customer(request)
    return queryset if own is None else queryset.filter(**{path: own})
