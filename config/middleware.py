"""Headers that no view should have to remember."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csp import csp_override


class AdminCspMiddleware:
    """Relaxes the content security policy under /admin/ and nowhere else: unfold evaluates expressions."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.relaxed = csp_override(settings.ADMIN_CSP)(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = self.relaxed if request.path.startswith("/admin/") else self.get_response
        return view(request)


class NoStoreMiddleware:
    """Answers are about somebody's money: no cache keeps them unless the view says otherwise."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response
