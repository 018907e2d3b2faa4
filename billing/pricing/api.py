"""Plans, their versions, and what a price would charge."""

from dataclasses import replace
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Scope
from billing.clock import now
from billing.http import ApiView, cursor_page, is_key, not_found, page_of, read_body
from billing.pricing import queries, services
from billing.pricing.models import Plan, PlanVersion
from billing.pricing.schemes import simulate
from billing.pricing.shapes import (
    PlanBody,
    PublishBody,
    SimulationAnswer,
    SimulationBody,
    VersionAnswer,
    VersionBody,
    read_price,
    read_simulation,
    read_spec,
    shown_plan,
    shown_rated,
    shown_terms,
    shown_version,
)
from billing.pricing.spec import amount_problems


class PlansView(ApiView):
    """Plans: a key, a name and a currency. What a plan says lives in its versions."""

    @extend_schema(operation_id="plans_list", responses=page_of("Plans", PlanBody))
    def get(self, request: Request) -> Response:
        """Every plan, by key."""
        return cursor_page(queries.plans(), request, serialize=shown_plan, order=("key",))

    @extend_schema(operation_id="plans_create", request=PlanBody, responses={201: PlanBody})
    def post(self, request: Request) -> Response:
        """Make a plan. 409 `already_exists` when the key exists."""
        plan = services.create_plan(**read_body(request, PlanBody), at=now())
        return Response(shown_plan(plan), status=201)


class VersionsView(ApiView):
    """The versions of a plan. A draft may change; a published one never does."""

    @extend_schema(operation_id="plan_versions_list", responses=page_of("PlanVersions", VersionAnswer))
    def get(self, request: Request, key: str) -> Response:
        """Every version, newest first."""
        return cursor_page(queries.versions(plan_or_404(key)), request, serialize=shown_version, order=("-number",))

    @extend_schema(operation_id="plan_versions_create", request=VersionBody, responses={201: VersionAnswer})
    def post(self, request: Request, key: str) -> Response:
        """Draft the next version."""
        spec = read_spec(read_body(request, VersionBody))
        version = services.create_version(plan=plan_or_404(key), spec=spec, at=now())
        return Response(shown_version(version), status=201)


class VersionView(ApiView):
    """One version of a plan."""

    @extend_schema(operation_id="plan_versions_retrieve", responses=VersionAnswer)
    def get(self, request: Request, key: str, number: int) -> Response:
        """What the version says."""
        return Response(shown_version(version_or_404(key, number)))

    @extend_schema(operation_id="plan_versions_update", request=VersionBody, responses=VersionAnswer)
    def patch(self, request: Request, key: str, number: int) -> Response:
        """Change a draft: a field that is sent replaces what the draft said there, lists as a whole.

        409 `version_published` once it is published.
        """
        version = version_or_404(key, number)
        reader = VersionBody(data=_merged(version, request.data))
        reader.is_valid(raise_exception=True)
        version = services.update_draft(version=version, spec=read_spec(reader.validated_data), at=now())
        return Response(shown_version(version))


class PublishView(ApiView):
    """Publication of a draft."""

    @extend_schema(operation_id="plan_versions_publish", request=PublishBody, responses=VersionAnswer)
    def post(self, request: Request, key: str, number: int) -> Response:
        """Publish the draft, which freezes it. 409 `version_published` when it is published already."""
        published_at = read_body(request, PublishBody).get("at")
        version = services.publish(version=version_or_404(key, number), published_at=published_at, at=now())
        return Response(shown_version(version))


class RetireView(ApiView):
    """The end of a version's sale."""

    @extend_schema(operation_id="plan_versions_retire", request=None, responses=VersionAnswer)
    def post(self, request: Request, key: str, number: int) -> Response:
        """No subscription begins with the version from now on; those that have it keep it.

        409 `version_not_published` for a draft.
        """
        return Response(shown_version(services.retire(version=version_or_404(key, number), at=now())))


def plan_or_404(key: str) -> Plan:
    plan = queries.plans().filter(key=key).first() if is_key(key) else None
    if plan is None:
        raise not_found("plan")
    return plan


def version_or_404(key: str, number: int) -> PlanVersion:
    version = queries.versions(plan_or_404(key)).filter(number=number).first()
    if version is None:
        raise not_found("version of this plan")
    return version


def _merged(version: PlanVersion, body: Any) -> Any:
    """What the draft would say: the whole of it is checked, not only what is sent."""
    return {**shown_terms(version), **body} if isinstance(body, dict) else body


class SimulationView(ApiView):
    """What a price would charge."""

    write_scope = Scope.BILLING_READ  # it only calculates

    @extend_schema(operation_id="price_simulations_create", request=SimulationBody, responses=SimulationAnswer)
    def post(self, request: Request) -> Response:
        """Rate a quantity, or quantities with dimension values, by a price that need not exist anywhere.

        Minimum and maximum apply. `prior_quantity` was used earlier in the period and is not charged again.
        """
        body = read_body(request, SimulationBody)
        found = amount_problems(read_price(body["price"]))
        if found:
            raise services.refusal(replace(problem, field=f"price.{problem.field}") for problem in found)
        terms, usage, prior = read_simulation(body)
        return Response(shown_rated(simulate(terms, usage, prior), terms.unit))


urlpatterns = [
    path("price-simulations", SimulationView.as_view(), name="api-price-simulations"),
    path("plans", PlansView.as_view(), name="api-plans"),
    path("plans/<str:key>/versions", VersionsView.as_view(), name="api-plan-versions"),
    path("plans/<str:key>/versions/<int:number>", VersionView.as_view(), name="api-plan-version"),
    path("plans/<str:key>/versions/<int:number>/publish", PublishView.as_view(), name="api-plan-version-publish"),
    path("plans/<str:key>/versions/<int:number>/retire", RetireView.as_view(), name="api-plan-version-retire"),
]
