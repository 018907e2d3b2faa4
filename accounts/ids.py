"""Opaque public identifiers: a prefix that says what it is, and 128 random bits."""

import secrets

from django.urls import register_converter

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_id(prefix: str) -> str:
    """For instance `sub_3kTMd2nZ8Qw7XbE1rYvUpa`."""
    number, digits = secrets.randbits(128), []
    for _ in range(22):  # 62 ** 22 > 2 ** 128
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return f"{prefix}_{''.join(digits)}"


class PublicIdConverter:
    """Such an identifier in an address (`<id:...>`). What is none is not found before a view is asked."""

    regex = "[a-z]+_[0-9A-Za-z]+"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(PublicIdConverter, "id")
