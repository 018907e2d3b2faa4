"""Is the process there, and can it do its work? For load balancers and orchestrators."""

import logging
from collections.abc import Callable
from typing import Final

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from billing.clock import now
from billing.credits.queries import parked_customers
from billing.metering.partitions import has_partitions
from billing.metering.queries import waiting_customers

logger = logging.getLogger(__name__)


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Whether the process can do its work: 200, or 503 with what is missing.

    `waiting` customers have events that no tick has counted yet; `parked` ones have books that fail a check. Both are
    told and not judged: another process would have as many.
    """
    checks = {name: _passes(name, check) for name, check in _CHECKS.items()}
    ready = all(checks.values())
    answer: dict[str, object] = {"ready": ready, "checks": checks}
    if checks["database"] and checks["migrations"]:
        answer |= {"waiting": waiting_customers(), "parked": parked_customers()}
    return JsonResponse(answer, status=200 if ready else 503, headers={"Cache-Control": "no-store"})


def _passes(name: str, check: Callable[[], bool]) -> bool:
    try:
        return check()
    except Exception:
        logger.exception("Not ready: %s", name)
        return False


def _database() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return True


def _migrations() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def _partitions() -> bool:
    return has_partitions(now())


def _broker() -> bool:
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1) as client:
        return bool(client.ping())


_CHECKS: Final = {"database": _database, "migrations": _migrations, "partitions": _partitions, "broker": _broker}
