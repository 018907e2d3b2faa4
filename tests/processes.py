"""Web, worker and beat as the demo starts them, on the database of the tests: to be asked, killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from django.conf import settings
from psycopg.conninfo import make_conninfo

from config import demo, embedded

ANSWER_SECONDS = 60
STOP_SECONDS = 30
DECIDED = {"DEBUG": "0", "DATABASE_POOL_SIZE": ""}  # as installed, whatever the tests themselves use


@dataclass
class Child:
    """One process and all that it starts, in a group of its own; not in debug."""

    name: str
    arguments: list[str]
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return settings.VAR / "log" / f"{self.name}.log"

    def start(self) -> None:
        """Call it from a process with one thread: the kernel ends the child with the thread that started it."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=demo.ROOT,
                env=os.environ | addresses() | DECIDED | {"VAR": str(settings.VAR)} | self.settings,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=embedded.die_with_parent(signal.SIGTERM),  # noqa: PLW1509 -- see above
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """As the demo does: asked first, killed when late."""
        if self.process is not None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
            self.kill()


@dataclass
class Web(Child):
    url: str = ""

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                with urlopen(f"{self.url}/healthz", timeout=5):
                    return
            except (URLError, OSError):
                if not self.running or time.monotonic() > deadline:
                    raise AssertionError(f"The web process does not answer:\n{embedded.tail(self.log)}") from None
                time.sleep(0.1)

    def workers(self) -> list[int]:
        """The processes that take requests."""
        assert self.process is not None
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def addresses() -> dict[str, str]:
    """The database that this process uses, for both of its roles, in the words of the environment."""
    database = settings.DATABASES["default"]["NAME"]
    urls = {"DATABASE_URL": settings.DATABASE_URL, "DATABASE_OWNER_URL": settings.DATABASE_OWNER_URL}
    return {name: make_conninfo(url, dbname=database) for name, url in urls.items()}


def web(name: str = "web", **settings: str) -> Web:
    """Ready to start, on a port of its own that it keeps."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    arguments = [*demo.WEB.split(), "--host", "127.0.0.1", "--port", str(port), "config.wsgi:application"]
    return Web(name, arguments, {"BASE_URL": url, **settings}, url=url)


def worker(name: str = "worker", **settings: str) -> Child:
    return Child(name, demo.WORKER.split(), settings)


def beat(name: str = "beat", **settings: str) -> Child:
    return Child(name, demo.BEAT.split(), settings)


@contextmanager
def running(*children: Child) -> Iterator[None]:
    """Started, answering, and stopped at the end."""
    try:
        for child in children:
            child.start()
        for child in children:
            if isinstance(child, Web):
                child.wait()
        yield
    finally:
        for child in reversed(children):
            child.stop()


# --- what still runs ----------------------------------------------------------------------------------------------


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
