"""One attempt to deliver events over HTTP, and what came of it. Waiting and trying again is the client's business."""

import gzip
import json
import ssl
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from headroom_client.events import Rejection, decode

OK: Final = 200
TOO_LARGE: Final = 413
BODY_REFUSED: Final = (400, 422)
STATUSES: Final = ("accepted", "duplicate", "conflict", "unmatched", "rejected")
MAX_ANSWER_BYTES: Final = 5_000_000
MAX_RETRY_AFTER_SECONDS: Final = 3600.0
COMPRESSION: Final = 1  # usage compresses well, and fast matters more than small


@dataclass
class Delivered:
    """The server answered for each event: how many came to what, and those that it refused."""

    counts: Counter[str] = field(default_factory=Counter)
    rejections: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True)
class Later:
    """Not delivered, or not known to be: the same events must be sent again."""

    reason: str
    retry_after: float | None = None


class Sender:
    """The way to one server."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float,
        context: ssl.SSLContext | None,
        proxies: Mapping[str, str] | None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/api/v1"
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
            "User-Agent": "headroom-client-python",
        }
        self._timeout = timeout
        self._opener = build_opener(
            ProxyHandler(None if proxies is None else dict(proxies)), HTTPSHandler(context=context), _NoRedirect()
        )

    def send(self, lines: Sequence[bytes]) -> Delivered | Later:
        """Send events once. A body that is refused as a whole is halved until the event that spoils it is alone."""
        try:
            status, headers, body = self._post("/events", b'{"events":[' + b",".join(lines) + b"]}", compress=True)
        except (OSError, HTTPException) as error:
            return Later(f"{type(error).__name__}: {error}")
        if status == OK:
            return _read_answer(lines, body)
        problem = _problem(headers, body)
        if status == TOO_LARGE or (status in BODY_REFUSED and problem):
            return self._send_halves(lines) if len(lines) > 1 else _refused(lines[0], status, problem)
        # What else is refused is not about the events: a wrong key or address is put right while they wait.
        said = problem.get("detail") or body[:200].decode(errors="replace")
        return Later(f"{status} {said}", _retry_after(headers))

    def _send_halves(self, lines: Sequence[bytes]) -> Delivered | Later:
        middle = len(lines) // 2
        first = self.send(lines[:middle])
        if isinstance(first, Later):
            return first
        second = self.send(lines[middle:])
        if isinstance(second, Later):
            return second  # the first half will be sent again, as duplicates
        return Delivered(first.counts + second.counts, first.rejections + second.rejections)

    def ask(self, path: str, question: Mapping[str, Any], key: str | None = None) -> tuple[int, dict[str, Any]]:
        """POST a question once, under an Idempotency-Key if one is given; status and answer. Raises OSError,
        HTTPException, or ValueError for an answer that is no JSON object."""
        status, _, body = self._post(path, json.dumps(question).encode(), key=key)
        answer = json.loads(body)
        if not isinstance(answer, dict):
            raise ValueError(f"{status} with an answer that is not Headroom's")
        return status, answer

    def _post(
        self, path: str, body: bytes, *, compress: bool = False, key: str | None = None
    ) -> tuple[int, Message, bytes]:
        headers = dict(self._headers)
        if compress:
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, COMPRESSION)
        if key is not None:
            headers["Idempotency-Key"] = key
        request = Request(  # noqa: S310 -- the client checks the scheme of its address
            self._url + path, data=body, headers=headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return answer.status, answer.headers, answer.read(MAX_ANSWER_BYTES)
        except HTTPError as error:
            with error:
                return error.code, error.headers, error.read(MAX_ANSWER_BYTES)


class _NoRedirect(HTTPRedirectHandler):
    """A redirected POST becomes a GET, and its key would follow it to another host."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _read_answer(lines: Sequence[bytes], body: bytes) -> Delivered | Later:
    """A 200 counts only if it answers for exactly these events: something in between may have made it."""
    try:
        answer = json.loads(body)
        counts = Counter({status: int(answer[status]) for status in STATUSES})
        rejections = [
            Rejection(
                status=result["status"],
                code=str(result.get("code", result["status"])),
                detail=str(result.get("detail", "Another event has this id.")),
                event=decode(lines[result["index"]]),
            )
            for result in answer["results"]
            if result["status"] in ("rejected", "conflict")
        ]
    except (ValueError, TypeError, LookupError) as error:
        return Later(f"200 with an answer that is not Headroom's ({type(error).__name__}: {error})")
    if sum(counts.values()) != len(lines):
        return Later(f"200 with an answer for {sum(counts.values())} of {len(lines)} events")
    return Delivered(counts, rejections)


def _refused(line: bytes, status: int, problem: Mapping[str, Any]) -> Delivered:
    code = str(problem.get("code", "too_large"))
    detail = str(problem.get("detail", f"The server answered {status}."))
    return Delivered(Counter(rejected=1), [Rejection("rejected", code, detail, decode(line))])


def _problem(headers: Message, body: bytes) -> dict[str, Any]:
    """The server's own words. What stands between may answer too, but not in problem+json with a code."""
    if headers.get_content_type() != "application/problem+json":
        return {}
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) and "code" in problem else {}


def _retry_after(headers: Message) -> float | None:
    """Seconds, from a number or an HTTP date."""
    text = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(text) if text.isdecimal() else _seconds_until(parsedate_to_datetime(text))
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_until(instant: datetime) -> float:
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=timezone.utc)
    return (instant - datetime.now(timezone.utc)).total_seconds()
