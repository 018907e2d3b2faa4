"""The least that an authorization could do, over the same HTTP stack: one conditional UPDATE of one row."""

from django.conf import settings
from django.db import connection
from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response

from billing.clock import now
from billing.http import ApiView, ExactDecimalField, KeyField, StrictSerializer, plain_instant, read_body
from config.wsgi import application as headroom

RESERVE = """
UPDATE bench_account SET reserved = reserved + %(amount)s
WHERE customer = %(customer)s AND reserved + %(amount)s <= 1e18
RETURNING reserved
"""


class BareBody(StrictSerializer):
    customer = KeyField()
    amount = ExactDecimalField()


class BareView(ApiView):
    """Reserves and answers."""

    idempotent = False

    def post(self, request: Request) -> Response:
        body = read_body(request, BareBody)
        with connection.cursor() as cursor:
            cursor.execute(RESERVE, body)
            reserved = cursor.fetchone()
        return Response({"decision": "allow" if reserved else "deny", "at": plain_instant(now())}, status=201)


urlpatterns = [path("bare", BareView.as_view()), path("", include(settings.ROOT_URLCONF))]
settings.ROOT_URLCONF = __name__
application = headroom
