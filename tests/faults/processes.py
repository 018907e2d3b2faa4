"""What still runs for a data folder: a test that ends processes looks here for what they left."""

import time
from contextlib import suppress
from pathlib import Path


def processes_of(var: Path) -> dict[int, str]:
    """Processes that work in VAR or name it in their command. Those that ended but are not reaped have neither."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(var) in command or (process / "cwd").readlink().is_relative_to(var):
                found[int(process.name)] = command
    return found


def wait_until_gone(var: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while left := processes_of(var):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
