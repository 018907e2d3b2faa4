"""No admin page falls over what somebody writes into the fields that name other things."""

from collections.abc import Iterator
from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.db import transaction
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

from accounts.models import User
from tests.access import world

JUNK = ["x", "9" * 30, "½", "\x00"]
MODELS = sorted(admin.site._registry.values(), key=lambda one: str(one.model._meta))


def address(model_admin: ModelAdmin, page: str, *args: object) -> str:
    return reverse(f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_{page}", args=args)


@pytest.fixture
def operator(db, client):
    user = User.objects.create_superuser("olga@vendor.test", "x", name="Olga")
    client.force_login(user)
    return user


@pytest.fixture(autouse=True)
def things(acme):
    world.build(acme)


def names(answer: HttpResponse) -> Iterator[str]:
    """As they are sent: the form's choices, and those of one more row of each inline."""
    yield from _choices(answer.context["adminform"].form)
    for inline in answer.context["inline_admin_formsets"]:
        yield from _choices(inline.formset.empty_form, f"{inline.formset.prefix}-0-")


def _choices(form: forms.BaseForm, prefix: str = "") -> Iterator[str]:
    for name, field in form.fields.items():
        if isinstance(field, forms.ChoiceField | forms.ModelChoiceField):
            yield f"{prefix}{name}"


def rows(answer: HttpResponse) -> dict[str, Any]:
    """That each inline has one row."""
    prefixes = [inline.formset.prefix for inline in answer.context["inline_admin_formsets"]]
    return {f"{one}-{kind}_FORMS": n for one in prefixes for kind, n in (("TOTAL", 1), ("INITIAL", 0))}


def pages(model_admin: ModelAdmin, operator: User) -> Iterator[str]:
    request = RequestFactory().get("/")
    request.user = operator
    if model_admin.has_add_permission(request):
        yield address(model_admin, "add")
    for one in model_admin.get_queryset(request)[:1]:
        if model_admin.has_change_permission(request, one):
            yield address(model_admin, "change", one.pk)


def of_rows(model_admin: ModelAdmin, pk: str) -> Iterator[str]:
    """Its pages and actions of one row."""
    for pattern in model_admin.get_urls():
        if pattern.name and "object_id" in pattern.pattern.converters:
            yield reverse(f"admin:{pattern.name}", kwargs={"object_id": pk})


def status(client: Client, method: str, page: str, data: dict[str, Any] | None = None) -> int:
    """The answer's, by a client whose every request sees what stood before."""
    client.raise_request_exception = False
    with transaction.atomic():
        answer = client.generic(method, page) if data is None else getattr(client, method.lower())(page, data)
        transaction.set_rollback(True)
    return answer.status_code


@pytest.mark.parametrize("model_admin", MODELS, ids=lambda one: one.opts.model_name)
def test_junk_is_refused_where_something_is_to_be_named(client, operator, model_admin):
    for page in pages(model_admin, operator):
        empty = client.get(page)
        for name in names(empty):
            for junk in JUNK:
                assert status(client, "POST", page, {**rows(empty), name: junk}) < 500, (page, name, junk)
                assert status(client, "GET", page, {name: junk}) < 500, (page, name, junk)


@pytest.mark.parametrize("model_admin", MODELS, ids=lambda one: one.opts.model_name)
def test_junk_instead_of_a_row_or_a_filter_leads_back(client, operator, model_admin):
    for junk in JUNK:
        for page in of_rows(model_admin, junk):
            assert status(client, "GET", page) < 500, page
            assert status(client, "POST", page, {"_form_submitted": "1", "reason": "x", "amount": "1"}) < 500, page
        for field in model_admin.opts.fields:
            found = status(client, "GET", address(model_admin, "changelist"), {field.name: junk})
            assert found < 500, (field.name, junk)
