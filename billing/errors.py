"""How services refuse. Wrong input is Django's ValidationError, keyed by field; this is the other kind."""

from django.core.exceptions import ValidationError


class Conflict(ValidationError):  # noqa: N818 -- what it is, not that it is one
    """What is asked contradicts what is stored: 409 in the API, a form error in the admin."""

    code: str

    def __init__(self, detail: str, *, code: str, field: str = "") -> None:
        error = ValidationError(detail, code=code)
        super().__init__({field: [error]} if field else error)
        self.detail, self.code, self.field = detail, code, field
