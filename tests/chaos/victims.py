"""What is killed: processes of ours, and the embedded servers."""

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

from config import embedded
from tests.processes import Web


class WebWorker:
    """One of the processes that take requests; its parent starts another one."""

    def __init__(self, web: Web, random: Random) -> None:
        self.web, self.random = web, random

    @property
    def running(self) -> bool:
        return True

    def kill(self) -> None:
        with suppress(ProcessLookupError, IndexError):  # it is only just starting
            os.kill(self.random.choice(self.web.workers()), signal.SIGKILL)

    def start(self) -> None:
        raise AssertionError("nobody else starts it")


class EmbeddedServer:
    """PostgreSQL or Valkey of a data folder, stopped without a chance to tidy up."""

    def __init__(self, name: str, var: Path, ending: signal.Signals) -> None:
        self.name, self.var, self.ending = name, var, ending
        self.stack = ExitStack()

    def start(self) -> None:
        """From the main thread, as for any child."""
        self.stack.close()
        [self.server] = self.stack.enter_context(embedded.running(self.var, [self.name]))

    @property
    def running(self) -> bool:
        return self.server.process.poll() is None

    def kill(self) -> None:
        self.server.process.send_signal(self.ending)
        self.server.process.wait()
