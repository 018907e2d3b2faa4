"""What still runs for a data folder: a test that ends processes looks here for what they left."""

import os
import time
from contextlib import suppress
from pathlib import Path


def processes_of(var: Path) -> dict[int, str]:
    """Processes that have VAR in their environment, name it in their command, or work in it.

    Those that ended but are not reaped have none of these. Whoever asks is left out.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (process / "environ").read_bytes().split(b"\0")
            works_in = (process / "cwd").readlink()
            if f"VAR={var}".encode() in environment or str(var) in command or works_in.is_relative_to(var):
                found[int(process.name)] = command
    found.pop(os.getpid(), None)
    return found


def wait_until_gone(var: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(var):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
