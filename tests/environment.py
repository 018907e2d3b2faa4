"""What tests need in the environment before settings are read. Loaded first, by `-p` in pyproject.toml."""

import os
from pathlib import Path

os.environ.setdefault("VAR", str(Path(__file__).resolve().parent.parent / "var" / "test"))
os.environ["DEBUG"] = "1"
os.environ.setdefault("SECRET_KEY", "only-for-tests-0123456789-abcdefghijklmnopqrstuvwxyz")
os.environ["DATABASE_POOL_SIZE"] = "0"
