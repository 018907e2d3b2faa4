"""The operator's pages need a wider content security policy than the customer's (unfold evaluates expressions)."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csp import csp_override


class AdminCspMiddleware:
    """Relaxes the policy under /admin/ and nowhere else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.relaxed = csp_override(settings.ADMIN_CSP)(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = self.relaxed if request.path.startswith("/admin/") else self.get_response
        return view(request)
