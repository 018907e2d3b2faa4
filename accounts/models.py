"""Who: users, customers (the tenants that pay), memberships, invitations and API keys."""

from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower, Now

from accounts.ids import new_id
from accounts.zones import zone_names

KEY_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"
valid_key = RegexValidator(KEY_PATTERN, "Use 1 to 128 letters, digits, dots, underscores, colons or hyphens.")


def valid_zone(value: str) -> None:
    """An IANA time zone that this installation knows."""
    if value not in zone_names():
        raise ValidationError("%(zone)s is no IANA time zone. Use one like Europe/Berlin.", params={"zone": value})


class UserManager(BaseUserManager["User"]):
    """Makes users whose e-mail addresses are stored in lower case, so that one address is one person."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser, PermissionsMixin):
    """A person. Signs in with an e-mail address; `is_staff` makes an operator."""

    email = models.EmailField("e-mail", unique=True)
    name = models.CharField(max_length=200, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField("operator", default=False, help_text="May open the operator's pages.")
    date_joined = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(email=Lower("email")), name="user_email_is_lower_case"),
        ]

    def __str__(self) -> str:
        return self.email

    def get_short_name(self) -> str:
        return self.name or self.email


class TestClock(models.Model):
    """A time of its own for customers of a sandbox. While it is advancing, `now` is how far it has come.

    A deleted one stands still, and so do its customers.
    """

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "clock"), editable=False)
    now = models.DateTimeField()
    advancing_to = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)

    __test__ = False  # not for pytest

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(advancing_to=None) | models.Q(advancing_to__gte=models.F("now")),
                name="test_clock_goes_forward",
            ),
        ]
        indexes = [
            models.Index(fields=["id"], condition=models.Q(advancing_to__isnull=False), name="test_clock_advancing"),
        ]

    def __str__(self) -> str:
        return f"{self.public_id} at {self.now:%Y-%m-%d %H:%M} UTC"


class Customer(models.Model):
    """The tenant that pays. Everything of billing hangs on one."""

    key = models.CharField(max_length=128, unique=True, validators=[valid_key])
    name = models.CharField(max_length=200)
    currency = models.CharField(max_length=3, default="USD", help_text="ISO 4217, in capitals.")
    timezone = models.CharField(
        max_length=64,
        default="UTC",
        validators=[valid_zone],
        help_text="A new zone holds from the next period.",
    )
    email = models.EmailField("e-mail", blank=True, help_text="Where bills and alerts without other recipients go.")
    test_clock = models.ForeignKey(
        TestClock,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="customers",
        help_text="Of a sandbox: its time. It receives no mail. Fixed once the customer exists.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["key"]
        constraints = [
            models.CheckConstraint(condition=models.Q(key__regex=KEY_PATTERN), name="customer_key_is_a_key"),
            models.CheckConstraint(condition=models.Q(currency__regex="^[A-Z]{3}$"), name="customer_currency_is_iso"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.key})"


class Role(models.TextChoices):
    """What a member may do. Later roles may less."""

    OWNER = "owner", "Owner"
    BILLING = "billing", "Billing"
    DEVELOPER = "developer", "Developer"
    VIEWER = "viewer", "Viewer"


class Membership(models.Model):
    """A user's role at a customer."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "customer"], name="one_membership_per_user_and_customer"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="membership_role_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.customer}"


class Invitation(models.Model):
    """An offer of a membership, sent by e-mail. The link carries a signature of `public_id`; nothing secret is kept."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "inv"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField("e-mail")
    role = models.CharField(max_length=16, choices=Role)
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(editable=False)
    accepted_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer", "email"],
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="one_open_invitation_per_address",
            ),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="invitation_role_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.email} as {self.role} of {self.customer}"

    def is_open(self, at: datetime) -> bool:
        """Whether it can still be accepted."""
        return self.accepted_at is None and self.revoked_at is None and at < self.expires_at


class Scope(models.TextChoices):
    """What an operator key may do."""

    EVENTS_WRITE = "events:write", "Send events"
    BILLING_READ = "billing:read", "Read everything"
    BILLING_WRITE = "billing:write", "Change plans, customers, credits and budgets"


class ApiKey(models.Model):
    """A secret of a program. Without a customer it is an operator key with scopes; with one, a customer key
    that may read everything of that customer and change its budgets."""

    public_id = models.CharField(max_length=40, unique=True, default=partial(new_id, "key"), editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, null=True, blank=True, related_name="api_keys")
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=16, editable=False, help_text="The clear beginning, to recognise a key by.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = ArrayField(models.CharField(max_length=32, choices=Scope), default=list, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(customer=None) | models.Q(scopes=[]), name="customer_key_has_no_scopes"
            ),
            models.CheckConstraint(
                condition=models.Q(scopes__contained_by=Scope.values), name="api_key_scopes_are_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class IdempotentRequest(models.Model):
    """A POST that carried an Idempotency-Key and succeeded: what was asked and what was answered."""

    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["api_key", "key"], name="one_request_per_idempotency_key"),
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotent_request_age")]

    def __str__(self) -> str:
        return self.key
