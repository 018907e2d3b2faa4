"""The demo as a person runs it: it answers, keeps its data, says what is wrong, and leaves nothing behind."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from config.demo import ROOT
from tests.processes import processes_of, wait_until_gone

pytestmark = pytest.mark.servers

DECIDED_BY_TESTS = {"DEBUG", "DATABASE_POOL_SIZE", "DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "MAKELEVEL"}


class Run:
    """One `python -m config.demo`."""

    def __init__(self, var: Path, **settings: str) -> None:
        self.var = var
        inherited = {name: value for name, value in os.environ.items() if name not in DECIDED_BY_TESTS}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "config.demo"],
            cwd=ROOT,
            env=inherited | {"VAR": str(var), "PORT": "0", "TRAFFIC": "0"} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ready(self, seconds: float = 120) -> dict:
        """Wait for demo.json, as a script would; its content."""
        deadline = time.monotonic() + seconds
        while not (self.var / "demo.json").exists():
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return json.loads((self.var / "demo.json").read_text())

    def end(self, message: signal.Signals = signal.SIGINT) -> str:
        """What it printed until it ended."""
        self.process.send_signal(message)
        return self.process.communicate(timeout=60)[0]


@pytest.fixture(scope="module")
def var() -> Iterator[Path]:
    """One data folder for this file: all starts but the first are warm."""
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        yield Path(folder).resolve()


@pytest.fixture
def start(var) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(**settings: str) -> Run:
        runs.append(Run(var, **settings))
        return runs[-1]

    yield start
    for run in runs:
        run.process.terminate()
        run.process.communicate(timeout=60)
    wait_until_gone(var)


def status(url: str, key: str | None = None) -> int:
    return httpx.get(
        url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60, trust_env=False
    ).status_code


def test_it_answers_shows_its_steps_and_ends_without_a_trace(start, var):
    run = start()
    told = run.ready()

    assert status(f"{told['url']}/healthz") == 200
    assert status(f"{told['url']}/api/v1/customers/acme", told["operator_api_key"]) == 200
    assert {who["role"] for who in told["sign_ins"]} == {"owner", "viewer", "operator"}
    assert stat.S_IMODE((var / "demo.json").stat().st_mode) == 0o600

    printed = run.end()

    assert run.process.returncode == 0
    for step in ("servers", "migrate", "seed", "web, worker, beat"):
        assert f"  {step} " in printed
    assert all(who["email"] in printed and who["password"] in printed for who in told["sign_ins"])
    assert told["url"] in printed
    assert processes_of(var) == {}
    assert not (var / "demo.json").exists()
    assert not (var / "postgres" / "postmaster.pid").exists()


def test_a_second_start_keeps_keys_and_sign_ins(start):
    first = start()
    before = first.ready()
    first.end(signal.SIGTERM)
    after = start().ready()

    assert {**after, "url": ""} == {**before, "url": ""}


def test_a_killed_supervisor_leaves_no_process_and_no_lock(start, var):
    run = start(TRAFFIC="1")
    run.ready()

    run.end(signal.SIGKILL)

    wait_until_gone(var)
    (var / "demo.json").unlink()  # nobody was left to remove it
    start().ready()


def test_a_busy_port_is_replaced_and_said(start):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        run = start(PORT=str(port))
        told = run.ready()

    assert told["url"] != f"http://127.0.0.1:{port}"
    assert f"Port {port} is busy" in run.end()


def test_one_folder_has_one_demo(start):
    url = start().ready()["url"]
    (second := start()).process.wait(timeout=60)

    assert second.process.returncode == 1
    assert f"already runs at {url}" in second.process.stdout.read()


def test_a_worker_that_ends_is_named_and_ends_the_demo(start, var):
    run = start()
    run.ready()
    worker = next(pid for pid, command in processes_of(var).items() if "celery" in command)

    os.kill(worker, signal.SIGKILL)
    printed = run.process.communicate(timeout=60)[0]

    assert run.process.returncode == 1
    assert "worker ended with code -9" in printed
    assert processes_of(var) == {}


def test_starting_over_forgets_the_data_and_nothing_else(start, var):
    (var / "mine.txt").write_text("kept")
    before = start()
    key = before.ready()["operator_api_key"]
    before.end()

    assert start(RESET="1").ready()["operator_api_key"] != key
    assert (var / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"PORT": "eighty"}, "PORT=eighty is no port"),
        ({"HOST": "192.0.2.1"}, "Cannot listen on 192.0.2.1"),
        (
            {"RESET": "1", "DATABASE_URL": "postgresql://db.test/headroom"},
            "empty the database of DATABASE_URL yourself",
        ),
    ],
)
def test_a_wrong_setting_gets_a_sentence(start, settings, sentence):
    run = start(**settings)

    assert sentence in run.process.communicate(timeout=60)[0]
    assert run.process.returncode == 1
