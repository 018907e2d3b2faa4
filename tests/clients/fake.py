"""A server that fails on request: it keeps what it was sent, and each request is answered by the next fault, if any."""

import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from headroom_client.sending import STATUSES


@dataclass
class Request:
    """One request as it came."""

    at: float
    path: str
    headers: dict[str, str]
    events: list[dict[str, Any]]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


class Handler(BaseHTTPRequestHandler):
    server: "FakeServer"

    def do_POST(self) -> None:
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(time.monotonic(), self.path, dict(self.headers), json.loads(body)["events"])
        with self.server.lock:
            self.server.requests.append(request)
            fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        (fault or Handler.accept)(self)

    def accept(self) -> None:
        self.json(200, self.server.take(self.server.requests[-1].events))

    def json(self, status: int, answer: object, media: str = "application/json", **headers: str) -> None:
        self.raw(status, json.dumps(answer).encode(), media, **headers)

    def raw(self, status: int, body: bytes, media: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


Fault = Callable[[Handler], None]


@dataclass
class FakeServer(ThreadingHTTPServer):
    """`stored`: the first event of each id, as Headroom keeps it."""

    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    requests: list[Request] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: Callable[[dict[str, Any]], bool] = lambda event: False
    daemon_threads = True
    allow_reuse_address = True

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", self.port), Handler)
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent(self) -> list[list[str]]:
        """The ids of each request."""
        return [request.ids for request in self.requests]

    def take(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Headroom's answer."""
        counts = dict.fromkeys(STATUSES, 0)
        results = []
        with self.lock:
            for index, event in enumerate(events):
                known = self.stored.get(event["id"])
                if self.refuse(event):
                    status: dict[str, str] = {"status": "rejected", "code": "invalid_value", "detail": "No number."}
                elif known is None:
                    self.stored[event["id"]] = event
                    status = {"status": "accepted"}
                else:
                    status = {"status": "duplicate" if known == event else "conflict"}
                counts[status["status"]] += 1
                if status["status"] != "accepted":
                    results.append({"index": index, "id": event["id"], **status})
        return {**counts, "results": results}

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


# --- faults -------------------------------------------------------------------------------------------------------


def unavailable(handler: Handler, **headers: str) -> None:
    handler.json(503, {"code": "unavailable", "detail": "Busy."}, "application/problem+json", **headers)


def busy_for_a_second(handler: Handler) -> None:
    unavailable(handler, Retry_After="1")


def cut_after_storing(handler: Handler) -> None:
    """It stores, and the answer is lost."""
    handler.server.take(handler.server.requests[-1].events)
    handler.close_connection = True
    handler.connection.close()


def hang(handler: Handler) -> None:
    handler.server.released.wait()


def answer(status: int, body: bytes, media: str = "text/html", **headers: str) -> Fault:
    return lambda handler: handler.raw(status, body, media, **headers)


def at_most(events: int) -> Fault:
    """413 for more, as a proxy with a limit of its own."""

    def judge(handler: Handler) -> None:
        if len(handler.server.requests[-1].events) > events:
            handler.raw(413, b"<h1>Request Entity Too Large</h1>", "text/html")
        else:
            handler.accept()

    return judge


def poisoned_by(event_id: str) -> Fault:
    """400 for the whole body, as one event that is nested too deep gets it."""

    def judge(handler: Handler) -> None:
        if event_id in handler.server.requests[-1].ids:
            handler.json(400, {"code": "malformed", "detail": "Too deep."}, "application/problem+json")
        else:
            handler.accept()

    return judge
