"""What an operator says when a grant is changed."""

from django import forms
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget


class ReasonForm(BaseDialogForm):  # type: ignore[misc]  # unfold is not typed
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="It stays in the ledger.")


class AdjustForm(ReasonForm):
    amount = forms.DecimalField(
        max_digits=38,
        decimal_places=12,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="Above 0 to add to the grant, below 0 to take from what is left of it.",
    )
    field_order = ["amount", "reason"]
