"""The demo in one command: servers, migrations, seed, web, worker, beat and traffic; and their supervisor.

`python -m config.demo`, told by the environment: PORT, HOST, VAR, TRAFFIC=0, RESET=1; DATABASE_URL (with
DATABASE_OWNER_URL) and REDIS_URL for servers of your own. `$VAR/demo.json` exists while the address answers.

Nothing is left behind, however it ends. Children are stopped by group, then whatever they started (the kernel
hands orphans to this process); if this process itself is killed, the kernel tells each child.
"""

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config import embedded

ROOT: Final = Path(__file__).resolve().parent.parent
# Granian waits for ever for a worker that was told to stop while it started, hence the timeout.
WEB: Final = "-m granian --interface wsgi --workers 2 --blocking-threads 24 --no-ws --respawn-failed-workers " + (
    "--workers-kill-timeout 5"
)
WORKER: Final = "-m celery -A config worker -P threads -c 4 -l WARNING " + (
    "--without-gossip --without-mingle --without-heartbeat"
)
# Not inside the worker (-B): there it outlives a worker that is told to stop while it starts.
BEAT: Final = "-m celery -A config beat -l WARNING --pidfile="
OURS: Final = ("postgres", "postgres.new", "valkey", "run", "mail", "traffic", "seed.json", "secret_key", "demo.json")
STOP_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 120.0
TRAFFIC_PAUSE_SECONDS: Final = 2.0
PORTS_TO_TRY: Final = 100
LAST_PORT: Final = 65535
PR_SET_CHILD_SUBREAPER: Final = 36


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and what to do."""


@dataclass
class Demo:
    """One run: where it keeps its data, where it answers, and what it started."""

    var: Path
    host: str
    port: int
    servers: list[embedded.Server] = field(default_factory=list)
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 -- shown, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What the children read. The caller's settings win, except those that this run decides."""
        defaults = {
            "DEBUG": "0",
            "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
            "MAIL_URL": f"file://{self.var / 'mail'}",
        }
        if not os.environ.get("SECRET_KEY"):
            defaults["SECRET_KEY_FILE"] = str(self.var / "secret_key")
        decided = {"BASE_URL": self.url, "VAR": str(self.var), "PYTHONUNBUFFERED": "1"}
        return defaults | dict(os.environ) | decided

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `python ARGUMENTS` in a group of its own, writing to `$VAR/log/NAME.log`."""
        with self.log(name).open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=embedded.die_with_parent(signal.SIGTERM),  # noqa: PLW1509 -- the only thread
            )
        self.children[name] = child
        return child

    def log(self, name: str) -> Path:
        return self.var / "log" / f"{name}.log"

    def ended(self, name: str, code: int | None) -> DemoError:
        log = self.log(name)
        return DemoError(f"{name} ended with code {code}. The end of {log}:\n{embedded.tail(log)}")


def main() -> int:
    """Run until Ctrl-C, SIGTERM or a failure. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script may have started us with it ignored
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    _be_a_good_parent()
    os.umask(0o077)  # logs, mail and sign-ins are ours alone
    try:
        _run(embedded.data_folder(os.environ))
    except KeyboardInterrupt:
        return 0
    except (DemoError, embedded.EmbeddedError) as error:
        _say(f"\n{error}")
        return 1
    except PermissionError as error:
        _say(f"\n{error}: run as the owner of the data folder, or choose another one with VAR=.")
        return 1
    return 0


# The steps


def _run(var: Path) -> None:
    with _alone(var), ExitStack() as ending:
        if os.environ.get("RESET") == "1":
            _reset(var)
        (var / "demo.json").unlink(missing_ok=True)
        _create_secret_key(var)
        (var / "static").mkdir(exist_ok=True)  # nothing is collected; the web process warns when it is missing
        host = os.environ.get("HOST") or "127.0.0.1"
        demo = Demo(var, host, _free_port(host, os.environ.get("PORT") or "8000"))
        _say(f"Headroom: data in {var}, logs in {var / 'log'}")
        with _step("servers"):
            demo.servers = ending.enter_context(embedded.running(var, embedded.wanted(os.environ)))
        ending.callback(_stop, demo)
        seed = var / "seed.json"
        _do(demo, "migrate", "manage.py", "migrate", "--no-input")
        _do(demo, "seed", "manage.py", "seed_demo", "--json", str(seed))
        _serve(demo)
        _write_private(var / "demo.json", json.dumps({"url": demo.url, **_read(seed)}, indent=2))
        if os.environ.get("TRAFFIC") != "0":
            _start_traffic(demo)
        _say(_welcome(demo, _read(seed)))
        _watch(demo)


def _do(demo: Demo, name: str, *arguments: str) -> None:
    """Run one command to its end."""
    with _step(name):
        child = demo.start(name, *arguments)
        while child.poll() is None:
            _pause(demo)
        if child.returncode != 0:
            raise demo.ended(name, child.returncode)
        del demo.children[name]


def _serve(demo: Demo) -> None:
    with _step("web, worker, beat"):
        web = ["--host", demo.host, "--port", str(demo.port), "config.wsgi:application"]
        demo.start("web", *WEB.split(), *web)
        demo.start("worker", *WORKER.split())
        demo.start("beat", *BEAT.split())
        deadline = time.monotonic() + ANSWER_SECONDS
        while not _answers(f"{demo.url}/healthz"):
            _pause(demo)
            if time.monotonic() > deadline:
                raise DemoError(f"{demo.url} does not answer. The end of the log:\n{embedded.tail(demo.log('web'))}")


def _start_traffic(demo: Demo) -> None:
    with _step("traffic"):
        demo.start("traffic", "manage.py", "demo_traffic")


def _watch(demo: Demo) -> None:
    """Until a signal comes. Traffic may fail and is started again; anything else that ends, ends the demo."""
    retry_at = 0.0
    while True:
        traffic = demo.children.get("traffic")
        if traffic is not None and traffic.poll() is not None:
            del demo.children["traffic"]
            _say(f"traffic ended with code {traffic.returncode} (see {demo.log('traffic')}); starting it again")
            retry_at = time.monotonic() + TRAFFIC_PAUSE_SECONDS
        if retry_at and time.monotonic() > retry_at:
            retry_at = 0.0
            demo.start("traffic", "manage.py", "demo_traffic")
        _pause(demo)


def _pause(demo: Demo) -> None:
    """Wait a moment; raise when something that must run has ended."""
    time.sleep(0.1)
    for server in demo.servers:
        if server.process.poll() is not None:
            raise demo.ended(server.name, server.process.returncode)
    for name in ("web", "worker", "beat"):
        child = demo.children.get(name)
        if child is not None and child.poll() is not None:
            raise demo.ended(name, child.returncode)


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), direct.open(url, timeout=5) as response:
        return bool(response.status == 200)  # noqa: PLR2004 -- OK
    return False


# Before the first step


def _free_port(host: str, port: str) -> int:
    """The wanted port, or the next one that nobody listens on."""
    if not port.isdecimal() or int(port) > LAST_PORT:
        raise DemoError(f"PORT={port} is no port: use a number up to {LAST_PORT}.")
    wanted = int(port)
    for candidate in range(wanted, min(wanted + PORTS_TO_TRY, LAST_PORT + 1)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that just ended do not count
            try:
                probe.bind((host, candidate))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise DemoError(f"Cannot listen on {host}:{candidate}: {error}. Choose HOST= and PORT=.") from error
            free = int(probe.getsockname()[1])
        if candidate != wanted:
            _say(f"Port {wanted} is busy: using {free}.")
        return free
    raise DemoError(f"Ports {wanted} and the next {PORTS_TO_TRY} are busy: choose another one with PORT=.")


@contextmanager
def _alone(var: Path) -> Iterator[None]:
    """One demo per data folder: beat must not run twice. The lock on the folder of logs ends with us."""
    try:
        (var / "log").mkdir(parents=True, exist_ok=True)
        descriptor = os.open(var / "log", os.O_RDONLY)
    except OSError as error:
        raise DemoError(f"Cannot use the data folder {var}: {error}. Choose another one with VAR=.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        where = _read(var / "demo.json").get("url", "an address that it will print")
        os.close(descriptor)
        raise DemoError(f"The demo of {var} already runs at {where}: stop it, or choose another VAR=.") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _reset(var: Path) -> None:
    """Remove what the demo created in VAR, by name: VAR may hold other things."""
    if "postgres" not in embedded.wanted(os.environ):
        raise DemoError("RESET=1 clears embedded servers only: empty the database of DATABASE_URL yourself.")
    if embedded.in_use(var):
        raise DemoError(f"RESET=1: the servers in {var} are in use. Stop what uses them and start again.")
    for path in [*(var / name for name in OURS), *var.glob("log/*.log")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _say(f"Started over: {var} is empty.")


def _create_secret_key(var: Path) -> None:
    if not (var / "secret_key").exists():
        _write_private(var / "secret_key", secrets.token_urlsafe(50))


def _write_private(path: Path, content: str) -> None:
    """Write a file that only we may read; a reader sees all of it or none."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    unfinished.replace(path)


def _read(path: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, ValueError):
        return dict(json.loads(path.read_text()))
    return {}


# The end


def _be_a_good_parent() -> None:
    """Inherit the orphans of our children; end when make does, even if it is killed."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if "MAKELEVEL" in os.environ:
            libc.prctl(embedded.PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _stop(demo: Demo) -> None:
    """End every child and what they left. The servers come after, when nobody needs them.

    A child is asked first and ends its own workers; whoever is late is killed with its whole group.
    """
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)
    (demo.var / "demo.json").unlink(missing_ok=True)
    _say("\nStopping.")
    for child in demo.children.values():
        child.terminate()
    if not _all_end(demo, signal.SIGTERM):
        for child in demo.children.values():
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        _all_end(demo, signal.SIGKILL)


def _all_end(demo: Demo, message: signal.Signals) -> bool:
    """Wait until our children have ended, those too that we adopted: they get the message."""
    deadline = time.monotonic() + STOP_SECONDS
    while remaining := _remaining(demo):
        for adopted in remaining - {child.pid for child in demo.children.values()}:
            with suppress(ProcessLookupError):
                os.kill(adopted, message)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _remaining(demo: Demo) -> set[int]:
    """Reap what has ended; the numbers of our child processes that still run, the servers' left out."""
    remaining = {child.pid for child in demo.children.values() if child.poll() is None}
    for pid in _children_of(os.getpid()) - {server.process.pid for server in demo.servers}:
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                remaining.add(pid)
    return remaining


def _children_of(parent: int) -> set[int]:
    children = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after_name = status.read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent:
                children.add(int(status.parent.name))
    return children


# What a person sees


@contextmanager
def _step(name: str) -> Iterator[None]:
    began = time.monotonic()
    _say(f"  {name:<20}", end="")
    yield
    _say(f"ready after {time.monotonic() - began:.1f} s")


def _welcome(demo: Demo, seed: dict[str, Any]) -> str:
    sign_ins = [f"    {who['role']:<10}{who['email']:<32}{who['password']}" for who in seed["sign_ins"]]
    models = [f"    {who['model']:<14}{who['email']:<28}{who['password']}" for who in seed.get("models", [])]
    return "\n".join(
        [
            f"\n  Headroom answers at {demo.url}  (operators: {demo.url}/admin/)\n",
            *sign_ins,
            *(["\n  One customer for each model of pricing:", *models] if models else []),
            f"\n  The operator's API key is in {demo.var / 'demo.json'}; mail goes to {demo.var / 'mail'}.",
            "  Ctrl-C stops everything; the data stays for the next start.\n",
        ]
    )


def _say(text: str, end: str = "\n") -> None:
    """Print; a terminal that went away must not keep us from cleaning up."""
    with suppress(OSError):
        print(text, end=end, flush=True)


if __name__ == "__main__":
    sys.exit(main())
