"""The API of every room, under /api/v1/."""

from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, URLResolver, path, re_path
from drf_spectacular.views import SpectacularSwaggerSplitView

from billing.authorizations.api import urlpatterns as authorizations
from billing.budgets.api import urlpatterns as budgets
from billing.credits.api import urlpatterns as credits
from billing.cycle.api import urlpatterns as cycle
from billing.cycle.clocks_api import urlpatterns as clocks
from billing.cycle.previews_api import urlpatterns as previews
from billing.cycle.statements_api import urlpatterns as statements
from billing.cycle.subscriptions_api import urlpatterns as subscriptions
from billing.http import unknown_route
from billing.http.schema_view import SchemaView
from billing.metering.api import urlpatterns as metering
from billing.metering.customers_api import urlpatterns as customers
from billing.metering.meters_api import urlpatterns as meters
from billing.pricing.api import urlpatterns as pricing
from billing.rating.api import urlpatterns as rating
from billing.topups.api import urlpatterns as topups

rooms: list[URLPattern | URLResolver] = [
    *authorizations,  # first, because they and events are asked for most
    *customers,
    *metering,
    *meters,
    *pricing,
    *rating,
    *credits,
    *budgets,
    *topups,
    *cycle,
    *previews,
    *statements,
    *subscriptions,
    *clocks,
]

urlpatterns = [
    *rooms,
    path("schema/", SchemaView.as_view(), name="api-schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="api-schema"), name="api-docs"),
    re_path("", login_not_required(unknown_route), name="api-unknown"),
]
