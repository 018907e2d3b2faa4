"""What waits on disk: it outlives the client, goes out in order, and is nobody else's while its process lives."""

import signal
import time
from pathlib import Path

import pytest

from tests.clients import fake
from tests.clients.conftest import record
from tests.clients.programs import end, program

LONG = 20.0
NOWHERE = "http://127.0.0.1:9"


def files(spool: Path) -> list[Path]:
    return sorted(spool.glob("*/*.jsonl"), key=lambda file: file.name)


def lines(spool: Path) -> list[bytes]:
    return [line for file in files(spool) for line in file.read_bytes().splitlines()]


def wait_for_lines(spool: Path, count: int) -> None:
    deadline = time.monotonic() + LONG
    while len(lines(spool)) < count:
        assert time.monotonic() < deadline, lines(spool)
        time.sleep(0.01)


def test_an_answered_event_leaves_nothing_on_disk(server, connect, tmp_path):
    client = connect(spool=tmp_path / "spool")
    record(client, "a", "b")

    assert client.flush(LONG)
    assert files(tmp_path / "spool") == []
    client.close()
    assert list((tmp_path / "spool").iterdir()) == []


def test_events_that_wait_are_private_files_of_few_requests(connect, tmp_path):
    client = connect(NOWHERE, spool=tmp_path, max_age=0.01, max_events=10)
    for number in range(25):
        record(client, str(number))
        wait_for_lines(tmp_path, number + 1)

    assert 3 <= len(files(tmp_path)) <= 4  # the first was being sent while the second grew
    assert {file.stat().st_mode & 0o777 for file in files(tmp_path)} == {0o600}


def test_they_are_sent_in_order_with_the_same_ids_when_the_server_is_back(server, connect, tmp_path):
    server.always = fake.unavailable
    client = connect(spool=tmp_path, max_events=2)
    record(client, *"abcdefgh")
    wait_for_lines(tmp_path, 8)
    server.always = None

    assert client.flush(LONG)
    answered = [ids for ids in server.sent if ids != ["a", "b"]]
    assert answered == [["c", "d"], ["e", "f"], ["g", "h"]]
    assert list(server.stored) == [*"abcdefgh"]
    assert files(tmp_path) == []


def test_a_new_client_takes_over_what_a_closed_one_left_and_sends_it_first(server, connect, tmp_path):
    server.always = fake.busy_for_a_second
    first = connect(spool=tmp_path, max_events=2)
    record(first, *"abc")
    assert not first.close()
    server.always = None

    second = connect(spool=tmp_path, max_events=2)
    record(second, "d")

    assert second.flush(LONG)
    assert list(server.stored) == [*"abcd"]
    second.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_is_sent_without_a_new_event(server, connect, tmp_path):
    server.always = fake.busy_for_a_second
    record(first := connect(spool=tmp_path), "a")
    first.close()
    server.always = None

    connect(spool=tmp_path)

    deadline = time.monotonic() + LONG
    while not server.stored:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_lives_keeps_its_files(server, connect, tmp_path):
    record(away := connect(NOWHERE, spool=tmp_path), "a")
    wait_for_lines(tmp_path, 1)
    record(other := connect(spool=tmp_path), "b")

    assert other.flush(LONG)
    assert other.close()
    assert list(server.stored) == ["b"]
    assert len(lines(tmp_path)) == 1
    assert away.stats().pending == 1


def test_a_full_spool_overflows_into_memory_and_nothing_is_lost(server, connect, tmp_path):
    server.always = fake.unavailable
    client = connect(spool=tmp_path, spool_bytes=1_000, max_events=5)
    record(client, *map(str, range(50)))
    while client._queue:
        time.sleep(0.01)
    server.always = None

    assert client.flush(LONG)
    assert list(server.stored) == [*map(str, range(50))]
    assert client.stats().accepted == 50


def test_a_spool_that_cannot_be_written_is_said_and_events_go_out_from_memory(server, connect, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    client = connect(spool=tmp_path / "file")
    record(client, "a", "b")

    assert client.flush(LONG)
    assert list(server.stored) == ["a", "b"]
    assert "cannot be written" in caplog.text


def test_a_line_that_was_cut_off_is_left_out_and_the_rest_is_sent(server, connect, tmp_path):
    server.always = fake.busy_for_a_second
    record(first := connect(spool=tmp_path), "a", "b")
    first.close()
    [file] = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    server.always = None

    connect(spool=tmp_path)

    deadline = time.monotonic() + LONG
    while files(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert list(server.stored) == ["a"]


# --- processes that end, are killed, or fork ----------------------------------------------------------------------


@pytest.mark.parametrize("spooled", [True, False])
def test_a_program_that_ends_sends_what_it_recorded_last(server, tmp_path, spooled):
    end(program("record(*map(str, range(1200)))", server.url, tmp_path if spooled else ""))

    assert list(server.stored) == [*map(str, range(1200))]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "import atexit; atexit.register(record, 'late')"])
def test_it_does_so_however_it_ends(server, tmp_path, ending):
    end(program(f"record('a')\n{ending}", server.url, tmp_path))

    assert "a" in server.stored


def test_a_first_event_at_the_very_end_is_sent(server, tmp_path):
    end(program("import atexit; atexit.register(record, 'late')", server.url, tmp_path))

    assert list(server.stored) == ["late"]


def test_a_server_that_hangs_does_not_keep_a_program_from_ending(server, tmp_path):
    server.always = fake.hang
    log = end(program("record('a', 'b')", server.url, tmp_path))

    assert "2 wait on disk, 0 are lost" in log
    assert len(lines(tmp_path)) == 2


def test_a_killed_program_loses_only_what_was_not_on_disk_yet(server, connect, tmp_path):
    """All but what is younger than max_age, plus the time that writing takes: here, what the test waited for."""
    script = "record(*map(str, range(1000))); print('recorded', flush=True); time.sleep(60)"
    victim = program(script, NOWHERE, tmp_path)
    assert victim.stdout is not None
    victim.stdout.readline()
    wait_for_lines(tmp_path, 1000)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()

    client = connect(spool=tmp_path)
    record(client, "after")

    assert client.flush(LONG)
    assert list(server.stored) == [*map(str, range(1000)), "after"]


def test_a_program_killed_while_it_sends_doubles_nothing(server, connect, tmp_path):
    """Killed again and again with requests in flight, each id is stored once and nothing that was on disk is lost."""
    on_disk: set[str] = set()
    for round_ in range(4):
        script = f"for n in range(10**6): record('{round_}-%d' % n); time.sleep(0.0005)"
        victim = program(script, server.url, tmp_path)
        before = len(server.requests)
        while len(server.requests) < before + 3:
            time.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        on_disk |= {line.split(b'"')[3].decode() for line in lines(tmp_path) if line.endswith(b"}")}

    client = connect(spool=tmp_path)
    record(client, "after")
    assert client.flush(LONG)
    assert on_disk <= set(server.stored)
    for round_ in range(4):  # without a gap: only the end of each round may be missing
        numbers = [int(event_id.split("-")[1]) for event_id in server.stored if event_id.startswith(f"{round_}-")]
        assert sorted(numbers) == [*range(len(numbers))]


def test_each_side_of_a_fork_sends_its_own(server, tmp_path):
    script = """
record("before")
for child in range(3):
    if os.fork() == 0:
        record(f"child-{child}")
        sys.exit()
record("parent")
for _ in range(3):
    os.wait()
"""
    end(program(script, server.url, tmp_path))

    sent = [event_id for ids in server.sent for event_id in ids]
    assert sorted(sent) == ["before", "child-0", "child-1", "child-2", "parent"]
    assert list(tmp_path.iterdir()) == []


def test_a_fork_leaves_the_parents_files_to_the_parent(server, tmp_path):
    script = """
record("parent")
while not any(os.scandir(spool)): time.sleep(0.01)
if os.fork() == 0:
    record("child")
    sys.exit()
os.wait()
"""
    end(program(script, NOWHERE, tmp_path))

    events = [(file.parent.name.split("-")[1], file.read_text().count("\n")) for file in files(tmp_path)]
    assert len({process for process, _ in events}) == 2
    assert [count for _, count in events] == [1, 1]
