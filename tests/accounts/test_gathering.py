"""What comes at the same time is done together, and nobody pays for another one's fault."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from django.db import OperationalError

from accounts.gathering import Gathered


class Counted:
    """Answers twice what it was sent. The first call is held until `go` is set, so that the others gather."""

    def __init__(self, **errors):
        self.go, self.begun, self.calls, self.errors = Event(), Event(), [], errors

    def __call__(self, sent):
        self.calls.append(sorted(sent))
        self.begun.set()
        assert self.go.wait(10)
        for one in sent:
            if error := self.errors.get(f"on_{one}"):
                raise error
        return [2 * one for one in sent]


def outcomes(act, numbers, **options):
    """What each caller got, the first alone, the others while it runs."""
    gathered = Gathered(act, **options)
    with ThreadPoolExecutor(len(numbers)) as pool:
        first = pool.submit(gathered, numbers[0])
        assert act.begun.wait(10)
        others = [pool.submit(gathered, number) for number in numbers[1:]]
        while len(gathered._waiting) < len(others):
            pass
        act.go.set()
        return [future.exception() or future.result() for future in [first, *others]]


def test_who_comes_alone_is_answered_alone():
    act = Counted()
    act.go.set()
    gathered = Gathered(act)

    assert [gathered(1), gathered(2)] == [2, 4]
    assert act.calls == [[1], [2]]


def test_who_waits_is_answered_together():
    act = Counted()

    assert outcomes(act, [1, 2, 3, 4]) == [2, 4, 6, 8]
    assert act.calls == [[1], [2, 3, 4]]


def test_not_more_than_the_most_are_done_together():
    act = Counted()

    assert outcomes(act, [1, 2, 3, 4, 5], weigh=lambda _: 10, most=25) == [2, 4, 6, 8, 10]
    assert [len(call) for call in act.calls] == [1, 2, 2]


def test_the_patient_wait_for_as_many_as_came_together_of_late():
    act = Counted()
    act.go.set()
    gathered = Gathered(act, patient=True)
    gathered._company, gathered._patience = 3, 60

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(gathered, [1, 2, 3])) == [2, 4, 6]
    assert act.calls == [[1, 2, 3]]


def test_the_patient_expect_fewer_where_nobody_comes():
    act = Counted()
    act.go.set()
    gathered = Gathered(act, patient=True)
    gathered._company = 3

    assert [gathered(1), gathered(2), gathered(3)] == [2, 4, 6]
    assert gathered._company == 1


def test_a_fault_is_only_its_own_callers():
    fault = ValueError("bad")
    act = Counted(on_3=fault)

    assert outcomes(act, [1, 2, 3, 4]) == [2, 4, fault, 8]


@pytest.mark.parametrize("alone", [True, False])
def test_a_database_that_is_away_fails_for_all_at_once(alone):
    fault = OperationalError("away")
    act = Counted(on_2=fault)

    assert outcomes(act, [1, 2] if alone else [1, 2, 3]) == [2, *[fault] * (1 if alone else 2)]
    assert len(act.calls) == 2


def test_after_a_fault_the_next_is_served():
    act = Counted(on_1=ValueError("bad"))
    act.go.set()
    gathered = Gathered(act)

    with pytest.raises(ValueError, match="bad"):
        gathered(1)
    assert gathered(2) == 4
