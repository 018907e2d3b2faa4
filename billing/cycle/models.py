"""What checks of the books found."""

from django.db import models
from django.db.models.functions import Now


class BooksCheck(models.Model):
    """One run of all checks over all customers."""

    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_default=Now())
    customers = models.PositiveIntegerField(help_text="How many were checked.")
    parked = models.PositiveIntegerField(help_text="How many of them are parked now.")
    differences = models.PositiveIntegerField(help_text="How many numbers did not agree.")
    found = models.JSONField(default=list, help_text="The first of them, in words.")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}: {self.differences or 'no'} differences"
