"""What the admin's pages share: they stand whatever is sent to them."""

from collections.abc import Iterable
from typing import Any

from django.contrib.admin.widgets import AutocompleteSelect, AutocompleteSelectMultiple
from django.http import Http404, HttpRequest


def row_or_404(model_admin: Any, request: HttpRequest, object_id: str) -> Any:
    """What an action is about."""
    found = model_admin.get_object(request, object_id)
    if found is None:
        raise Http404
    return found


class _KeysOnly:
    """Shows what is chosen by its key. Anything else chooses nothing, for the form to refuse."""

    def optgroups(self, name: str, value: Iterable[Any], attr: Any = None) -> Any:
        chosen = [one for one in value if str(one).isdecimal()]
        return super().optgroups(name, chosen, attr)  # type: ignore[misc]  # of the widget beside it


class _Select(_KeysOnly, AutocompleteSelect):
    """For one."""


class _SelectMultiple(_KeysOnly, AutocompleteSelectMultiple):
    """For many."""


class Searching:
    """An admin whose `autocomplete_fields` stand whatever is sent, as its other fields do."""

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):  # type: ignore[attr-defined]  # of the admin
            widget = _SelectMultiple if db_field.many_to_many else _Select
            options["widget"] = widget(db_field, self.admin_site)  # type: ignore[attr-defined]
        return super().formfield_for_dbfield(db_field, request, **options)  # type: ignore[misc]
