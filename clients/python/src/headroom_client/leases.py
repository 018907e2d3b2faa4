"""Leases: an amount that is held on the server ahead of the calls, and spent here without asking for each of them."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

logger = logging.getLogger("headroom_client")

PATIENCE_SECONDS: Final = 1.0  # after a denial, before the server is asked again
HOUSEKEEPING_SECONDS: Final = 1.0
CREATED: Final = 201
DENIED: Final = 402

Number = Decimal | int | str
Ask = Callable[[str, Mapping[str, Any], str | None], "tuple[int, dict[str, Any]]"]


@dataclass
class _Hold:
    """An authorization of the server. Calls may begin on it until `closes`, in seconds of the monotonic clock."""

    id: str
    left: Decimal
    renews: float
    closes: float
    running: int = 0


class Spending:
    """What one call takes of a lease. Close it when the call's event is recorded; or use it in a `with`."""

    def __init__(self, lease: "Lease", hold: _Hold, amount: Decimal) -> None:
        self._lease = lease
        self._hold = hold
        self._is_open = True
        self.amount = amount

    def close(self, used: Number | None = None) -> None:
        """The call's event is recorded, or the call did not run: `used=0`. What was not used can be spent again; what
        was used beyond the amount is taken from what is left."""
        if self._is_open:
            self._is_open = False
            self._lease._closed(self._hold, self.amount - (self.amount if used is None else Decimal(used)))

    def __enter__(self) -> "Spending":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Lease:
    """A hold of `amount` for `minutes`, spent here and renewed ahead. Made by `Client.lease`. Thread-safe.

    No call begins on a hold in its last `call_seconds`, so a call that takes no longer is recorded before the hold
    expires. A hold is given back when its calls are closed and their events answered for. Until then what was spent
    of it counts twice on the server, as held and as used: a gateway ties up at most two holds more than it uses.

    Beyond the limits of the server goes only: what calls use beyond their spending, what calls use that take longer
    than `call_seconds`, and what a gateway that died reports after its holds expired: at most two holds.
    """

    def __init__(
        self,
        ask: Ask,
        flush: Callable[[], bool],
        *,
        customer: str,
        unit: str,
        amount: Number,
        minutes: float,
        call_seconds: float,
    ) -> None:
        if not 0 < call_seconds < minutes * 60:
            raise ValueError("call_seconds: send more than 0, and less than the lease lasts.")
        if not 0 < minutes <= 24 * 60:
            raise ValueError("minutes: send more than 0, and at most a day.")
        if Decimal(amount) <= 0:
            raise ValueError("amount: send more than 0.")
        self._ask = ask
        self._flush = flush
        self._question = {"customer": customer, "unit": unit, "ttl_seconds": max(1, int(minutes * 60))}
        self._amount = Decimal(amount)
        self._usable = int(minutes * 60) - call_seconds
        self._begin()

    def _begin(self) -> None:
        """All that belongs to one process: a child must not spend what its parent holds."""
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._holds: list[_Hold] = []
        self._retired: list[_Hold] = []
        self._asking = False
        self._patient_until = 0.0
        self._closing = False
        self._thread: threading.Thread | None = None
        self.denial: dict[str, Any] | None = None

    # What the program calls

    def spend(self, amount: Number) -> Spending | None:
        """Take so much of what is held; None when the server grants no more, and `denial` says why. Asks the server
        only when nothing fits."""
        wanted = Decimal(amount)
        if wanted <= 0:
            raise ValueError("amount: send more than 0.")
        if self._pid != os.getpid():
            self._begin()
        while True:
            with self._changed:
                if self._closing:
                    return None
                if hold := self._fitting(wanted):
                    hold.left -= wanted
                    hold.running += 1
                    self._renew_ahead()
                    return Spending(self, hold, wanted)
                if self._asking:
                    self._changed.wait_for(lambda: not self._asking)
                    continue
                if time.monotonic() < self._patient_until:
                    return None
                self._asking = True
            if not self._hold_more(wanted):
                return None

    def close(self) -> None:
        """Give everything back whose calls are closed and answered for. The rest expires."""
        with self._changed:
            self._closing = True
            self._retired += self._holds
            self._holds = []
            self._changed.notify_all()
        if self._pid == os.getpid():
            self._give_back()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def left(self) -> Decimal:
        """What can be spent without asking."""
        with self._changed:
            return sum((hold.left for hold in self._holds if time.monotonic() < hold.closes), Decimal(0))

    # With the lock

    def _fitting(self, wanted: Decimal) -> _Hold | None:
        """The oldest hold that has so much. Those before it are done with."""
        now = time.monotonic()
        while self._holds:
            hold = self._holds[0]
            if now < hold.closes and hold.left >= wanted:
                return hold
            if now < hold.closes and hold.left > 0 and len(self._holds) == 1:
                return None  # smaller calls may still fit
            self._retired.append(self._holds.pop(0))
            self._changed.notify_all()
        return None

    def _renew_ahead(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_after, name="headroom-lease", daemon=True)
            self._thread.start()
        elif self._is_low():
            self._changed.notify_all()

    def _is_low(self) -> bool:
        if len(self._holds) != 1 or self._asking or time.monotonic() < self._patient_until:
            return False
        return self._holds[0].left * 2 <= self._amount or time.monotonic() >= self._holds[0].renews

    def _closed(self, hold: _Hold, rest: Decimal) -> None:
        with self._changed:
            hold.left += rest
            hold.running -= 1
            if hold in self._retired and not hold.running:
                self._changed.notify_all()

    # Asking the server, without the lock

    def _hold_more(self, wanted: Decimal) -> bool:
        """Ask for another hold; whether there is one. `_asking` is ours."""
        begun, hold, denial = time.monotonic(), None, None
        amount = max(self._amount, wanted)
        try:
            question = {**self._question, "amount": format(amount, "f")}
            status, answer = self._ask("/authorizations", question, uuid.uuid4().hex)
            if status == CREATED:
                renews, closes = begun + self._usable / 2, begun + self._usable
                hold = _Hold(str(answer["id"]), Decimal(answer["amount"]), renews, closes)
            else:
                denial = answer if status == DENIED else {"reason": "refused", "status": status, "detail": answer}
        except Exception as error:  # whatever it is: nothing more can be spent, and the program lives
            denial = {"reason": "unreachable", "detail": f"{type(error).__name__}: {error}"}
            logger.warning("Headroom's lease cannot be renewed: %s", error)
        with self._changed:
            self._asking = False
            self.denial = denial
            if hold is None:
                self._patient_until = time.monotonic() + PATIENCE_SECONDS
            else:
                self._holds.append(hold)
            self._changed.notify_all()
        return hold is not None

    # The thread that renews ahead and gives back

    def _look_after(self) -> None:
        while not self._closing:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._is_low() or self._is_done(), HOUSEKEEPING_SECONDS)
                renew = not self._closing and self._is_low()
                self._asking = self._asking or renew
            if renew:
                self._hold_more(self._amount)
            self._give_back()

    def _is_done(self) -> bool:
        return any(not hold.running for hold in self._retired)

    def _give_back(self) -> None:
        """Holds that are done with, once their events are answered for; otherwise they expire."""
        with self._changed:
            now = time.monotonic()
            done = [hold for hold in self._retired if not hold.running]
            # A call that was never closed: its hold expires by itself.
            self._retired = [hold for hold in self._retired if hold.running and now < hold.closes + self._usable]
        if not done or not self._flush():
            return
        for hold in done:
            try:
                self._ask(f"/authorizations/{hold.id}/capture", {}, None)
            except Exception as error:
                logger.warning("Headroom's hold %s was not given back and will expire: %s", hold.id, error)
