"""Addresses for templates of mails; the secret in them is made when they are rendered and stored nowhere."""

from django import template

from accounts import invitation_links

register = template.Library()
register.simple_tag(invitation_links.link, name="invitation_link")
