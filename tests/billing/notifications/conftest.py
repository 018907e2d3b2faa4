"""A message kind of the tests' own: a greeting."""

from pathlib import Path

import pytest

TEMPLATES = Path(__file__).parent / "templates"


@pytest.fixture(autouse=True)
def greeting(settings):
    settings.TEMPLATES = [settings.TEMPLATES[0] | {"DIRS": [TEMPLATES, *settings.TEMPLATES[0]["DIRS"]]}]
