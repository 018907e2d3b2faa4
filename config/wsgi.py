"""WSGI entry point."""

import gc
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
_django: Final = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Django's, which hands an answer that is complete to the server in one piece. Piece by piece, as the server takes
    what it can only iterate over, each answer would wait for two more changes of threads."""
    response: Iterable[bytes] = _django(environ, start_response)
    if not isinstance(response, HttpResponse):  # streamed, or a file in the server's own wrapper
        return response
    try:
        return [response.content]
    finally:
        response.close()


# A batch makes tens of thousands of objects that hardly outlive it and hold no cycles: with the defaults the collector
# takes a fifth of its time to look at them, and at all that was loaded at the start, which stays.
gc.freeze()
gc.set_threshold(50_000, 10, 10)
