"""What members write on a page. A refusal names the field and says what to write instead."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Self

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import slugify

from accounts.models import Role
from billing import money
from billing.budgets.models import Budget
from billing.topups.models import AutomaticTopUp
from billing.topups.queries import Offer


class AmountField(forms.CharField):
    """An exact number: "1250.50". No separators of thousands, because "2,500" means two numbers to two readers."""

    widget = forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"})

    def to_python(self, value: str | None) -> Decimal | None:
        text = super().to_python(value)
        return _number(text, "such as 2000 or 1250.50") if text else None

    def prepare_value(self, value: object) -> object:
        return money.plain(value) if isinstance(value, Decimal) else value


class PercentField(AmountField):
    """One percent: "100" or "100 %"."""

    def to_python(self, value: str | None) -> Decimal | None:
        return super().to_python((value or "").replace("%", " "))


class ListField(forms.CharField):
    """Words separated by commas or line breaks, each once, in the order given."""

    def to_python(self, value: str | None) -> tuple[str, ...]:
        words = re.split(r"[\s,;]+", super().to_python(value) or "")
        return tuple(dict.fromkeys(word for word in words if word))

    def prepare_value(self, value: object) -> object:
        return value if isinstance(value, str | None) else ", ".join(map(str, value))  # type: ignore[call-overload]


class PercentsField(ListField):
    """Percents, lowest first."""

    widget = forms.TextInput(attrs={"inputmode": "text", "autocomplete": "off"})

    def to_python(self, value: str | None) -> tuple[Decimal, ...]:
        words = super().to_python((value or "").replace("%", " "))
        return tuple(sorted({_number(word, "in percent, such as 50, 80, 100") for word in words}))

    def prepare_value(self, value: object) -> object:
        percents = [money.plain(each) for each in value] if isinstance(value, tuple) else value
        return super().prepare_value(percents)


def _number(text: str, example: str) -> Decimal:
    try:
        return money.parse_decimal(text)
    except ValueError:
        raise ValidationError(
            '"%(text)s" is no number here. Write plain digits with a point for decimals, %(example)s.',
            params={"text": text[:40], "example": example},
        ) from None


class BudgetForm(forms.Form):
    """How much, when to be told, and who."""

    name = forms.CharField(max_length=200)
    amount = AmountField()
    thresholds = PercentsField(
        label="Alert at", required=False, help_text="Percent of the budget, separated by commas."
    )
    stop_at = PercentField(
        label="Stop at",
        required=False,
        help_text="Percent of the budget. Calls that ask first are denied beyond it; empty: none are.",
    )
    recipients = ListField(
        label="Mail to",
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="owners, billing, or e-mail addresses of members, separated by commas.",
    )

    def __init__(self, *args: object, unit: str, budget: Budget | None, **kwargs: object) -> None:
        super().__init__(*args, initial=_initial(budget), **kwargs)  # type: ignore[arg-type]
        self.fields["amount"].label = f"Amount per billing period, in {unit}"

    def refuse(self, error: ValidationError) -> None:
        """Show what a service refused at the field it is about, or above all of them: "thresholds.0.percent" belongs to
        the thresholds."""
        said = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        for path, sentences in said.items():
            field = path.split(".")[0].removesuffix("_percent")
            for sentence in sentences:
                self.add_error(field if field in self.fields else None, sentence)


def _initial(budget: Budget | None) -> dict[str, object]:
    if budget is None:
        return {
            "name": "Monthly budget",
            "thresholds": (Decimal(50), Decimal(80), Decimal(100)),
            "recipients": "owners",
        }
    percents = tuple(sorted(each.percent for each in budget.thresholds.all() if each.percent is not None))
    return {
        "name": budget.name,
        "amount": budget.amount,
        "thresholds": percents,
        "stop_at": budget.stop_at_percent,
        "recipients": budget.recipients,
    }


class InvitationForm(forms.Form):
    """Whom to invite, as what."""

    email = forms.EmailField(label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    role = forms.TypedChoiceField(
        choices=Role.choices,
        coerce=Role,
        initial=Role.VIEWER,
        help_text="Owners change the team, owners and billing members change budgets, all others look.",
    )


class RoleForm(forms.Form):
    role = forms.TypedChoiceField(choices=Role.choices, coerce=Role)


class KeyForm(forms.Form):
    """A key that reads this customer."""

    name = forms.CharField(
        label="What will use it?", max_length=200, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )


class TopUpForm(forms.Form):
    """How much of what to buy."""

    unit = forms.CharField(max_length=32, widget=forms.HiddenInput)
    amount = AmountField(label="Amount")

    def __init__(self, *args: object, offers: Sequence[Offer], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.offers = {offer.unit: offer for offer in offers}
        if offer := self.offers.get(self["unit"].value() or ""):
            self.auto_id = f"{slugify(offer.unit)}_%s"
            self.fields["amount"].label = f"{'Another' if offer.choices else 'An'} amount, in {offer.unit}"
            self.fields["amount"].help_text = _bounds(offer)

    @classmethod
    def of(cls, offer: Offer) -> Self:
        return cls(offers=[offer], initial={"unit": offer.unit})

    def clean_amount(self) -> Decimal:
        amount: Decimal = self.cleaned_data["amount"]
        if amount <= 0:
            raise ValidationError("Buy more than nothing.")
        return amount


def _bounds(offer: Offer) -> str:
    least, most = (None if bound is None else money.display(bound, offer.unit) for bound in (offer.least, offer.most))
    if least and most:
        return f"From {least} to {most}."
    if least or most:
        return f"At least {least}." if least else f"At most {most} at once."
    return ""


class RuleForm(forms.Form):
    """When to buy by itself, and how much."""

    unit = forms.CharField(max_length=32, widget=forms.HiddenInput)
    is_active = forms.BooleanField(label="Buy automatically", required=False)
    threshold = AmountField(label="When less than this is available")
    target = AmountField(label="Fill up to")
    monthly_ceiling = AmountField(label="At most in a calendar month")
    cooldown_minutes = forms.IntegerField(
        label="Minutes between two top-ups, at least",
        min_value=0,
        max_value=44_640,
        initial=60,
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        unit = str(self["unit"].value() or "")
        self.auto_id = f"automatic_{slugify(unit)}_%s"
        self.fields["monthly_ceiling"].help_text = f"In {unit}, like the amounts above."

    def clean_threshold(self) -> Decimal:
        threshold: Decimal = self.cleaned_data["threshold"]
        if threshold < 0:
            raise ValidationError("Choose a level that is not below zero.")
        return threshold

    @classmethod
    def of(cls, offer: Offer, rules: Mapping[str, AutomaticTopUp]) -> Self:
        """With what is set, if anything is."""
        rule = rules.get(offer.unit)
        return cls(initial={name: getattr(rule, name) for name in cls.base_fields} if rule else {"unit": offer.unit})
