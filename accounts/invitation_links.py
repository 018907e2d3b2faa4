"""The secret of an invitation is a signature over its id: nothing that opens the door is stored anywhere."""

from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.urls import reverse

from accounts.models import Invitation

_signer = Signer(salt="accounts.invitation")


def link(public_id: str) -> str:
    """The address that is mailed."""
    return f"{settings.BASE_URL}{reverse('accept-invitation', args=[_signer.sign(public_id)])}"


def find(token: str) -> Invitation | None:
    """The invitation that the token of a link was signed for."""
    try:
        public_id = _signer.unsign(token)
    except BadSignature:
        return None
    return Invitation.objects.select_related("customer", "invited_by").filter(public_id=public_id).first()
