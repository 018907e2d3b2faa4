"""How amounts and quantities are stored: numeric(38,12) that is neither NaN nor infinite."""

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.db import models
from django.db.models import F, Q, Value

from billing.money import plain

if TYPE_CHECKING:
    _DecimalField = models.DecimalField[Any, Any]
else:
    _DecimalField = models.DecimalField  # Django's fields are generic for type checkers only


class PlainDecimalField(forms.DecimalField):
    """Shows 20 where the database says 20.000000000000."""

    def prepare_value(self, value: Any) -> Any:
        return plain(value) if isinstance(value, Decimal) else value


class AmountField(_DecimalField):
    """A decimal that forms show without needless zeros. To migrations it is a plain DecimalField."""

    def formfield(self, **options: Any) -> Any:
        return super().formfield(**{"form_class": PlainDecimalField, **options})

    def deconstruct(self) -> Any:
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.DecimalField", args, options


def amount_field(**options: Any) -> AmountField:
    """A column of 26 digits before the point and 12 after it."""
    return AmountField(max_digits=38, decimal_places=12, **options)


def _range(field: str, low: str, *, inclusive: bool) -> Q:
    # PostgreSQL sorts NaN above infinity, so one upper bound refuses both.
    number = models.DecimalField()
    below = Q(**{f"{field}__lt": Value(Decimal("1e26"), output_field=number)})
    lookup = f"{field}__gte" if inclusive else f"{field}__gt"
    return below & Q(**{lookup: Value(Decimal(low), output_field=number)})


def finite(field: str, name: str) -> models.CheckConstraint:
    """Any finite number."""
    return models.CheckConstraint(condition=_range(field, "-1e26", inclusive=False), name=name)


def not_negative(field: str, name: str) -> models.CheckConstraint:
    """A finite number of zero or more; NULL passes where the column allows it."""
    return models.CheckConstraint(condition=_range(field, "0", inclusive=True), name=name)


def positive(field: str, name: str) -> models.CheckConstraint:
    """A finite number above zero; NULL passes where the column allows it."""
    return models.CheckConstraint(condition=_range(field, "0", inclusive=False), name=name)


def ordered(first: str, second: str, name: str) -> models.CheckConstraint:
    """`second` lies after `first` wherever both are set."""
    return models.CheckConstraint(condition=Q(**{f"{second}__gt": F(first)}), name=name)


class ExactDecoder(json.JSONDecoder):
    """Reads JSON numbers with a fraction as Decimal, never as float."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "parse_float": Decimal})
