"""Leases: spent here, renewed ahead, given back; the server as a function that grants and denies."""

import os
import threading
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from headroom_client.leases import Lease


class Limit:
    """A server that holds up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = Decimal(limit)
        self.held: dict[str, Decimal] = {}
        self.asked: list[Mapping[str, Any]] = []
        self.flushed = 0
        self.away = False
        self.lock = threading.Lock()

    def ask(self, path: str, question: Mapping[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if self.away:
                raise ConnectionRefusedError("away")
            if path != "/authorizations":
                assert self.flushed, "given back before its events were answered for"
                self.held.pop(path.split("/")[2])
                return 200, {}
            self.asked.append(question)
            amount = Decimal(question["amount"])
            if sum(self.held.values()) + amount > self.limit:
                return 402, {"decision": "deny", "reason": "budget_stop"}
            name = f"auth_{len(self.asked)}"
            self.held[name] = amount
            return 201, {"id": name, "amount": str(amount)}

    def flush(self) -> bool:
        self.flushed += 1
        return not self.away

    def lease(self, amount: object = 10, **options: Any) -> Lease:
        options = {"minutes": 5, "call_seconds": 60, **options}
        return Lease(self.ask, self.flush, customer="acme", unit="USD", amount=str(amount), **options)


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_calls_are_spent_without_asking_for_each():
    server = Limit(1000)
    with server.lease() as lease:
        for _ in range(4):
            spending = lease.spend("1")
            assert spending is not None
            spending.close()
        assert lease.left == 6
    assert server.asked == [{"customer": "acme", "unit": "USD", "ttl_seconds": 300, "amount": "10"}]
    assert server.held == {}


def test_it_is_renewed_before_it_runs_out_and_the_old_hold_is_given_back():
    server = Limit(1000)
    with server.lease() as lease:
        for _ in range(6):
            lease.spend(1).close()
        wait_until(lambda: len(server.asked) == 2)
        wait_until(lambda: lease.left == 14)
        for _ in range(8):
            lease.spend(1).close()
        wait_until(lambda: "auth_1" not in server.held)


def test_a_hold_is_kept_while_a_call_of_it_runs():
    server = Limit(1000)
    with server.lease() as lease:
        running = lease.spend(6)
        wait_until(lambda: len(server.asked) == 2)
        lease.spend(10).close()
        time.sleep(0.1)
        assert "auth_1" in server.held
        running.close()
        wait_until(lambda: "auth_1" not in server.held)


def test_a_denial_is_told_and_the_server_is_not_asked_again_at_once():
    server = Limit(10)
    with server.lease() as lease:
        assert lease.spend(10) is not None
        assert lease.spend(1) is None
        assert lease.denial["reason"] == "budget_stop"
        asked = len(server.asked)
        assert lease.spend(1) is None
        assert len(server.asked) == asked


def test_while_the_server_is_away_only_what_is_held_is_spent():
    server = Limit(1000)
    with server.lease() as lease:
        assert lease.spend(4) is not None
        server.away = True
        assert lease.spend(6) is not None
        assert lease.spend(1) is None
        assert lease.denial["reason"] == "unreachable"


def test_what_a_call_did_not_use_can_be_spent_again_and_what_it_used_beyond_is_taken():
    server = Limit(10)
    with server.lease() as lease:
        lease.spend(8).close(used=2)
        assert lease.left == 8
        lease.spend(1).close(used="3.5")
        assert lease.left == Decimal("4.5")
        spending = lease.spend(1)
        spending.close()
        spending.close(used=0)
        assert lease.left == Decimal("3.5")


def test_no_call_begins_on_a_hold_that_is_about_to_expire():
    server = Limit(10)
    lease = server.lease(minutes=0.02, call_seconds=0.9)  # 1.2 seconds, so 1: usable for 0.1
    assert lease.spend(1) is not None
    time.sleep(0.12)
    assert lease.left == 0
    assert lease.spend(1) is None


def test_a_call_larger_than_the_lease_gets_a_hold_of_its_size():
    server = Limit(1000)
    with server.lease() as lease:
        assert lease.spend(25) is not None
    assert server.asked[0]["amount"] == "25"


def test_a_child_process_does_not_spend_what_its_parent_holds():
    server = Limit(1000)
    with server.lease() as lease:
        lease.spend(1).close()
        child = os.fork()
        if not child:
            os._exit(0 if lease.spend(1) is not None and lease.left == 9 and len(server.asked) == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "options",
    [{"amount": 0}, {"minutes": 0}, {"minutes": 1, "call_seconds": 60}, {"call_seconds": 0}, {"minutes": 1441}],
)
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ValueError, match="send"):
        Limit(1).lease(**options)
