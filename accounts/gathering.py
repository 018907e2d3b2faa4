"""Do together what comes at the same time: one query, or one commit, for many requests of a process."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock
from time import monotonic
from typing import Final

from django.db import OperationalError

MOST_PATIENCE: Final = 0.01  # seconds


class _Call[Sent, Answer]:
    """One caller: what it sent, and what wakes it."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent
        self.answer: Answer | None = None
        self.is_answered = self.is_alone = False
        self.error: BaseException | None = None
        self.woken = Lock()
        self.woken.acquire()


class Gathered[Sent, Answer]:
    """`act` for one caller at a time; those who come meanwhile wait, and the first of them acts for all of them.

    `act` takes what they sent and answers each in order, or raises: then each of them is tried alone, so that one
    caller's fault is nobody else's. Only a database that is busy or away fails for all of them at once.

    Nobody waits for company, so a single caller pays nothing; but where callers are `patient`, who acts first waits for
    as many as came together of late, no longer than the last act took. Else callers who come back as soon as they
    are answered find that one has just begun alone, again and again.

    `weigh` and `most` bound what is done together. `act` runs in the thread of one of the callers: it must not depend
    on a transaction that the caller has begun.
    """

    def __init__(
        self,
        act: Callable[[Sequence[Sent]], Sequence[Answer]],
        *,
        weigh: Callable[[Sent], int] = lambda _: 1,
        most: int = 1_000,
        patient: bool = False,
    ) -> None:
        self._act, self._weigh, self._most, self._is_patient = act, weigh, most, patient
        self._lock = Lock()
        self._came = Condition(self._lock)
        self._company = 1  # how many came together of late
        self._patience = 0.0
        self._is_acting = False
        self._waiting: deque[_Call[Sent, Answer]] = deque()

    def __call__(self, sent: Sent) -> Answer:
        call = _Call[Sent, Answer](sent)
        with self._lock:
            self._waiting.append(call)
            leads, self._is_acting = not self._is_acting, True
            if len(self._waiting) == self._company:
                self._came.notify()
        if not leads:
            call.woken.acquire()  # by who answered it, or by who leaves the lead to it
        if not (call.is_answered or call.is_alone or call.error):
            self._lead()
        if call.is_alone:
            [answer] = self._act([sent])
            return answer
        if call.error:
            raise call.error
        assert call.is_answered
        return call.answer  # type: ignore[return-value] # it was answered

    def _lead(self) -> None:
        """Act for those who wait, of whom the caller is the first."""
        with self._lock:
            if self._is_patient:
                self._came.wait_for(lambda: len(self._waiting) >= self._company, self._patience)
            calls = self._taken()
            self._company = max(len(calls), self._company - 1)
        begun = monotonic()
        try:
            answers = self._act([call.sent for call in calls])
            for call, answer in zip(calls, answers, strict=True):
                call.answer, call.is_answered = answer, True
        except OperationalError as error:
            for call in calls:
                call.error = error
        except BaseException as error:
            calls[0].error = error
            for call in calls if len(calls) > 1 else ():  # whose fault it is shows when each is tried alone
                call.is_alone = True
        finally:
            self._patience = min(monotonic() - begun, MOST_PATIENCE)
            self._leave()
            for call in calls[1:]:
                call.woken.release()

    def _taken(self) -> list[_Call[Sent, Answer]]:
        calls = [self._waiting.popleft()]
        weight = self._weigh(calls[0].sent)
        while self._waiting and (weight := weight + self._weigh(self._waiting[0].sent)) <= self._most:
            calls.append(self._waiting.popleft())
        return calls

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.release()
            else:
                self._is_acting = False
