"""What the rooms' admin pages share: facts are looked at, and refusals of services show in the form."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline


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
