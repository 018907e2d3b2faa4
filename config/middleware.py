"""What stands between a request and its view."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.db import DataError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.urls import resolve
from django.views.decorators.csp import csp_override
from django.views.defaults import bad_request

logger = logging.getLogger(__name__)
API: Final = "api/v1/"

type View = Callable[..., HttpResponseBase]


class ApiMiddleware:
    """Answers the API from here: it knows keys and no cookies, so nothing that pages need comes between."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(f"/{API}"):
            return self.get_response(request)
        request.resolver_match = found = resolve(request.path_info)
        response: HttpResponse = found.func(request, *found.args, **found.kwargs)
        return response.render() if isinstance(response, SimpleTemplateResponse) else response


class AdminCspMiddleware:
    """Relaxes the content security policy under /admin/ and nowhere else: unfold evaluates expressions."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.relaxed = csp_override(settings.ADMIN_CSP)(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = self.relaxed if request.path.startswith("/admin/") else self.get_response
        return view(request)


class BadDataMiddleware:
    """A value that no column can hold, such as a NUL in an address, is the sender's mistake, as in the API. It is
    noted, because nothing refused it before."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, DataError):
            return None
        logger.error("The database refused a value that was not validated.", exc_info=exception)
        return bad_request(request, exception)


class NoStoreMiddleware:
    """Answers are about somebody's money: no cache keeps them unless the view says otherwise."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


class SignInMiddleware(LoginRequiredMiddleware):
    """Pages are for people who are signed in, unless they say otherwise; others are sent to sign in and back.

    A fragment cannot be a sign-in page: htmx is told to leave the page that it is on, and to come back to it.
    """

    def handle_no_permission(  # type: ignore[override] # the stubs know redirects only
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseBase:
        htmx = getattr(request, "htmx", None)
        if not htmx:
            return super().handle_no_permission(request, view_func)
        page = redirect_to_login(htmx.current_url_abs_path or "/", self.get_login_url(view_func))
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": page.url})
