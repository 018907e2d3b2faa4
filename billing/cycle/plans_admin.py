"""Plan versions in the admin, with what they would have charged for real usage."""

from django.contrib import admin

from billing.pricing.models import PlanVersion
from billing.pricing.versions_admin import VersionAdmin


@admin.register(PlanVersion)
class PlanVersionAdmin(VersionAdmin):
    """A version's pages, with previews."""
