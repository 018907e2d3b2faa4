"""Who is told: roles of the customer's members, or plain e-mail addresses."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.models import Customer, Membership, Role

ROLES: Final = {"owners": Role.OWNER, "billing": Role.BILLING}
MOST: Final = 20


def addresses(customer: Customer, recipients: Iterable[str]) -> list[str]:
    """Where mail goes: each address once, roles resolved to the members who hold them now.

    When that leaves nobody, the customer's own address, if it has one.
    """
    named = list(recipients)
    roles = [ROLES[name] for name in named if name in ROLES]
    found = [*(name for name in named if name not in ROLES), *_members(customer, roles)]
    return sorted({address.lower() for address in found}) or [address for address in [customer.email] if address]


def checked(customer: Customer, recipients: Sequence[str], *, trusted: bool, known: Collection[str] = ()) -> list[str]:
    """The recipients without repetition, roles and addresses in lower case. Raises ValidationError with the remedy.

    `trusted`: an operator names them, so any address will do. Otherwise an address must be a member's, the
    customer's own or one of `known`: nobody else has agreed to get this mail.
    """
    names = list(dict.fromkeys(name.strip().lower() for name in recipients))
    if not 1 <= len(names) <= MOST:
        raise ValidationError(f"Name 1 to {MOST} recipients: owners, billing, or e-mail addresses.")
    for name in names:
        _check_form(name)
    if trusted:
        return names
    agreed = {*ROLES, *_members(customer, Role), customer.email.lower(), *known}
    if strangers := [name for name in names if name not in agreed]:
        raise ValidationError(
            f"{', '.join(strangers)}: no member of {customer.name}. Invite them first, or name a role or a member."
        )
    return names


def _check_form(name: str) -> None:
    if name in ROLES:
        return
    try:
        validate_email(name)
    except ValidationError:
        known = ", ".join(ROLES)
        raise ValidationError(f'"{name}" is neither an e-mail address nor one of: {known}.') from None


def _members(customer: Customer, roles: Iterable[str]) -> list[str]:
    held = Membership.objects.filter(customer=customer, role__in=roles, user__is_active=True)
    return list(held.values_list("user__email", flat=True))
