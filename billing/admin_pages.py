"""What the rooms' admin pages share: facts are looked at, and refusals of services show in the form."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin, TabularInline

from accounts.admin_pages import row_or_404


class ReadOnlyAdmin(ModelAdmin):
    """Facts: to be looked at."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(TabularInline):
    """Facts beside what they belong to."""

    extra = 0
    can_delete = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """All that are shown: a form has no place for those that nobody edits."""
        return self.fields

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def act_on_row(
    model_admin: ModelAdmin, request: HttpRequest, object_id: str, act: Callable[[Any], str], done: str
) -> HttpResponse:
    """What a row's dialog asks for: do it, say so or why not, and go back to the row. `act` returns what its history
    says. A dialog is an htmx form, so the way back is a header."""
    row = row_or_404(model_admin, request, object_id)
    try:
        model_admin.log_change(request, row, act(row))
    except ValidationError as error:
        for sentence in sentences(error):
            messages.error(request, sentence)
    else:
        messages.success(request, done)
    page = f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_change"
    return HttpResponse(headers={"HX-Redirect": reverse(page, args=[object_id])})


def sentences(error: ValidationError) -> list[str]:
    """What a service refused, one sentence each, behind the name of its field."""
    if not hasattr(error, "error_dict"):
        return list(error.messages)
    return [f"{field}: {sentence}" for field, found in error.message_dict.items() for sentence in found]


def add_refusal(form: forms.BaseForm, error: ValidationError) -> None:
    """Show what a service refused at the form's field, or above the form where it has no such field."""
    found = error.error_dict if hasattr(error, "error_dict") else {"": error.error_list}
    for field, errors in found.items():
        form.add_error(field if field in form.fields else None, errors)
