"""What people type about themselves."""

from django import forms
from django.contrib.auth.password_validation import password_validators_help_texts


class NewPersonForm(forms.Form):
    """Of somebody who accepts an invitation and has no account yet."""

    name = forms.CharField(label="Your name", max_length=200, widget=forms.TextInput({"autocomplete": "name"}))
    password = forms.CharField(
        label="Choose a password",
        strip=False,
        max_length=200,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
        help_text=" ".join(password_validators_help_texts()),
    )
