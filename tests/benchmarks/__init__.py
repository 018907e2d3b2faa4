"""Measurements, on servers of their own in `var/bench`: `python -m tests.benchmarks [name ...]`.

No test depends on them. Each prints a ratio to a baseline of the same run: other work on the machine moves both.
"""

import os
from pathlib import Path

import django

os.environ.setdefault("VAR", str(Path(__file__).resolve().parents[2] / "var" / "bench"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("SECRET_KEY", "only-for-measuring-on-this-machine-0123456789-abcdefghijkl")
os.environ |= {"DEBUG": "0", "LOG_LEVEL": "WARNING"}
os.environ.setdefault("DATABASE_POOL_SIZE", "0")  # here; a web process that imports this package keeps its own
django.setup()

import config.wsgi  # noqa: E402, F401 -- what is measured in this process collects garbage as a web process does
