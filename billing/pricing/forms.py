"""A price as an operator types it: its rows and tiers in tables, without JSON and without JavaScript."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast

from django import forms
from django.core.exceptions import ValidationError
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from billing.metering.models import Meter
from billing.money import ZERO, parse_decimal, plain
from billing.pricing import where
from billing.pricing.models import Scheme as SchemeChoices
from billing.pricing.schemes import Scheme, Tier
from billing.pricing.spec import AMOUNTS_OF, MatchSpec, PriceSpec

ROWS_MORE: Final = 3  # empty match rows and tiers, ready to be filled in

# Which schemes a field is for; a field that is not here is for all of them.
ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(scheme for scheme, names in AMOUNTS_OF.items() if name in names)
    for taken in AMOUNTS_OF.values()
    for name in taken
}


class ExactField(forms.CharField):
    """A decimal as text, read exactly; empty is `empty_value`."""

    def __init__(self, *, neutral: Decimal | None = ZERO, **options: Any) -> None:
        self.neutral = neutral
        widget = UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "class": "amount"})
        super().__init__(required=False, widget=widget, **options)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            return "" if value == self.neutral else plain(value)
        return value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return self.neutral
        if "," in text:  # 0,15 would become 15, and 1,500 is another number elsewhere
            raise ValidationError("Write 1500.5: a point before decimals, and nothing between thousands.")
        try:
            return parse_decimal(text)
        except ValueError:
            raise ValidationError("Write a number such as 12.5, with at most 12 decimal places.") from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return str(self.prepare_value(initial) or "") != str(data or "").strip()


class WhereField(forms.CharField):
    """A condition as text; empty is refused, because the price itself is the default row."""

    def __init__(self, **options: Any) -> None:
        widget = UnfoldAdminTextInputWidget(attrs={"placeholder": "model = large-2", "class": "where"})
        super().__init__(widget=widget, **options)

    def prepare_value(self, value: Any) -> Any:
        return where.format_where(value) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        try:
            return where.parse(super().to_python(value) or "")
        except ValueError as error:
            raise ValidationError(str(error)) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.prepare_value(initial or {}) != (data or "").strip())


class TiersWidget(forms.Widget):
    """A table with a line for each tier, and some empty ones."""

    template_name = "admin/billing/widgets/tiers.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        lines = [_as_typed(tier) for tier in value or ()]
        count = max(len(lines) + 1, ROWS_MORE)
        lines += [dict.fromkeys(Tier.__slots__, "")] * (count - len(lines))
        return {**context, "name": name, "lines": list(enumerate(lines)), "count": count}

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        return render_to_string(self.template_name, self.get_context(name, value, attrs))

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> list[dict[str, str]]:
        lines = min(_count(data, f"{name}-count"), 200)
        found = [{part: data.get(f"{name}-{line}-{part}", "") for part in Tier.__slots__} for line in range(lines)]
        return [line for line in found if any(text.strip() for text in line.values())]

    def value_omitted_from_data(self, data: Mapping[str, Any], files: Any, name: str) -> bool:
        return f"{name}-count" not in data


def _count(data: Mapping[str, Any], name: str) -> int:
    """How many lines a page says that it has; none where it says no number."""
    text = data.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 0  # noqa: PLR2004 -- far more than any page has


def _as_typed(tier: Any) -> dict[str, str]:
    if not isinstance(tier, Tier):
        return cast("dict[str, str]", tier)
    amounts = {name: plain(getattr(tier, name)) for name in ("unit_amount", "flat_amount")}
    return {"up_to": "" if tier.up_to is None else plain(tier.up_to), **amounts}


class TiersField(forms.Field):
    """Tiers, top to bottom; the one without a bound is for all that is above."""

    widget = TiersWidget

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, **options)

    def to_python(self, value: Any) -> tuple[Tier, ...]:
        return tuple(self._tier(number, line) for number, line in enumerate(value or (), start=1))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(initial) or bool(data)

    def _tier(self, number: int, line: Mapping[str, str]) -> Tier:
        amount = ExactField()
        try:
            up_to = amount.to_python(line["up_to"]) if line["up_to"].strip() else None
            return Tier(up_to, amount.to_python(line["unit_amount"]), amount.to_python(line["flat_amount"]))
        except ValidationError as error:
            raise ValidationError(f"Tier {number}: {' '.join(error.messages)}") from None


class RowForm(forms.Form):
    """The amounts of a row: those of the price's scheme are read."""

    unit_amount = ExactField(label="Amount")
    tiers = TiersField(label="Tiers")
    package_size = ExactField(label="Package size", neutral=Decimal(1))
    package_amount = ExactField(label="Per started package")
    rate = ExactField(label="Percent")
    fixed_amount = ExactField(label="Per event")
    included = ExactField(label="Included", help_text="Free quantity in each billing period.")
    minimum_amount = ExactField(label="At least", neutral=None, help_text="Added at the end of a period; empty: none.")
    maximum_amount = ExactField(label="At most", neutral=None, help_text="In a billing period; empty: no limit.")

    def amounts(self, scheme: str) -> dict[str, Any]:
        """What was typed, without what another scheme reads."""
        own = [name for name in RowForm.base_fields if scheme in ONLY.get(name, (scheme,))]
        return {name: self.cleaned_data[name] for name in own}

    def cells(self) -> Iterator[tuple[forms.BoundField, str]]:
        """The fields of amounts, each with the schemes that it is for."""
        for name in RowForm.base_fields:
            yield self[name], " ".join(ONLY.get(name, ()))


class MatchForm(RowForm):
    """Another row, for events whose dimensions match."""

    where = WhereField()


class PriceForm(RowForm):
    """The price itself, with the amounts of its default row."""

    key = forms.CharField(
        widget=UnfoldAdminTextInputWidget, help_text="By which invoices and the API know it, for instance input."
    )
    meter = forms.ModelChoiceField(
        Meter.objects.all(), to_field_name="key", widget=UnfoldAdminSelectWidget, help_text="What is counted."
    )
    unit = forms.CharField(widget=UnfoldAdminTextInputWidget, help_text="The plan's currency, or credits.")
    scheme = forms.ChoiceField(choices=SchemeChoices.choices, widget=UnfoldAdminSelectWidget)
    per = ExactField(
        label="Amounts are per", neutral=Decimal(1), help_text="The quantity that an amount buys, such as 1,000,000."
    )


class _MatchFormSet(forms.BaseFormSet):  # type: ignore[type-arg]
    """Every row is equal: one that was left empty, or was emptied, is none."""

    deletion_widget = UnfoldBooleanWidget

    def initial_form_count(self) -> int:
        return 0

    def total_form_count(self) -> int:
        return super().total_form_count() if self.is_bound else len(self.initial or ()) + self.extra


MatchFormSet = forms.formset_factory(
    MatchForm, formset=_MatchFormSet, extra=ROWS_MORE, can_delete=True, max_num=500, validate_max=True
)


class PriceForms:
    """The form of a price and the table of its match rows, as one."""

    def __init__(self, data: Mapping[str, Any] | None = None, *, price: PriceSpec | None = None) -> None:
        initial, rows = (_initial(price), [_initial(row) for row in price.match]) if price else ({}, [])
        self.is_growing = data is not None and "_more" in data
        if data is not None and self.is_growing:
            data = {**dict(data.items()), "match-TOTAL_FORMS": str(_count(data, "match-TOTAL_FORMS") + ROWS_MORE)}
        self.price = PriceForm(data, initial={"scheme": "per_unit", **initial})
        self.match = MatchFormSet(data, initial=rows, prefix="match")

    def is_valid(self) -> bool:
        return bool(self.price.is_valid()) & bool(self.match.is_valid())

    def spec(self) -> PriceSpec:
        """What was typed. Only after `is_valid`."""
        typed = self.price.cleaned_data
        scheme = cast(Scheme, typed["scheme"])
        rows = (MatchSpec(form.cleaned_data["where"], **form.amounts(scheme)) for form in self._rows())
        return PriceSpec(
            key=typed["key"],
            meter=typed["meter"].key,
            unit=typed["unit"],
            scheme=scheme,
            per=typed["per"],
            match=tuple(rows),
            **self.price.amounts(scheme),
        )

    def _rows(self) -> list[MatchForm]:
        deleted = self.match.deleted_forms
        return [form for form in self.match if form.has_changed() and form not in deleted and form.cleaned_data]

    def add_problems(self, error: ValidationError) -> None:
        """Show what the service refused where it was typed: `match.1.tiers.0.up_to` at the tiers of the second row."""
        rows = self._rows()
        for path, problems in error.error_dict.items():
            parts = path.split(".")
            form: forms.Form = self.price
            if parts[0] == "match" and len(parts) > 2 and int(parts[1]) < len(rows):  # noqa: PLR2004 -- match, n, field
                form, parts = rows[int(parts[1])], parts[2:]
            field = parts[0] if parts[0] in form.fields else None
            tier = f"Tier {int(parts[1]) + 1}: " if parts[0] == "tiers" and len(parts) > 1 else ""
            for problem in problems:
                form.add_error(field, ValidationError(f"{tier}{' '.join(problem.messages)}", code=problem.code))


def _initial(row: PriceSpec | MatchSpec) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__ if name != "match"}
