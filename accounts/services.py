"""What changes who may do what: customers, members, invitations and keys.

Refusals are ValidationErrors, whose message names the remedy.
"""

import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from accounts.auth import digest
from accounts.models import ApiKey, Customer, IdempotentRequest, Invitation, Membership, Role, Scope, TestClock, User

INVITATION_VALID: Final = timedelta(days=7)
ANSWERS_KEPT: Final = timedelta(hours=24)
PREFIX_LENGTH: Final = 10  # "hr_" and 7 characters: enough to recognise a key by, far too little to guess it


# --- customers --------------------------------------------------------------------------------------------------


def create_customer(
    *,
    key: str,
    name: str,
    currency: str = "USD",
    timezone: str = "UTC",
    email: str = "",
    test_clock: TestClock | None = None,
    at: datetime,
) -> Customer:
    """A new tenant. ValidationError names the field that is wrong, or `key` when it is taken."""
    customer = Customer(
        key=key,
        name=name,
        currency=currency,
        timezone=timezone,
        email=email,
        test_clock=test_clock,
        created_at=at,
    )
    customer.full_clean()
    try:
        with transaction.atomic():
            customer.save(force_insert=True)
    except IntegrityError:
        # Two requests at once: full_clean() saw neither.
        taken = ValidationError("Customer with this Key already exists.", code="unique")
        raise ValidationError({"key": taken}) from None
    return customer


def update_customer(*, customer: Customer, at: datetime, **changes: str) -> Customer:
    """Change `name`, `timezone` or `email`. A new zone holds from the next billing period."""
    if unknown := changes.keys() - {"name", "timezone", "email"}:
        raise TypeError(f"update_customer() cannot change {', '.join(sorted(unknown))}.")
    for name, value in changes.items():
        setattr(customer, name, value)
    customer.full_clean()
    customer.save(update_fields=[*changes])
    return customer


# --- test clocks ------------------------------------------------------------------------------------------------

FIRST_INSTANT: Final = datetime(1990, 1, 1, tzinfo=UTC)
LAST_INSTANT: Final = datetime(2090, 1, 1, tzinfo=UTC)


def create_test_clock(*, now: datetime, at: datetime) -> TestClock:
    """A time for customers of a sandbox. ValidationError for one that is out of reach."""
    if not FIRST_INSTANT <= now < LAST_INSTANT:
        raise ValidationError({"now": "Choose an instant from 1990 to 2089."})
    return TestClock.objects.create(now=now, created_at=at)


def delete_test_clock(*, clock: TestClock, at: datetime) -> None:
    """It stands still for good; its customers can be read, but time does not pass for them."""
    TestClock.objects.filter(pk=clock.pk).update(deleted_at=at, advancing_to=None)


# --- members ----------------------------------------------------------------------------------------------------


@transaction.atomic
def change_role(*, membership: Membership, role: Role, at: datetime) -> Membership:
    """Effective with the member's next request."""
    _keep_an_owner(membership, unless=role == Role.OWNER)
    membership.role = role
    membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def remove_member(*, membership: Membership, at: datetime) -> None:
    """Effective with the member's next request. The person stays a user and may belong to other customers."""
    _keep_an_owner(membership)
    membership.delete()


def _keep_an_owner(membership: Membership, *, unless: bool = False) -> None:
    """Refuse to take away the last owner. The customer's row is locked so that two owners who act on each other at
    once do so one after the other."""
    Customer.objects.select_for_update(no_key=True).get(pk=membership.customer_id)
    others = Membership.objects.filter(customer=membership.customer_id, role=Role.OWNER).exclude(pk=membership.pk)
    if not unless and not others.exists():
        raise ValidationError("A customer needs an owner. Make somebody else an owner first.", code="last_owner")


# --- invitations ------------------------------------------------------------------------------------------------


@transaction.atomic
def invite(*, customer: Customer, email: str, role: Role, invited_by: User | None, at: datetime) -> Invitation:
    """Offer a membership. The mail is sent soon after; an earlier open invitation of the same address ends."""
    email = email.strip().lower()
    # One inviter at a time, so that an address has one open invitation.
    Customer.objects.select_for_update(no_key=True).get(pk=customer.pk)
    check_invitation(customer=customer, email=email)
    _open(Invitation.objects.filter(customer=customer, email=email)).update(revoked_at=at)
    return Invitation.objects.create(
        customer=customer,
        email=email,
        role=role,
        invited_by=invited_by,
        created_at=at,
        expires_at=at + INVITATION_VALID,
    )


def check_invitation(*, customer: Customer, email: str) -> None:
    """ValidationError for what is no address, and for somebody who is a member already."""
    validate_email(email)
    if Membership.objects.filter(customer=customer, user__email=email.lower()).exists():
        raise ValidationError({"email": f"{email} is a member already. Change the role instead."})


def revoke_invitation(*, invitation: Invitation, at: datetime) -> None:
    """The link stops working. One that is accepted stays accepted."""
    _open(Invitation.objects.filter(pk=invitation.pk)).update(revoked_at=at)
    invitation.refresh_from_db()


@transaction.atomic
def accept_invitation(*, invitation: Invitation, user: User, at: datetime) -> Membership:
    """Make the user a member, once. Only the address that was invited may accept."""
    if user.email != invitation.email:
        raise ValidationError(f"This invitation is for {invitation.email}. Sign in with that address.")
    # The conditional update is the claim: of two clicks at once, one finds nothing to claim.
    claimable = _open(Invitation.objects.filter(pk=invitation.pk, expires_at__gt=at))
    if not claimable.update(accepted_at=at):
        raise ValidationError("This invitation has ended. Ask for a new one.", code="ended")
    membership, _ = Membership.objects.get_or_create(
        user=user, customer_id=invitation.customer_id, defaults={"role": invitation.role, "created_at": at}
    )
    return membership


@transaction.atomic
def accept_as_new_person(*, invitation: Invitation, name: str, password: str, at: datetime) -> User:
    """Make the invited address a user with this name and password, and a member."""
    user = User(email=invitation.email, name=name)
    validate_password(password, user)
    try:
        with transaction.atomic():
            user = User.objects.create_user(invitation.email, password, name=name)
    except IntegrityError:
        raise ValidationError(f"{invitation.email} has an account. Sign in to accept.") from None
    accept_invitation(invitation=invitation, user=user, at=at)
    return user


def _open(invitations: QuerySet[Invitation]) -> QuerySet[Invitation]:
    return invitations.filter(accepted_at=None, revoked_at=None)


# --- keys of programs -------------------------------------------------------------------------------------------


def create_api_key(
    *,
    name: str,
    scopes: Collection[Scope] = (),
    customer: Customer | None = None,
    expires_at: datetime | None = None,
    created_by: User | None = None,
    at: datetime,
) -> tuple[ApiKey, str]:
    """A key and its secret, which is returned here and never again. With a customer it is a customer key."""
    check_api_key(scopes=scopes, customer=customer, expires_at=expires_at, at=at)
    secret = f"hr_{secrets.token_urlsafe(32)}"
    key = ApiKey.objects.create(
        name=name,
        scopes=sorted(scopes),
        customer=customer,
        expires_at=expires_at,
        created_by=created_by,
        created_at=at,
        prefix=secret[:PREFIX_LENGTH],
        digest=digest(secret),
    )
    return key, secret


def check_api_key(
    *, scopes: Collection[Scope], customer: Customer | None, expires_at: datetime | None, at: datetime
) -> None:
    """ValidationError by field for a key that could do nothing, or that claims more than a customer's key may."""
    if customer is None and not scopes:
        raise ValidationError({"scopes": "Choose at least one scope, or a customer."})
    if customer is not None and scopes:
        raise ValidationError({"scopes": "A customer's key has no scopes: leave them empty."})
    if expires_at is not None and expires_at <= at:
        raise ValidationError({"expires_at": "Choose an instant in the future."})


def revoke_api_key(*, key: ApiKey, at: datetime) -> None:
    """The key stops working with the next request. Revoking again changes nothing."""
    ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=at)
    key.refresh_from_db()


def forget_old_answers(*, at: datetime) -> int:
    """Delete answers under an Idempotency-Key that are no longer repeated. Returns how many."""
    deleted, _ = IdempotentRequest.objects.filter(created_at__lt=at - ANSWERS_KEPT).delete()
    return deleted
