"""How people sign in: by invitation only."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class InvitationOnlyAdapter(DefaultAccountAdapter):
    """Nobody signs up by themselves: a membership begins with an invitation."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
