"""Reads that see one state of the database, and reads that several questions share while it cannot change."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from django.db import connection, transaction

_shared: Final[ContextVar[dict[Hashable, Any] | None]] = ContextVar("shared_reads", default=None)


@contextmanager
def snapshot() -> Iterator[None]:
    """Everything read inside sees one state of the database, that of the first query, and is `shared`."""
    with shared():
        if connection.in_atomic_block:  # the caller has chosen
            yield
            return
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield


@contextmanager
def shared() -> Iterator[None]:
    """Inside, `once` reads each thing one time. For a snapshot of the database, and for what is done inside the claims
    of customers after the last write of what is read. Inside another one it joins that."""
    if _shared.get() is not None:
        yield
        return
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def once[T](key: Hashable, read: Callable[[], T]) -> T:
    """The answer of `read`, or what it answered before under this key. Whoever asks must not change it."""
    known = _shared.get()
    if known is None:
        return read()
    if key not in known:
        known[key] = read()
    answer: T = known[key]
    return answer


def recall(key: Hashable) -> Any:
    """What is remembered under this key, else None."""
    known = _shared.get()
    return None if known is None else known.get(key)


def remember(answers: Iterable[tuple[Hashable, Any]]) -> None:
    """Answers, by key, that were read together ahead of the questions. Only inside `shared`."""
    known = _shared.get()
    assert known is not None
    known.update(answers)
