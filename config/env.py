"""Readers for the environment. Settings are read here, once, and a wrong one stops the start with a sentence."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict


def text(name: str, default: str | None = None) -> str:
    """The variable, or the default; without a default it is required."""
    value = os.environ.get(name, "") or default
    if value is None:
        raise ImproperlyConfigured(f"{name} is not set. See .env.example for what it means.")
    return value


def is_set(name: str) -> bool:
    return bool(os.environ.get(name))


def boolean(name: str, default: bool) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value in {"", "1", "0", "true", "false", "yes", "no"}:
        return value in {"1", "true", "yes"} if value else default
    raise ImproperlyConfigured(f"{name}={value!r} is neither true nor false: use 1 or 0.")


def integer(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    try:
        return int(value) if value else default
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is no whole number.") from None


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def secret(name: str, *, insecure_default: str, debug: bool) -> str:
    """A secret from NAME or from the file NAME_FILE. The default is for debug only."""
    if path := os.environ.get(f"{name}_FILE"):
        return Path(path).read_text().strip()
    value = os.environ.get(name, "") or insecure_default
    if value == insecure_default and not debug:
        raise ImproperlyConfigured(f"{name} is missing or the default. Set it (or {name}_FILE), or set DEBUG=1.")
    return value


def database(url: str, **options: Any) -> dict[str, Any]:
    """Django's settings of a PostgreSQL connection from a libpq URL, for instance
    `postgresql://app:secret@db.internal:5432/headroom?sslmode=require`."""
    parts: dict[str, Any] = dict(conninfo_to_dict(url))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.pop("dbname", ""),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": str(parts.pop("port", "")),
        "OPTIONS": {**parts, **options},
    }


def mailer(url: str) -> dict[str, Any]:
    """One entry of Django's MAILERS from `smtp://user:password@host:587`, `smtps://...` or `file:///folder`."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return {
            "BACKEND": "django.core.mail.backends.filebased.EmailBackend",
            "OPTIONS": {"file_path": unquote(parts.path)},
        }
    if parts.scheme not in {"smtp", "smtps"}:
        raise ImproperlyConfigured(f"MAIL_URL: {parts.scheme!r} is none of smtp, smtps, file.")
    options: dict[str, Any] = {"host": parts.hostname or "localhost", "port": parts.port or 25, "timeout": 20}
    if parts.username:
        options |= {"username": unquote(parts.username), "password": unquote(parts.password or "")}
    if parts.scheme == "smtps":
        options["use_ssl"] = True
    elif "starttls" in parts.query:
        options["use_tls"] = True
    return {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}
