"""What waits for the server, in the order it was recorded: in files, or in memory where there is no disk.

A segment is at most one request. Events are appended to the newest segment as lines of JSON; once it is sent it is
closed, and when the server has answered for it, it is deleted. So a program that is killed leaves files that hold
exactly what is not known to be stored, and the ids in them make sending one twice harmless.

    FOLDER/1763978400-4711-9f2c.lock              held (flock) while the process that made it lives
    FOLDER/1763978400-4711-9f2c/000...0042.jsonl  its segments

Whoever finds a lock that nobody holds takes over the segments beside it.
"""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("headroom_client")

SUFFIX: Final = ".jsonl"
NO_FILE: Final = -1


@dataclass
class Segment:
    """Events that are sent together. `path` on disk, else `lines`; `name` is its place in the order."""

    name: str
    path: Path | None
    lines: list[bytes]
    count: int = 0
    size_bytes: int = 0
    ours: bool = True  # recorded by this process, not taken over


class Backlog:
    """A queue of segments. One thread appends, another sends; any may close.

    The lock is held while the disk is waited for. `memory_bytes` and `taken_over` (segments) are read without it.
    """

    def __init__(self, folder: Path | None, *, max_events: int, max_bytes: int, spool_bytes: int, fsync: bool) -> None:
        self._folder = folder
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._spool_bytes = spool_bytes
        self._fsync = fsync
        self._lock = threading.Lock()
        self._segments: deque[Segment] = deque()
        self._open: Segment | None = None
        self._file = NO_FILE
        self._home: _Home | None = None
        self._last_name = 0
        self._disk_works = True
        self.memory_bytes = 0
        self.disk_bytes = 0
        self.taken_over = 0

    def __bool__(self) -> bool:
        return bool(self._segments)

    def append(self, lines: Sequence[bytes]) -> None:
        """Keep events that fit one request: on disk if there is room, in memory else."""
        size = sum(map(len, lines)) + len(lines)
        with self._lock:
            if not self._append_to_disk(lines, size):
                self._append_to_memory(lines, size)

    def first(self) -> Segment | None:
        """The oldest segment; nothing is appended to it any more."""
        with self._lock:
            if self._segments and self._segments[0] is self._open:
                self._close_file()
            return self._segments[0] if self._segments else None

    def read(self, segment: Segment) -> list[bytes]:
        """Its events. What follows the last line end was being written when its writer ended. Raises OSError."""
        if segment.path is None:
            return segment.lines
        *lines, _ = segment.path.read_bytes().split(b"\n")
        return [line for line in lines if line.strip(b"\0 ")]

    def remove(self, segment: Segment) -> None:
        """It is delivered, or beyond reading."""
        with self._lock:
            self._segments.remove(segment)
            self.taken_over -= not segment.ours
            if segment.path is None:
                self.memory_bytes -= segment.size_bytes
            else:
                self.disk_bytes -= segment.size_bytes
                with suppress(OSError):
                    segment.path.unlink()

    def take_over(self) -> None:
        """Move what ended processes left into our folder, older first, as far as there is room."""
        if self._folder is None or sys.platform == "win32":
            return
        with self._lock, suppress(OSError):
            for lock in sorted(self._folder.glob("*.lock")):
                self._take_over_from(lock)

    def events_in_memory(self) -> int:
        with self._lock:
            return sum(segment.count for segment in self._segments if segment.path is None)

    def close(self) -> None:
        """Let go of the folder: what is left in it may be taken over."""
        with self._lock:
            self._close_file()
            if self._home is not None:
                self._home.leave()
                self._home = None

    def forget(self) -> None:
        """After a fork: all of this is the parent's. Its files stay open there, its lock stays held."""
        self._close_file()
        if self._home is not None:
            self._home.forget()

    def _append_to_disk(self, lines: Sequence[bytes], size: int) -> bool:
        if self._folder is None:
            return False
        try:
            if self.disk_bytes + size > self._spool_bytes:
                raise OSError(f"the spool is full: {self.disk_bytes:,} of {self._spool_bytes:,} bytes")
            self._write(lines, size)
        except OSError as error:
            self._give_up_file()
            if self._disk_works:
                logger.error("Headroom's spool %s cannot be written; events wait in memory: %s", self._folder, error)
            self._disk_works = False
        else:
            self._disk_works = True
        return self._disk_works

    def _append_to_memory(self, lines: Sequence[bytes], size: int) -> None:
        segment = self._open
        if segment is None or segment.path or not self._fits(segment, lines, size):
            self._close_file()
            segment = self._open = Segment(self._next_name(), None, [])
            self._segments.append(segment)
        segment.lines.extend(lines)
        segment.count += len(lines)
        segment.size_bytes += size
        self.memory_bytes += size

    def _write(self, lines: Sequence[bytes], size: int) -> None:
        segment = self._open
        if segment is None or not segment.path or not self._fits(segment, lines, size):
            segment = self._open_file()
        rest = memoryview(b"".join(line + b"\n" for line in lines))
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if self._fsync:
                os.fsync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, segment.size_bytes)
            raise
        segment.count += len(lines)
        segment.size_bytes += size
        self.disk_bytes += size

    def _fits(self, segment: Segment, lines: Sequence[bytes], size: int) -> bool:
        return segment.count + len(lines) <= self._max_events and segment.size_bytes + size <= self._max_bytes

    def _open_file(self) -> Segment:
        self._close_file()
        if self._home is None:
            assert self._folder is not None
            self._home = _Home(self._folder)
        name = self._next_name()
        path = self._home.folder / f"{name}{SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        if self._fsync:
            _fsync_folder(self._home.folder)
        segment = self._open = Segment(name, path, [])
        self._segments.append(segment)
        return segment

    def _close_file(self) -> None:
        self._open = None
        file, self._file = self._file, NO_FILE
        if file != NO_FILE:
            with suppress(OSError):
                os.close(file)

    def _give_up_file(self) -> None:
        """After a failure; what it holds already stays."""
        segment = self._open
        self._close_file()
        if segment is not None and segment.path and not segment.count:
            self._segments.remove(segment)
            with suppress(OSError):
                segment.path.unlink()

    def _next_name(self) -> str:
        """Names sort by the time they were made, in one process strictly."""
        self._last_name = max(self._last_name + 1, time.time_ns())
        return f"{self._last_name:020d}-{os.getpid()}"

    def _take_over_from(self, lock: Path) -> None:
        held = _lock_file(lock, create=False)
        if held == NO_FILE:
            return
        try:
            left = lock.with_suffix("")
            found = sorted(left.glob(f"*{SUFFIX}")) if left.is_dir() else []
            if found and self._home is None:
                assert self._folder is not None
                self._home = _Home(self._folder)
            if self._move_home(found):
                with suppress(FileNotFoundError):
                    left.rmdir()
                lock.unlink()
        finally:
            os.close(held)

    def _move_home(self, files: Iterable[Path]) -> bool:
        """Whether all of them had room."""
        taken: list[Segment] = []
        try:
            for file in files:
                size = file.stat().st_size
                if self._home is None or self.disk_bytes + size > self._spool_bytes:
                    return False
                path = file.rename(self._home.folder / file.name)
                taken.append(Segment(file.stem, path, [], size_bytes=size, ours=False))
                self.disk_bytes += size
        finally:
            if taken:
                logger.info("Headroom: taking over %d files of events that an ended process left", len(taken))
                self.taken_over += len(taken)
                self._segments = deque(sorted([*taken, *self._segments], key=lambda segment: segment.name))
        return True


def holds_segments(folder: Path) -> bool:
    """Whether processes use the folder or have left something in it."""
    return any(folder.glob("*.lock"))


class _Home:
    """The folder of one process, and the lock that says that the process lives."""

    def __init__(self, spool: Path) -> None:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            name = f"{int(time.time())}-{os.getpid()}-{token_hex(4)}"
            self._path = spool / f"{name}.lock"
            self._lock = _lock_file(self._path, create=True)
            if self._lock != NO_FILE:  # else somebody took it for a dead one's between open and flock
                break
        self.folder = spool / name
        self.folder.mkdir(mode=0o700)

    def leave(self) -> None:
        """Tidy up if nothing is left."""
        with suppress(OSError):
            self.folder.rmdir()
            self._path.unlink()
        self.forget()

    def forget(self) -> None:
        lock, self._lock = self._lock, NO_FILE
        if lock != NO_FILE:
            with suppress(OSError):
                os.close(lock)  # never LOCK_UN: that would unlock it for the parent of a fork too


def _lock_file(path: Path, *, create: bool) -> int:
    """An open file that is locked and still has its name, else NO_FILE."""
    try:
        file = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
    except FileNotFoundError:
        return NO_FILE
    if sys.platform == "win32":
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            return NO_FILE
        raise
    os.close(file)
    return NO_FILE


def _fsync_folder(folder: Path) -> None:
    if sys.platform != "win32":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
