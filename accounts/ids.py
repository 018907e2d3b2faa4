"""Opaque public identifiers: a prefix that says what it is, and 128 random bits."""

import secrets

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_id(prefix: str) -> str:
    """For instance `sub_3kTMd2nZ8Qw7XbE1rYvUpa`."""
    return f"{prefix}_{''.join(secrets.choice(ALPHABET) for _ in range(22))}"
