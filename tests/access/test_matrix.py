"""Every route, asked by everybody."""

import re
from dataclasses import dataclass

import pytest
from django.apps import apps
from django.test import Client
from django.urls import get_resolver

from accounts.models import Customer, Role, Scope, User
from tests.access import world
from tests.access.actors import FORBIDDEN, HIDDEN, IN, SIGN_IN, WRONG_METHOD, Keys, Pages, outcome, send
from tests.access.matrix import LIBRARIES, OURS
from tests.conftest import member
from tests.factories import make_api_key

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Line:
    route: str
    method: str
    who: Pages | Keys
    path: str = ""
    body: dict | None = None

    def __str__(self):
        return f"{self.method} {self.route}"

    def address(self, names):
        return "/" + (self.path or self.route).format(**names)


OUR_LINES = [Line(*line) for line in OURS]
LIBRARY_LINES = [Line(route, "GET", who, *path) for route, who, *path in LIBRARIES]
PAGES = [line for line in OUR_LINES + LIBRARY_LINES if isinstance(line.who, Pages)]
ENDPOINTS = [line for line in OUR_LINES if isinstance(line.who, Keys)]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def routes(resolver=None, prefix=""):
    for pattern in (resolver or get_resolver()).url_patterns:
        route = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from routes(pattern, route)
        else:
            yield route


ADMIN = sorted(route for route in routes() if route.startswith("admin/") and "(?P" not in route)
MODELS = {(model._meta.app_label, model._meta.model_name): model for model in apps.get_models()}


# The same for each of the hundreds of tests, which ask more than they change: made once.


@pytest.fixture(scope="module")
def acme(shared):
    return Customer.objects.create(key="acme", name="Acme")


@pytest.fixture(scope="module")
def globex(shared):
    return Customer.objects.create(key="globex", name="Globex")


@pytest.fixture(scope="module")
def names(acme):
    return world.build(acme)


@pytest.fixture(scope="module")
def alice(acme):
    return member(acme, "alice", Role.OWNER)


@pytest.fixture(scope="module")
def operator(shared):
    return User.objects.create_superuser("olga@vendor.test", "x", name="Olga")


@pytest.fixture(scope="module")
def actors(acme, globex, alice, operator):
    bob, charlie = member(acme, "bob", Role.VIEWER), member(globex, "charlie", Role.OWNER)
    return {"anonymous": None, "viewer": bob, "owner": alice, "stranger": charlie, "operator": operator}


def browser(user=None):
    client = Client()
    if user:
        client.force_login(user)
    return client


def test_every_route_has_a_line_and_every_line_a_route():
    known = {route for route in routes() if not route.startswith("admin/")}
    assert {line.route for line in OUR_LINES + LIBRARY_LINES} == known


@pytest.mark.parametrize("line", PAGES, ids=str)
def test_a_page_is_seen_by_whom_the_matrix_names(line, names, actors):
    seen = {name: outcome(send(browser(user), line.method, line.address(names))) for name, user in actors.items()}
    assert Pages(**seen) == line.who


@pytest.mark.parametrize("line", ENDPOINTS, ids=str)
def test_an_endpoint_is_reached_by_the_keys_that_the_matrix_names(line, names, acme, globex, operator):
    def ask(secret, user=None):
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return send(browser(user), line.method, line.address(names), line.body, **headers)

    scope = line.who.scope
    secrets = {
        "scope": make_api_key(scope)[1],
        "other scopes": make_api_key(*set(Scope) - {scope})[1],
        "own": make_api_key(customer=acme)[1],
        "other": make_api_key(customer=globex)[1],
    }
    other = ask(secrets["other"])
    assert outcome(ask(None)) == outcome(ask(None, operator)) == outcome(ask("hr_made_up")) == SIGN_IN
    assert outcome(ask(secrets["other scopes"])) == FORBIDDEN
    assert (outcome(other), outcome(ask(secrets["own"]))) == (line.who.other, line.who.own)
    assert b"acme" not in other.content.lower().replace(line.address(names).encode(), b"")
    assert outcome(ask(secrets["scope"])) != FORBIDDEN


@pytest.mark.parametrize("route", sorted({line.route for line in OUR_LINES}))
def test_other_methods_are_refused(route, names, operator):
    lines = [line for line in OUR_LINES if line.route == route]
    _, secret = make_api_key()
    client = browser(operator)
    for method in METHODS - {line.method for line in lines}:
        response = send(client, method, lines[0].address(names), Authorization=f"Bearer {secret}")
        assert (method, outcome(response)) == (method, WRONG_METHOD)


def one_of(route):
    """The number of a row that the route may be about, where one is here."""
    model = MODELS.get(tuple(route.split("/")[1:3]))
    row = model and model.objects.first()
    return row.pk if row else 1


@pytest.mark.parametrize("route", ADMIN)
def test_the_admin_is_for_operators(route, names, alice, operator):
    path = "/" + re.sub(r"<[^>]+>", str(one_of(route)), route)
    for client in (browser(), browser(alice)):
        response = client.get(path)
        assert response.status_code in {302, 403}
        assert response.headers.get("Location", "/admin/").partition("?")[0] in {
            "/accounts/login/",
            "/admin/login/",
            "/admin/",
        }
    assert outcome(browser(operator).get(path)) in {IN, HIDDEN, FORBIDDEN, WRONG_METHOD}  # never a second sign-in


# --- headers, on every route


def headers_of(response):
    return {
        name: response.headers.get(name, "")
        for name in (
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "X-Frame-Options",
            "Referrer-Policy",
            "Cache-Control",
        )
    }


@pytest.mark.parametrize("line", OUR_LINES + LIBRARY_LINES, ids=str)
def test_every_answer_carries_the_safe_headers(line, names, alice):
    for client in (browser(), browser(alice)):
        headers = headers_of(send(client, line.method, line.address(names)))
        policy = headers.pop("Content-Security-Policy")
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "no-store" in headers.pop("Cache-Control")
        assert headers == {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",
        }


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_a_path_of_the_api_that_leads_nowhere_is_a_problem_for_every_method(method):
    answer = Client(enforce_csrf_checks=True).generic(method, "/api/v1/nowhere")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1/nowhere", "/accounts/nowhere", "/admin/nowhere"])
def test_a_path_that_leads_nowhere_carries_them_too(path, operator):
    headers = headers_of(browser(operator).get(path))
    assert all(headers.values())
