"""Stripe, as far as it is used: a small server that speaks its HTTP, remembers what it made, and has a payment page."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

from billing.topups import providers

SECRET = "whsec_test"
EVENTS = "/api/v1/webhooks/stripe"
CARD = {"id": "pm_1", "object": "payment_method", "type": "card"}
CARD |= {"card": {"brand": "visa", "last4": "4242", "exp_month": 4, "exp_year": 2030}}
PAGE = """<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Pay</title><h1>{name}</h1>
<form method="post"><button>Pay</button></form><a href="{cancel_url}">Back</a></html>"""

type Thing = dict[str, Any]
type Answer = tuple[int, Thing]


class FakeStripe:
    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.things: dict[str, Thing] = {}
        self.answers: dict[str, Answer] = {}  # by idempotency key
        self.is_broken = False
        self.refuses = ""  # every creation, with these words
        self.declines = ""  # every confirmation, with this code
        self.tells = ""  # where the site is that hears of what the payment page does
        self.on_post: Callable[[str], object] = lambda path: None
        self._numbers = count(1)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    # --- what tests ask and do --------------------------------------------------------------------------------------

    def posts(self, ending: str) -> list[dict[str, str]]:
        return [fields for path, fields in self.seen if path.endswith(ending)]

    def made(self, kind: str) -> list[Thing]:
        return [thing for thing in self.things.values() if thing["object"] == kind]

    def pay(self, session_id: str) -> Thing:
        """The customer pays on the page of this session."""
        session = self.things[session_id]
        session["customer"] = session["customer"] or "cus_1"
        if session["mode"] == "setup":
            setup = self._add("setup_intent", "seti", customer=session["customer"], payment_method=CARD)
            return session | {"setup_intent": setup["id"]}
        intent = self._add_intent(session["metadata"], customer=session["customer"], payment_method=CARD)
        self._succeed(intent)
        session.update(status="complete", payment_status="paid", payment_intent=intent["id"])
        return session

    def forget_keys(self) -> None:
        """As Stripe does after a day."""
        self.answers.clear()

    # --- what it answers --------------------------------------------------------------------------------------------

    def get(self, path: str) -> Answer:
        found = self.things.get(path.partition("?")[0].rpartition("/")[2])
        return (200, found) if found else _error(404, "invalid_request_error", "No such thing.", "resource_missing")

    def post(self, path: str, fields: dict[str, str], key: str | None) -> Answer:
        self.on_post(path)
        self.seen.append((path, fields))
        if self.is_broken:
            return _error(500, "api_error", "Something went wrong.")
        if key in self.answers:
            return self.answers[key]
        answer = self._act(path, fields)
        if key:
            self.answers[key] = answer
        return answer

    def _act(self, path: str, fields: dict[str, str]) -> Answer:
        *_, name, verb = path.split("/")
        if verb in ("confirm", "cancel", "expire"):
            if name not in self.things:
                return _error(404, "invalid_request_error", "No such thing.", "resource_missing")
            return getattr(self, f"_{verb}")(self.things[name])
        if self.refuses:
            return _error(400, "invalid_request_error", self.refuses)
        if not _is_chargeable(fields):
            return _error(400, "invalid_request_error", "Invalid amount.", "invalid_charge_amount")
        metadata = {name[9:-1]: value for name, value in fields.items() if name.startswith("metadata[")}
        if verb == "payment_intents":
            given = {name: fields[name] for name in ("amount", "customer")}
            return 200, self._add_intent(metadata, status="requires_confirmation", payment_method=CARD, **given)
        return 200, self._add_session(metadata, fields)

    def _add_session(self, metadata: Thing, fields: dict[str, str]) -> Thing:
        made = self._add(
            "checkout.session",
            "cs",
            mode=fields["mode"],
            status="open",
            payment_status="unpaid",
            payment_intent=None,
            setup_intent=None,
            customer=fields.get("customer"),
            metadata=metadata,
            name=fields.get("line_items[0][price_data][product_data][name]", "Your card"),
            success_url=fields["success_url"],
            cancel_url=fields["cancel_url"],
        )
        made["url"] = f"{self.url}/pay/{made['id']}"
        return made

    def _add_intent(self, metadata: Thing, **fields: Any) -> Thing:
        empty = {"status": "processing", "last_payment_error": None, "latest_charge": None, "customer": None}
        return self._add("payment_intent", "pi", metadata=metadata, **empty | fields)

    def _add(self, kind: str, prefix: str, **fields: Any) -> Thing:
        name = f"{prefix}_{next(self._numbers)}"
        self.things[name] = {"id": name, "object": kind, **fields}
        return self.things[name]

    def _confirm(self, intent: Thing) -> Answer:
        if intent["status"] != "requires_confirmation":
            return _error(400, "invalid_request_error", "It is confirmed already.", "payment_intent_unexpected_state")
        if self.declines:
            error = {"type": "card_error", "code": self.declines, "message": "Your card was declined."}
            intent.update(status="requires_payment_method", last_payment_error=error)
            return 402, {"error": error}
        return 200, self._succeed(intent)

    def _succeed(self, intent: Thing) -> Thing:
        about = {"payment_intent": intent["id"], "metadata": intent["metadata"]}
        charge = self._add("charge", "ch", receipt_url=f"{self.url}/receipt/{intent['id']}", **about)
        intent.update(status="succeeded", latest_charge=charge)
        return intent

    def _cancel(self, intent: Thing) -> Answer:
        if intent["status"] in ("succeeded", "processing"):
            return _error(400, "invalid_request_error", "It cannot be cancelled.", "payment_intent_unexpected_state")
        intent["status"] = "canceled"
        return 200, intent

    def _expire(self, session: Thing) -> Answer:
        if session["status"] != "open":
            return _error(400, "invalid_request_error", "It is not open.")
        session["status"] = "expired"
        return 200, session


def _is_chargeable(fields: dict[str, str]) -> bool:
    """As docs.stripe.com/currencies says of minor units."""
    prefix = "line_items[0][price_data]"
    amount = fields.get("amount") or fields.get(f"{prefix}[unit_amount]")
    currency = (fields.get("currency") or fields.get(f"{prefix}[currency]", "")).upper()
    steps = dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 10) | dict.fromkeys(("ISK", "UGX"), 100)
    return amount is None or int(amount) % steps.get(currency, 1) == 0


def _error(status: int, kind: str, message: str, code: str | None = None) -> Answer:
    return status, {"error": {"type": kind, "message": message, "code": code}}


def _handler(fake: FakeStripe) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/pay/"):
                self.say(200, PAGE.format_map(fake.things[self.path[5:]]).encode(), "text/html")
            else:
                self.say_json(*fake.get(self.path))

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if self.path.startswith("/pay/"):
                session = fake.pay(self.path[5:])
                self.say(303, b"", "text/plain", Location=session["success_url"])
                told = Request(fake.tells + EVENTS, *signed("checkout.session.completed", **session))
                threading.Timer(1, urlopen, [told]).start()  # after the customer is back
                return
            fields = {name: values[0] for name, values in parse_qs(sent).items()}
            self.say_json(*fake.post(self.path, fields, self.headers["Idempotency-Key"]))

        def say_json(self, status: int, body: Thing) -> None:
            self.say(status, json.dumps(body).encode(), "application/json")

        def say(self, status: int, content: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


_events = count(1)


def signed(
    kind: str, secret: str = SECRET, event_id: str = "", at: float | None = None, **subject: object
) -> tuple[bytes, dict[str, str]]:
    """Content and headers of what Stripe tells; each is another event unless it is named."""
    name = event_id or f"evt_{next(_events)}"
    content = json.dumps({"id": name, "object": "event", "type": kind, "data": {"object": subject}})
    moment = int(at or time.time())
    signature = hmac.new(secret.encode(), f"{moment}.{content}".encode(), hashlib.sha256).hexdigest()
    return content.encode(), {"Stripe-Signature": f"t={moment},v1={signature}", "Content-Type": "application/json"}


@contextmanager
def running(settings: Any) -> Iterator[FakeStripe]:
    """The settings lead to it."""
    fake = FakeStripe()
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE, settings.STRIPE_WEBHOOK_SECRET = "sk_test", fake.url, SECRET
    providers.stripe_provider.cache_clear()
    yield fake
    fake.close()
    providers.stripe_provider.cache_clear()
