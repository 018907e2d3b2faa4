"""The embedded servers start once, die with their starter, keep their data, and open nothing to others."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict

from config import embedded
from tests.processes import processes_of, wait_until_gone

pytestmark = pytest.mark.servers

NOBODY = 65534
# A namespace with all of root's numbers, in which no further one may be made, as in most containers.
REFUSE_NAMESPACES = """
import os

unshared, mapped, me = os.pipe(), os.pipe(), os.getpid()
if os.fork() == 0:
    os.read(unshared[0], 1)
    for kind in ("uid", "gid"):
        with open(f"/proc/{me}/{kind}_map", "w") as numbers:
            numbers.write("0 0 65536")
    os.write(mapped[1], b".")
    os._exit(0)
os.unshare(os.CLONE_NEWUSER)
os.write(unshared[1], b".")
os.read(mapped[0], 1)
with open("/proc/sys/user/max_user_namespaces", "w") as limit:
    limit.write("0")
"""
STARTER = """
import os
import sys
from pathlib import Path
import redis
from config import embedded

user, var = int(sys.argv[1]), Path(sys.argv[2])
if user != os.geteuid():
    redis.Redis(unix_socket_path="/nowhere").close()  # imports the rest while this user may still read it
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
try:
    with embedded.running(var) as started:
        print(*[f"{server.name}={server.process.pid}" for server in started], flush=True)
        sys.stdin.read()
except embedded.EmbeddedError as error:
    print("refused:", error, flush=True)
"""


class Starter:
    """A process that keeps the servers of VAR running until it is told to end."""

    def __init__(self, var: Path, user: int, preparation: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", preparation + STARTER, str(user), str(var)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> str:
        return self.process.stdout.readline().strip()

    def started(self) -> dict[str, int]:
        """The servers that it started, with their process numbers, once they answer."""
        answer = self.answer()
        assert not answer.startswith("refused"), answer
        return {name: int(pid) for name, _, pid in (word.partition("=") for word in answer.split())}

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def user() -> int:
    return os.geteuid()


@pytest.fixture
def var(user) -> Iterator[Path]:
    """A data folder two levels inside a folder that only this user may enter."""
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        private = Path(folder).resolve() / "private"
        private.mkdir(mode=0o700)
        for path in (folder, private):
            os.chown(path, user, -1)
        yield private / "var"


@pytest.fixture
def start(var, user) -> Iterator[Callable[[], Starter]]:
    starters: list[Starter] = []

    def start() -> Starter:
        starters.append(Starter(var, user))
        return starters[-1]

    yield start
    for starter in starters:
        starter.end()
    wait_until_gone(var)


def why_not_as_another_user() -> str:
    if os.geteuid() != 0:
        return "this user is an ordinary one: tested already"
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(sys.prefix).parents):
        return f"only root can reach the servers' programs in {sys.prefix}"
    return ""


as_every_user = pytest.mark.parametrize(
    "user",
    [
        pytest.param(os.geteuid(), id="this-user"),
        pytest.param(
            NOBODY,
            id="ordinary-user",
            marks=pytest.mark.skipif(bool(why_not_as_another_user()), reason=why_not_as_another_user()),
        ),
    ],
)


def owner_connection(var: Path) -> psycopg.Connection:
    return psycopg.connect(embedded.database_url(var, "headroom_owner"))


@as_every_user
def test_both_servers_answer_and_end_with_their_starter(start, var):
    starter = start()
    assert starter.started().keys() == {"postgres", "valkey"}
    assert processes_of(var)

    starter.end()

    wait_until_gone(var)
    assert list((var / "run").iterdir()) == []


@as_every_user
def test_a_killed_starter_leaves_no_process_and_the_data_survive(start, var):
    first = start()
    first.started()
    with owner_connection(var) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    with redis.Redis.from_url(embedded.redis_url(var)) as client:
        client.set("kept", "7")

    first.process.kill()
    wait_until_gone(var)

    assert start().started().keys() == {"postgres", "valkey"}
    with owner_connection(var) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
    with redis.Redis.from_url(embedded.redis_url(var)) as client:
        assert client.get("kept") == b"7"


@as_every_user
def test_no_folder_is_opened_to_others(start, var):
    on_the_way = [*var.parents]
    before = [folder.stat().st_mode for folder in on_the_way]

    start().started()

    assert [folder.stat().st_mode for folder in on_the_way] == before
    for folder in (var / "postgres", var / "valkey", var / "run"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs user namespaces")
def test_root_needs_no_namespace_where_containers_refuse_it(var):
    starter = Starter(var, 0, REFUSE_NAMESPACES)

    assert starter.started().keys() == {"postgres", "valkey"}
    assert (var / "postgres").stat().st_uid == NOBODY
    assert stat.S_IMODE(var.parent.stat().st_mode) == 0o700
    starter.process.kill()
    starter.end()
    wait_until_gone(var)


def test_a_second_process_uses_the_servers_of_the_first(start, var):
    start().started()

    second = start()

    assert second.started() == {}
    second.end()
    with owner_connection(var) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_of_two_processes_that_start_at_once_one_starts_each_server(start):
    both = [start(), start()]

    names = [name for starter in both for name in starter.started()]

    assert sorted(names) == ["postgres", "valkey"]


def test_a_killed_server_starts_again_though_nobody_reaped_it(start, var):
    """Its number is still in use, by a zombie: its first starter waits for something else."""
    killed = start().started()
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    assert start().started().keys() == {"postgres", "valkey"}
    with owner_connection(var) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_lock_files_that_name_a_strangers_process_are_no_obstacle(start, var):
    """After a reboot the number in the file may be anybody's."""
    first = start()
    first.started()
    lock = (var / "postgres" / "postmaster.pid").read_text().split("\n", 1)[1]
    first.end()
    wait_until_gone(var)
    (var / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{lock}")
    (var / "run" / ".s.PGSQL.5432.lock").write_text(f"{os.getpid()}\n{lock}")

    assert "postgres" in start().started()


def test_an_interrupted_first_start_is_begun_anew(start, var):
    (var / "postgres.new").mkdir(parents=True)
    (var / "postgres.new" / "PG_VERSION").write_text("18\n")

    assert "postgres" in start().started()
    assert not (var / "postgres.new").exists()


def test_a_socket_folder_that_others_may_enter_is_refused(start, var):
    (var / "run").mkdir(parents=True)
    (var / "run").chmod(0o755)

    assert "mode 0700" in start().answer()


def test_a_long_path_gets_a_short_socket_folder(tmp_path):
    var = tmp_path / ("x" * 50) / ("y" * 50)

    assert len(str(embedded.socket_folder(var))) < 50
    assert embedded.socket_folder(var) == embedded.socket_folder(var)
    assert embedded.socket_folder(var) != embedded.socket_folder(var / "z")


def test_the_application_is_a_member_of_nothing_and_owns_nothing(start, var):
    start().started()
    with psycopg.connect(embedded.database_url(var)) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == ("headroom_app", "headroom")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine ()")


def test_addresses_are_what_their_readers_understand(tmp_path):
    folder = str(tmp_path / "a folder" / "run")

    address = conninfo_to_dict(embedded.database_url(tmp_path / "a folder"))

    assert address == {"user": "headroom_app", "dbname": "headroom", "host": folder, "port": "5432"}
    pool = redis.Redis.from_url(embedded.redis_url(tmp_path / "a folder")).connection_pool
    assert pool.connection_kwargs["path"] == f"{folder}/valkey.sock"


def test_only_servers_without_an_address_are_wanted():
    assert embedded.wanted({}) == ["postgres", "valkey"]
    assert embedded.wanted({"DATABASE_URL": "postgresql://db/x"}) == ["valkey"]
    assert embedded.wanted({"DATABASE_URL": "postgresql://db/x", "REDIS_URL": "redis://cache"}) == []
