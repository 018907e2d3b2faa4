"""An installation is safe or does not start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAFE = {
    "SECRET_KEY": "k" * 25 + "0123456789abcdefghijklmnopqrstuvwxyz",
    "BASE_URL": "https://usage.vendor.test",
    "ALLOWED_HOSTS": "usage.vendor.test",
    "MAIL_URL": "smtp://mail.vendor.test:587?starttls",
}


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "VAR", "HOME"}}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=Path(__file__).parent.parent,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_djangos_list_for_deployment_finds_nothing_to_say():
    result = manage("check", "--deploy", "--fail-level", "WARNING", **SAFE)
    assert result.returncode == 0, result.stderr
    assert "no issues" in result.stdout


@pytest.mark.parametrize("key", ["", "insecure-development-key"])
def test_without_a_secret_of_its_own_it_does_not_start(key):
    result = manage("check", **SAFE | {"SECRET_KEY": key})
    assert result.returncode != 0
    assert "SECRET_KEY is missing or the default" in result.stderr


def test_over_tls_no_other_host_of_the_domain_can_set_the_cookies():
    ask = "from django.conf import settings as s; print(s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME)"
    assert "__Host-sessionid __Host-csrftoken" in manage("shell", "-v", "0", "-c", ask, **SAFE).stdout
